"""Sample layers: tar archives whose bytes are reproducible."""

from __future__ import annotations

import gzip
import io
import random
import tarfile


def layer(name: str, content: bytes) -> bytes:
    """An uncompressed layer with one file, slightly larger than the file's content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def gzipped_layer(size: int, seed: int = 0) -> bytes:
    """A gzip-compressed layer of slightly more than `size` bytes, with incompressible content."""
    plain = layer("srv/data.bin", random.Random(seed).randbytes(size))  # noqa: S311 (not a secret)
    return gzip.compress(plain, compresslevel=1, mtime=0)
