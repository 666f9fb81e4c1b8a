"""The memory that a function of 1 GB takes for the worst objects that anybody has thought of: docs/security.md."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.servers import running
from local import images
from tests.conftest import ROOT
from tests.doubles.tar import member

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def manifest(digests: list[str], size: int = 0) -> bytes:
    """A manifest of these layers, and of as many texts as a document may have if it is to have a `size`."""
    junk = {"junk": ["\N{GRINNING FACE}", *["ab"] * 199_000]} if size else {}
    document = {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "layers": [{"digest": one} for one in digests]}
    return json.dumps(document | junk, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)


def index(manifests: list[bytes], **more: str) -> bytes:
    entries = [{"digest": images.digest_of(content), **more} for content in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}).encode()


def worst(small_layers: int) -> Iterator[bytes]:
    """An archive in which everything is as large as it may be.

    While the large layers of the first image are uploaded, the second image is read, of the largest manifests.
    """
    # What does not shrink, because only so may a small archive unpack to so much.
    noise = random.Random(0).randbytes(30 * MIB)  # noqa: S311 (not a secret)
    layers = dict.fromkeys(map(digest, range(5)), noise)
    layers |= dict.fromkeys(map(digest, range(100, 100 + small_layers)), bytes(MIB))
    largest = [manifest([digest(200 + number)], 4 * MIB - 1000) for number in range(3)]
    roots = [manifest(list(layers)), index(largest)]
    files = {"index.json": index(roots), "oci-layout": b"{}"}
    files |= {images.blob_path(images.digest_of(content)): content for content in [*roots, *largest]}
    yield b"".join(member(path, content) for path, content in files.items())
    document = b"{" + b" " * (4 * MIB - 100)
    yield b"".join(member(f"{number}.json", document) for number in range(8))
    for one, content in layers.items():
        yield member(images.blob_path(one), content)
    yield b"".join(member(images.blob_path(digest(200 + number)), b"layer") for number in range(3))
    yield b"".join(member(f"{number}" + "\N{GRINNING FACE}" * 250_000, b"") for number in range(4))


def peak(path: Path) -> int:
    """The largest resident memory of a function that pushes an archive, in bytes."""
    # Without the allocator's settings of `make test`, but with the template's.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    function = {"MALLOC_ARENA_MAX": "2", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024"}
    with running(file=path) as servers:
        done = subprocess.run(
            [sys.executable, "-m", "bench.archives", "push", str(path), servers.source, servers.sink],
            cwd=ROOT,
            env=ours | function | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "POWERTOOLS_LOG_LEVEL": "WARNING"},
            capture_output=True,
            text=True,
            check=True,
        )
    found: int = json.loads(done.stderr.splitlines()[-1])["peak_bytes"]
    return found


def make_gzip(path: Path) -> None:
    """The worst archive in gzip: with as many checkpoints as there may be, each before a part of 5 MiB."""
    with path.open("wb") as file:
        for piece in worst(20):
            file.write(images.stored(piece))
        file.write(images.compress(member("junk", bytes(5 * MIB)), "gzip") * 1800)
        file.write(images.stored(bytes(1024)))


def make_zstd(path: Path) -> None:
    """The worst archive in zstd: with the largest window that there may be."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: -7,
        zstd.CompressionParameter.window_log: 27,
    }
    compressor = zstd.ZstdCompressor(options=options)
    with path.open("wb") as file:
        for piece in worst(1):
            file.write(compressor.compress(piece))
        file.write(compressor.compress(bytes(1024)) + compressor.flush())


@pytest.mark.usefixtures("much_memory")
@pytest.mark.parametrize("make", [make_gzip, make_zstd])
def test_the_worst_archive_takes_less_than_400_mb(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "worst.tar"
    make(path)

    assert peak(path) < 400_000_000
