from __future__ import annotations

import socket
import subprocess

import pytest

from local.stack import free_port
from tests.conftest import run_python


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    """`make local`, where it cannot begin."""
    return run_python("-m", "local.serve", **environment)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"PORT": "http"}, "PORT is 'http': it takes a number"),
        ({"HOST": "192.0.2.1"}, "of 127.0.0.1 and 192.0.2.1 cannot be served on"),
    ],
)
def test_what_cannot_be_served_on_is_told_in_a_line(environment: dict[str, str], told: str) -> None:
    done = serve(**{"PORT": str(free_port())} | environment)

    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_with_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve(PORT=str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert "Choose another: make local PORT=5001" in done.stderr
