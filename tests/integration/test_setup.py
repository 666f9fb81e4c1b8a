"""How make sets up the environments, and what it prints if it cannot: real make in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A Python that behaves as the variables say and logs its arguments. Its environments contain a copy of it.
PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
  "-c "*) [ "$ON_VERSION" != old ] ;;
  "-m venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python"
    [ "$ON_VENV" != killed ] || kill -KILL 0
    [ "$ON_VENV" != fails ] && touch "$folder/bin/pip" ;;
  "-m pip "*"/dev/stdin")
    [ "$ON_UV" = missing ] || cp "$0" "${0%/*}/uv" ;;
  "-m pip "* | "pip install "*)
    [ "$ON_INSTALL" != killed ] || kill -KILL 0
    [ "$ON_INSTALL" != fails ] ;;
  "-m local.serve") echo "serving on '$PORT'" ;;
esac
"""
# Does what Debian's Python does without python3-venv, by means of the real one.
DEBIANS_PYTHON = f"""#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
for folder; do :; done
{sys.executable} -m venv --without-pip "$folder"
echo "The virtual environment was not created successfully because ensurepip is not available."
exit 1
"""
ENVIRONMENTS = {".venv/dev": ".venv", ".venv/sam/ready": ".venv/sam"}
each_environment = pytest.mark.parametrize(("stamp", "environment"), ENVIRONMENTS.items())


class Checkout:
    """A folder with the Makefile, empty locks, and the Python that make uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bin = folder / "bin"
        self._calls = folder / "calls"
        self._bin.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "requirements").mkdir()
        for lock in ("dev.txt", "sam.txt"):
            (folder / "requirements" / lock).touch()
        self.install("python3", PYTHON)

    def install(self, name: str, script: str) -> None:
        (self._bin / name).write_text(script)
        (self._bin / name).chmod(0o755)

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs make in its own process group, without the variables of a make that runs the tests."""
        return subprocess.run(
            ["make", "--no-print-directory", *arguments],  # noqa: S607
            cwd=self.folder,
            env={"PATH": f"{self._bin}:{os.environ['PATH']}", "CALLS": str(self._calls)} | variables,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )

    def calls_of(self, arguments: str) -> list[str]:
        """The calls of the Python so far whose arguments begin like this."""
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [call for call in calls if call.startswith(arguments)]

    def has(self, path: str) -> bool:
        return (self.folder / path).exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_without_debians_python3_venv_make_names_the_package_and_leaves_nothing(checkout: Checkout) -> None:
    checkout.install("debians-python", DEBIANS_PYTHON)

    made = checkout.make(".venv/dev", "PYTHON=debians-python")

    assert made.returncode != 0
    assert "apt install python3-venv" in made.stderr
    assert not checkout.has(".venv")
    # Once the package is installed, make starts from scratch.
    made = checkout.make(".venv/dev", f"PYTHON={sys.executable}")
    assert made.returncode == 0, made.stderr
    assert checkout.has(".venv/bin/pip")


@each_environment
def test_an_environment_that_cannot_be_made_is_removed(checkout: Checkout, stamp: str, environment: str) -> None:
    if environment != ".venv":
        checkout.make(".venv/dev")

    made = checkout.make(stamp, ON_VENV="fails")

    assert made.returncode != 0
    assert f"The virtual environment {environment} could not be made." in made.stderr
    assert not checkout.has(environment)


@each_environment
def test_a_half_made_environment_is_made_again(checkout: Checkout, stamp: str, environment: str) -> None:
    if environment != ".venv":
        checkout.make(".venv/dev")
    assert checkout.make(stamp, ON_VENV="killed").returncode == -signal.SIGKILL
    assert checkout.has(f"{environment}/bin/python")

    made = checkout.make(stamp)

    assert made.returncode == 0, made.stderr
    assert checkout.calls_of("-m venv")[-2:] == [f"-m venv --clear {environment}"] * 2
    assert checkout.has(stamp)


