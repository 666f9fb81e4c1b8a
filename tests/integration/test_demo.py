from __future__ import annotations

import pytest

from tests.conftest import run_python


@pytest.mark.usefixtures("much_memory")
def test_the_demonstration_works_even_behind_a_proxy() -> None:
    done = run_python("-m", "local.demo", http_proxy="http://127.0.0.1:9", no_proxy="localhost", NO_PROXY="localhost")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "It works." in done.stdout
    assert "ECR says          AVAILABLE" in done.stdout
    assert "handled before, 0 parts" in done.stdout
    assert "waits for index.json" in done.stdout
