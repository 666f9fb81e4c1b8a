from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT


def test_the_demonstration_works_even_behind_a_proxy() -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "localhost", "NO_PROXY": "localhost"}
    done = subprocess.run(
        [sys.executable, "-m", "local.demo"],
        cwd=ROOT,
        env=os.environ | proxy,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "It works." in done.stdout
    assert '"layerAvailability": "AVAILABLE"' in done.stdout
    assert "the second time: 0." in done.stdout