@each_environment
@pytest.mark.parametrize("how", ["fails", "killed"])
@pytest.mark.parametrize("uv", ["", "missing"], ids=["uv", "pip"])
@pytest.mark.parametrize("update", [False, True], ids=["first", "update"])
def test_an_installation_that_stopped_halfway_is_repeated_in_full(
    checkout: Checkout, stamp: str, environment: str, how: str, uv: str, update: bool
) -> None:
    if update:
        checkout.make(stamp, ON_UV=uv)
        os.utime(checkout.folder / stamp, (0, 0))

    made = checkout.make(stamp, ON_INSTALL=how, ON_UV=uv)

    assert made.returncode != 0
    assert how == "killed" or "could not be installed. pip's message is above." in made.stderr
    made = checkout.make(stamp, ON_UV=uv)
    assert made.returncode == 0, made.stderr
    if uv:
        assert "--force-reinstall" in checkout.calls_of("-m pip")[-1]
    else:
        assert "--reinstall" in checkout.calls_of("pip install")[-1]
    assert checkout.calls_of("-m venv").count(f"-m venv --clear {environment}") == 1
    assert checkout.make(stamp).stdout == f"make: '{stamp}' is up to date.\n"


@each_environment
def test_a_new_lock_updates_only_what_differs(checkout: Checkout, stamp: str, environment: str) -> None:
    checkout.make(stamp)
    environments = checkout.calls_of("-m venv")
    os.utime(checkout.folder / stamp, (0, 0))

    assert checkout.make(stamp).returncode == 0

    assert checkout.has(environment)
    assert checkout.calls_of("-m venv") == environments
    assert "--reinstall" not in checkout.calls_of("pip install")[-1]


def test_pip_installs_what_uv_cannot(checkout: Checkout) -> None:
    """As with an index that only pip's own settings name."""
    made = checkout.make(".venv/dev", ON_UV="missing")

    assert made.returncode == 0, made.stderr
    assert ".venv/uv.log says, so pip does." in made.stderr
    assert checkout.calls_of("-m pip")[-1].endswith("-r requirements/dev.txt --force-reinstall")


def test_the_first_demo_announces_the_installation_and_its_duration(checkout: Checkout) -> None:
    first = checkout.make("demo")
    second = checkout.make("demo")

    assert first.stderr == "Installing requirements/dev.txt into .venv. The first time this takes about a minute.\n"
    assert second.stderr == ""
    assert checkout.calls_of("-m local.demo") == ["-m local.demo"] * 2
    assert not checkout.has(".venv/sam")


@pytest.mark.parametrize("goal", ["demo", "event"])
@pytest.mark.parametrize(
    ("python", "version", "message"),
    [
        ("nosuchpython", "", "nosuchpython was not found."),
        ("python3", "old", "python3 is too old, or does not run."),
    ],
)
def test_an_unsuitable_python_is_reported_with_the_version_needed(
    checkout: Checkout, goal: str, python: str, version: str, message: str
) -> None:
    made = checkout.make(goal, f"PYTHON={python}", "KEY=team/app/layer.tar.gz", ON_VERSION=version)

    assert made.returncode != 0
    assert made.stdout == ""
    assert f"{message} s3-to-ecr needs Python 3.11 or later." in made.stderr
    assert f"make PYTHON=python3.13 {goal}" in made.stderr
    assert not checkout.has(".venv")


@pytest.mark.parametrize(("given", "port"), [([], "5000"), (["PORT=5001"], "5001"), (["PORT=50 00"], "50 00")])
def test_the_local_stack_gets_the_port_unchanged(checkout: Checkout, given: list[str], port: str) -> None:
    assert checkout.make("local", *given).stdout == f"serving on '{port}'\n"


def test_publishing_without_a_bucket_says_so_before_anything_is_built(checkout: Checkout) -> None:
    made = checkout.make("publish")

    assert made.returncode != 0
    assert "ARTIFACTS is missing" in made.stderr
    assert "make publish ARTIFACTS=my-bucket" in made.stderr
    assert not checkout.has(".venv")
