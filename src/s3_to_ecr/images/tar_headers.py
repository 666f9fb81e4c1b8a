"""The headers of a tar archive: one after the other, with what GNU's and PAX's extensions say about each member."""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress

from s3_to_ecr.errors import BrokenArchive

_BLOCK = tarfile.BLOCKSIZE

# What extends the header of one member, such as its extended attributes, and all headers of an archive. Tools that keep
# fractions of a second write 1 KiB for each of the 20,000 members that an archive of images may have.
_MOST_EXTENDED_BYTES = 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024

# What to do about an archive that cannot be read, if it is not meant to be one.
LAYER_INSTEAD = "If it is a layer, name it by its digest, as <repository>/sha256:<hex>."

# Headers that extend the next one: GNU's long names, and PAX. Global PAX headers say nothing about a single member.
_EXTENSIONS = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}

_PAX_LENGTH = re.compile(rb"(\d{1,9}) ")


def read_headers(at: Callable[[int, int], bytes], size: int) -> Iterator[tarfile.TarInfo]:
    """The archive's headers, each with its member's true name, size, target and offset. `at(offset, length)` reads.

    Raises `BrokenArchive` for headers that cannot be read, that lie, or that end before the block of zeros that POSIX
    requires (`pax`).
    """
    offset, extended_bytes, all_bytes = 0, 0, 0
    extended: dict[str, str] = {}
    while True:
        block = at(offset, _BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise BrokenArchive(
                f"this is not a tar archive, or truncated or damaged at byte {offset:,} ({error}). {LAYER_INSTEAD}"
            ) from error
        header.offset_data = offset + _BLOCK
        if header.type in _EXTENSIONS | {tarfile.XGLTYPE}:
            extended_bytes += _BLOCK + header.size
            all_bytes += _BLOCK + header.size
            if header.size < 0 or extended_bytes > _MOST_EXTENDED_BYTES or all_bytes > _MOST_BYTES:
                raise BrokenArchive(f"the archive's headers are too long, up to byte {offset:,}. {LAYER_INSTEAD}")
            if header.type in _EXTENSIONS:
                extended |= _extended(header.type, at(header.offset_data, header.size))
            length = header.size
        else:
            length = _extend(header, extended)
            extended, extended_bytes = {}, 0
            if length < 0 or header.offset_data + length > size:
                raise BrokenArchive(
                    f"the archive is truncated or damaged at {header.name!r}. Upload it again. {LAYER_INSTEAD}"
                )
            yield header
        offset = header.offset_data + -(-length // _BLOCK) * _BLOCK


def headers_at_start(start: bytes) -> Iterator[tarfile.TarInfo]:
    """The headers in the first bytes of what may be a tar archive, as far as they can be read."""
    with suppress(BrokenArchive):  # the start ends, or it is not a tar archive
        yield from read_headers(lambda offset, length: start[offset : offset + length], sys.maxsize)


def _extend(header: tarfile.TarInfo, extended: dict[str, str]) -> int:
    """Applies to a header what extends it. Returns the length of the member's data in bytes, -1 if it is impossible."""
    header.name = extended.get("path", header.name)
    header.linkname = extended.get("linkpath", header.linkname)
    header.pax_headers = extended
    if "size" in extended:
        header.size = int(extended["size"]) if extended["size"].isdecimal() and len(extended["size"]) < 20 else -1
    # Only a member with data has a length, whatever the header says. POSIX: treat an unknown type as a file.
    return header.size if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES else 0


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """What a GNU or PAX header says about the next member."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.partition(b"\0")[0])}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": _text(data.partition(b"\0")[0])}
    found = {}
    position = 0
    while (match := _PAX_LENGTH.match(data, position)) and (end := position + int(match[1])) > match.end():
        name, _, value = data[match.end() : end].removesuffix(b"\n").partition(b"=")
        found[_text(name)] = _text(value)
        position = end
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
