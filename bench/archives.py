"""Image archives: an image of real files as `docker save` writes it, plain and compressed, and what pushing it costs.

Each measurement runs in its own process, which reports its cost, as the other contestants do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contestants import Measure, peak_bytes
from bench.source import ETAG
from local import images
from local.invocation import Invocation, put_event
from local.layers import layer

if TYPE_CHECKING:
    from s3_to_ecr.images.compression import Codec

# The endings, and the commands that compress, as people call them.
COMPRESSIONS = {"tar": (), "tar.gz": ("gzip", "--stdout"), "tar.zst": ("zstd", "--stdout", "--quiet")}
_LAYERS = 4
_CHUNK_BYTES = 1024 * 1024


def made(folder: Path, size: int) -> dict[str, Path]:
    """An archive of about `size` bytes for each ending whose command is installed."""
    pieces = _real_files(size // _LAYERS)
    layers = [layer(f"srv/{number}", next(pieces)) for number in range(_LAYERS)]
    plain = folder / "image.tar"
    plain.write_bytes(images.docker_save(["example.com/bench:1"], images.image(layers)))
    found = {"tar": plain}
    for ending, command in COMPRESSIONS.items():
        if command:
            path = folder / f"image.{ending}"
            with path.open("wb") as packed:
                try:
                    subprocess.run([*command, str(plain)], stdout=packed, check=True)
                except FileNotFoundError:
                    continue
            found[ending] = path
    return found


def _real_files(size: int) -> Iterator[bytes]:
    """Pieces of `size` bytes from Python's own files, which shrink as files in images do."""
    paths = sorted(path for path in Path(sysconfig.get_path("stdlib")).rglob("*") if path.is_file())
    piece = bytearray()
    for path in cycle(paths):
        piece += path.read_bytes()
        while len(piece) >= size:
            yield bytes(piece[:size])
            del piece[:size]


def push(path: Path, source: str, sink: str) -> Callable[[], None]:
    """The handler, with the event about the archive."""
    os.environ.update(
        AWS_ENDPOINT_URL_S3=source, AWS_ENDPOINT_URL_ECR=sink, AWS_ENDPOINT_URL_DYNAMODB=sink, STATE_TABLE="state"
    )
    import handler  # noqa: PLC0415 (it reads the environment when it is imported)

    def run() -> None:
        event = put_event(f"bench/{path.name}", path.stat().st_size, ETAG)
        [result] = handler.lambda_handler(event, Invocation())["results"]
        if result["action"] != "pushed":
            raise RuntimeError(f"the archive was not pushed: {result}")

    return run


def unpack(path: Path) -> Callable[[], None]:
    """The floor of a compressed archive: to unpack it once, with the function's own decoder."""
    from s3_to_ecr.images.compression import codec_of  # noqa: PLC0415 (only here)

    packed = path.read_bytes()
    codec = codec_of(packed[:_CHUNK_BYTES])

    def run() -> None:
        if codec:
            _decode(codec, packed)

    return run


def _decode(codec: Codec, packed: bytes) -> None:
    decoder = codec.decoder()
    position = 0
    while not decoder.eof:
        piece = b""
        if decoder.needs_input:
            piece = packed[position : position + _CHUNK_BYTES]
            position += len(piece)
        codec.decode(decoder, piece, _CHUNK_BYTES)


def main() -> None:
    what, path, *servers = sys.argv[1:]
    run = unpack(Path(path)) if what == "unpack" else push(Path(path), *servers)
    cpu, wall = time.process_time(), time.monotonic()
    run()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(json.dumps(asdict(Measure(cpu, wall, peak_bytes("self")))), file=sys.stderr)


if __name__ == "__main__":
    main()
