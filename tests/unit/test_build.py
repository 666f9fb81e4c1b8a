"""`make build` with a SAM CLI and a uv that do what a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from operate import build

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a shell script one of the only two programs on the PATH. At first both fail."""

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    for name in ("sam", "uv"):
        write(name, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("ARCHITECTURE", raising=False)
    return write


def test_a_build_without_the_functions_python_succeeds_and_says_what_is_missing(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    install("sam", "echo sam $*")
    install("uv", "echo error: no download >&2; exit 2")

    build.main()

    out, error = capfd.readouterr()
    assert "sam build --parameter-overrides Architecture=arm64\n" in out
    assert "Compiled" not in out
    assert "The function has no bytecode, so each of its cold starts takes about twice as long" in error
    assert "error: no download\n" in error
    assert "install Python 3.13 and build again" in error


def test_a_build_with_it_says_for_which_python_it_compiled(
    install: Install, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sam", "echo sam $*")
    install("uv", "exit 0")
    monkeypatch.setenv("ARCHITECTURE", "x86_64")

    build.main()

    out, error = capfd.readouterr()
    assert "sam build --parameter-overrides Architecture=x86_64\n" in out
    assert out.endswith("Compiled the function's modules for Python 3.13.\n")
    assert error == ""


def test_a_build_that_fails_is_not_compiled(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("uv", "echo compiling")

    with pytest.raises(SystemExit) as stopped:
        build.main()

    assert stopped.value.code == 1
    assert "ompil" not in capfd.readouterr().out


def test_a_python_that_pyenv_has_but_did_not_select_is_found(install: Install, tmp_path: Path) -> None:
    (tmp_path / "pyenv/versions/3.13.0/bin").mkdir(parents=True)
    (tmp_path / "pyenv/versions/3.11.7/bin").mkdir(parents=True)
    install("uv", f'[ "$PATH" = "{tmp_path}/pyenv/versions/3.13.0/bin:{tmp_path}" ]')

    assert build.compile_modules(tmp_path, "3.13") is None
