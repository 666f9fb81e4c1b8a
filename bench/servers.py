"""Runs the source and the sink on loopback, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Servers:
    """The servers' URLs."""

    source: str
    sink: str


@contextmanager
def running(*, first_byte_seconds: float = 0, part_seconds: float = 0, file: Path | None = None) -> Iterator[Servers]:
    """Runs both servers. The source delays the first byte of every response, the sink delays every part.

    If there is a `file`, it is all that the source has.
    """
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(_process("bench.source", first_byte_seconds, *([file] if file else []))),
            stack.enter_context(_process("bench.sink", part_seconds)),
        )


@contextmanager
def _process(module: str, seconds: float, *files: Path) -> Iterator[str]:
    command = [sys.executable, "-m", module, str(seconds), *map(str, files)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the server process has no pipes")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
