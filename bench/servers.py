"""Runs the source and the sink on loopback, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from local.certificate import Certificate

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Servers:
    """The servers' URLs, and with TLS the certificate that clients have to trust."""

    source: str
    sink: str
    trusted: Path | None = None


@contextmanager
def running(
    *, first_byte_seconds: float = 0, part_seconds: float = 0, file: Path | None = None, tls: bool = False
) -> Iterator[Servers]:
    """Runs both servers. The source delays the first byte of every response, the sink delays every part.

    If there is a `file`, it is all that the source has.
    """
    with ExitStack() as stack:
        certificate = Certificate.write(Path(stack.enter_context(TemporaryDirectory()))) if tls else None
        common: list[str | Path] = ["--certificate", certificate.folder] if certificate else []
        files: list[str | Path] = ["--file", file] if file else []
        yield Servers(
            stack.enter_context(_process("bench.source", first_byte_seconds, *common, *files)),
            stack.enter_context(_process("bench.sink", part_seconds, *common)),
            certificate.trusted if certificate else None,
        )


@contextmanager
def _process(module: str, seconds: float, *options: str | Path) -> Iterator[str]:
    command = [sys.executable, "-m", module, "--seconds", str(seconds), *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the server process has no pipes")
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
