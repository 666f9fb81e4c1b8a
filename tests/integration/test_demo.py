from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def test_the_demonstration_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.demo"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "It works." in done.stdout
    assert '"layerAvailability": "AVAILABLE"' in done.stdout
    assert "the second time: 0." in done.stdout
