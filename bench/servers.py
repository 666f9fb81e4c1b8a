"""The source and the sink, each a process of its own, on loopback."""

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
    """URLs of the two."""

    source: str
    sink: str


@contextmanager
def running(*, first_byte_seconds: float = 0, part_seconds: float = 0) -> Iterator[Servers]:
    """Both servers. The source waits before an answer's first byte, the sink takes its time for every part."""
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(_process("bench.source", first_byte_seconds)),
            stack.enter_context(_process("bench.sink", part_seconds)),
        )


@contextmanager
def _process(module: str, seconds: float) -> Iterator[str]:
    command = [sys.executable, "-m", module, str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process without the pipes that it was given")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
