"""`make build`: builds the function with the SAM CLI, and compiles its modules for Lambda's Python.

Lambda cannot keep what it compiles, so without bytecode each cold start compiles all modules again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from operate.parameters import override, template, template_parameters
from operate.stacks import ROOT

BUILT: Final = ROOT / ".aws-sam/build/Function"

# Where Lambda puts the function. Tracebacks name it, and the bytecode does not depend on where it was made.
_IN_LAMBDA: Final = "/var/task"


def main() -> None:
    """Builds for ARCHITECTURE, or else for the template's default."""
    build(os.environ.get("ARCHITECTURE") or template_parameters()["Architecture"]["Default"])


def build(architecture: str) -> None:
    """Builds the function for `architecture`. Exits if the SAM CLI fails, but not if no Python can compile."""
    run("sam", "build", "--parameter-overrides", override("Architecture", architecture))
    version = runtime()
    if problem := compile_modules(BUILT, version):
        print(
            f"\nThe function has no bytecode, so each of its cold starts takes about twice as long: {problem}\n"
            f"Without bytecode, the function works as well. For bytecode, install Python {version} and build again.",
            file=sys.stderr,
        )
    else:
        print(f"Compiled the function's modules for Python {version}.")


def run(*command: str) -> None:
    """Prints a command and runs it in the repository's folder. Exits if it fails."""
    print(shlex.join(command), flush=True)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(code)


def runtime() -> str:
    """The version of Python that the function runs on, such as `3.13`."""
    return str(template()["Resources"]["Function"]["Properties"]["Runtime"]).removeprefix("python")


def compile_modules(folder: Path, version: str) -> str | None:
    """Compiles all modules in `folder` with CPython `version`, which uv finds or downloads. Returns what went wrong.

    The bytecode is the same each time, and works on every processor. It does not refer to the modules' times, which
    `sam build` does not keep.
    """
    python = ["uv", "run", "--quiet", "--no-project", "--no-env-file", "--python", f"cpython@{version}", "python"]
    # -f: what an earlier build may have left is not checked when it is loaded, so it must be replaced.
    options = ["-f", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", _IN_LAMBDA]
    try:
        done = subprocess.run(
            [*python, "-m", "compileall", *options, folder],
            cwd=ROOT,
            env=os.environ | {"PATH": os.pathsep.join([*_pyenv(version), os.environ["PATH"]])},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "uv is not installed."
    if done.returncode:
        return f"Python {version} was not found, could not be downloaded, or failed.\n{_last_lines(done)}"
    return None


def _pyenv(version: str) -> list[str]:
    """The folders of pyenv's Pythons of that version. uv does not find those that are not selected."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(found) for found in root.glob(f"versions/{version}.*/bin")]


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])


if __name__ == "__main__":
    main()
