"""A copy of the repository as after cloning, for commands that write into their own folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT, needed

SAM_VENV = ROOT / ".venv/sam"


def copy_repository(folder: Path) -> None:
    """Copies the files that git tracks or would add, and links this checkout's virtual environments."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")


def shell_environment() -> dict[str, str]:
    """A shell's variables, without the user's account and with the SAM CLI on the PATH."""
    needed((SAM_VENV / "bin/sam").exists(), "the SAM CLI is not installed: run `make test`")
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "PATH": f"{SAM_VENV / 'bin'}:{os.environ['PATH']}",
        "SAM_CLI_TELEMETRY": "0",
    }


def run_in(folder: Path, environment: dict[str, str], *command: str) -> str:
    """Runs a command that must succeed, and returns its output."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
