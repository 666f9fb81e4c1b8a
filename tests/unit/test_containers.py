from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from local import containers
from local.stack import Stack


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a `docker` on the PATH that prints the given output, and nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def prints(output: str) -> None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\nprintf %s '{output}'\n")
        (tmp_path / "docker").chmod(0o755)

    return prints


NONE_CONFIGURED = json.dumps([{"IPAM": {"Config": None}}])


def network(**config: str) -> str:
    return json.dumps([{"IPAM": {"Config": [config]}}])


def test_containers_reach_the_machine_at_the_networks_gateway(engine: Callable[[str], None]) -> None:
    engine(network(Subnet="192.0.2.0/24", Gateway="127.0.0.1"))

    assert containers.gateway() == "127.0.0.1"


def test_an_omitted_gateway_is_the_networks_first_address(engine: Callable[[str], None]) -> None:
    engine(network(Subnet="127.0.0.0/8"))

    assert containers.gateway() == "127.0.0.1"


@pytest.mark.parametrize(
    "output",
    [network(Subnet="192.0.2.0/24", Gateway="192.0.2.1"), "[]", "", "no JSON", "[{}]", "[null]", NONE_CONFIGURED],
)
def test_a_gateway_must_be_an_address_of_this_machine(engine: Callable[[str], None], output: str) -> None:
    engine(output)

    assert containers.gateway() is None


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_a_name_of_this_machine_resolves_to_its_address(host: str, address: str) -> None:
    assert containers.own_address(host) == address


@pytest.mark.usefixtures("engine")
def test_without_an_engine_there_is_no_gateway() -> None:
    assert containers.gateway() is None


def test_sam_gets_the_stacks_address_while_the_stack_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_FOLDER", tmp_path / "sam")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    stack = Stack("http://127.0.0.1:5001", "http://127.0.0.1:5001/queue", "http://127.0.0.1:5001/dead-letters")

    with containers.settings_for_sam(stack):
        variables = json.loads((tmp_path / "sam/local-environment.json").read_text())["Function"]
        assert (tmp_path / "sam/local-parameters.yaml").read_text() == "Architecture: arm64\n"
    assert variables["AWS_ENDPOINT_URL"] == "http://host.docker.internal:5001"
    assert variables["QUEUE_URL"] == "http://host.docker.internal:5001/queue"
    # README's keys name repositories that nobody has created.
    assert variables["CREATE_REPOSITORIES"] == "true"
    assert not list((tmp_path / "sam").iterdir())
