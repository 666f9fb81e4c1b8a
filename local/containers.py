"""Lets the function in a `sam local` container reach the local stack: the address, and the files that pass it on."""

from __future__ import annotations

import ipaddress
import json
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.stack import Stack, free_port

# This machine's name inside containers. `samconfig.toml` makes it known to them.
_HOST: Final = "host.docker.internal"

_ROOT: Final = Path(__file__).parent.parent
_FOLDER: Final = _ROOT / ".aws-sam"
_ARCHITECTURES: Final = {"aarch64": "arm64", "arm64": "arm64"}
_SECONDS: Final = 20


def gateway() -> str | None:
    """The machine's address in the container engine's network; `None` without an engine or such an address.

    On Linux, containers reach the machine at this address. Docker Desktop routes them to services on 127.0.0.1.
    """
    if not shutil.which("docker"):
        return None
    command = ["docker", "network", "inspect", "bridge"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        [network] = json.loads(done.stdout)
        configured = network["IPAM"]["Config"][0]
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None  # no engine is running, or its networks are of another kind
    # Some engines omit the gateway. It is then the network's first address.
    address = configured.get("Gateway") or str(ipaddress.ip_network(configured["Subnet"])[1])
    return own_address(address)


def own_address(host: str) -> str | None:
    """The IPv4 address of this machine that `host` names. `None` for another machine's address or for 0.0.0.0."""
    try:
        address = socket.gethostbyname(host)
        free_port(host=address)
    except (OSError, UnicodeError):  # no such name, another machine's address, or no name at all
        return None
    return None if ipaddress.ip_address(address).is_unspecified else address


@contextmanager
def settings_for_sam(stack: Stack) -> Iterator[None]:
    """Writes the two files that `samconfig.toml` names: the function's variables, and this machine's processor."""
    reach = {name: value.replace("127.0.0.1", _HOST) for name, value in stack.settings.items()}
    reach["CREATE_REPOSITORIES"] = "true"  # any key works, so nobody has to create repositories first
    variables = _FOLDER / "local-environment.json"
    parameters = _FOLDER / "local-parameters.yaml"
    _FOLDER.mkdir(exist_ok=True)
    variables.write_text(json.dumps({"Function": reach}, indent=2) + "\n")
    parameters.write_text(f"Architecture: {_ARCHITECTURES.get(platform.machine().lower(), 'x86_64')}\n")
    try:
        yield
    finally:
        variables.unlink(missing_ok=True)
        parameters.unlink(missing_ok=True)
