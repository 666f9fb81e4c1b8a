from __future__ import annotations

import re
import socket
import subprocess

import pytest

from local.stack import free_port
from tests.conftest import run_python


def serve(**environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `make local` with settings that it cannot use."""
    return run_python("-m", "local.serve", **environment)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "http"}, "PORT is 'http': it takes a number up to 65535"),
        ({"PORT": "99999"}, "PORT is '99999': it takes a number up to 65535"),
        ({"PORT": "-1"}, "PORT is '-1': it takes a number up to 65535"),
        ({"PORT": "50 00"}, "PORT is '50 00': it takes a number up to 65535"),
        ({"HOST": "192.0.2.1"}, "HOST is '192.0.2.1', which is not an IPv4 address of this machine"),
        ({"HOST": "nosuch.invalid"}, "HOST is 'nosuch.invalid', which is not an IPv4 address of this machine"),
        ({"HOST": "no..host"}, "HOST is 'no..host', which is not an IPv4 address of this machine"),
        ({"HOST": "0.0.0.0"}, "HOST is '0.0.0.0', which is not an IPv4 address of this machine"),  # noqa: S104
    ],
)
def test_an_unusable_port_or_host_is_reported_in_one_line(environment: dict[str, str], message: str) -> None:
    done = serve(**{"PORT": str(free_port())} | environment)

    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_reported_with_an_alternative() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve(PORT=str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert re.search(r"PORT \d+ cannot be used on .*127.0.0.1.*: Address already in use\.", done.stderr)
    assert "Choose another: make local PORT=5001" in done.stderr
