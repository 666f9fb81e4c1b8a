"""Compressed data: told by its first bytes, and decoded piece by piece, in bounded memory.

gzip is decoded by zlib-ng, which takes two thirds of zlib's time; zstd by Python 3.14's own module, or its backport.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

# The first bytes of compressed data.
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
MAGIC_BYTES = 10

_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    # Zstandard frames and skippable frames, which may come first (RFC 8878, 3.1).
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "bzip2": re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)"),
}

# What is needed to decode the first bytes: a block of bzip2 has up to 900 KB, one of zstd 128 KiB.
_START_BYTES = {"gzip": 64 * 1024, "zstd": 256 * 1024, "xz": 256 * 1024, "bzip2": 1024 * 1024}

_PIECE_BYTES = 16 * 1024
_FIRST_BYTES = 512

# Memory for a decoder's window: as much as `zstd --ultra` and `--long` take, and twice as much as `xz -9` does.
_ZSTD_WINDOW_LOG, _ZSTD_LARGEST_WINDOW_LOG = 27, 31
_XZ_MEMORY = 128 * 1024 * 1024


class Decoder(Protocol):
    """What the modules of the standard library have in common. It ends with a gzip member, or a frame of zstd."""

    @property
    def needs_input(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Undecodable(Exception):
    """The bytes cannot be decoded. `unsupported`: they are in order, but take more memory, or a dictionary."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.unsupported = re.search("memory|dictionary", str(error), re.IGNORECASE) is not None


@dataclass(frozen=True)
class Codec:
    """One way to compress. `start_bytes` of compressed data are enough to decode the first bytes.

    `decoder` makes one for the next member or frame; what it raises is among the `errors`. One that is not `bounded`
    takes as much memory as the data ask for, as far as they fill it.
    """

    name: str
    start_bytes: int
    errors: tuple[type[Exception], ...]
    make: Callable[[bool], Decoder]

    def decoder(self, *, bounded: bool = True) -> Decoder:
        return self.make(bounded)

    def decode(self, decoder: Decoder, data: bytes, most: int) -> bytes:
        """Up to `most` further bytes. Raises `Undecodable`."""
        try:
            return decoder.decompress(data, most)
        except self.errors as error:
            raise Undecodable(error) from error

    def begins(self, data: bytes) -> bool:
        """Whether the data are compressed in this way."""
        return _MAGIC[self.name].match(data) is not None

    def start(self, packed: bytes, most: int) -> bytes:
        """Up to `most` of the first bytes, as far as the beginning of the compressed data gives them."""
        found = b""
        decoder = self.decoder(bounded=False)
        try:
            while len(found) < most and not decoder.eof and (packed or not decoder.needs_input):
                piece = b""
                if decoder.needs_input:
                    piece, packed = packed[:_PIECE_BYTES], packed[_PIECE_BYTES:]
                # Damage costs what is decoded with it, so little at first.
                wanted = min(max(len(found), _FIRST_BYTES), _PIECE_BYTES)
                found += self.decode(decoder, piece, min(most - len(found), wanted))
                if decoder.eof and self.begins(decoder.unused_data + packed):
                    packed = decoder.unused_data + packed
                    decoder = self.decoder(bounded=False)
        except (Undecodable, MemoryError):
            pass  # what is damaged further on is found out when all of it is read
        return found


def codec_of(start: bytes) -> Codec | None:
    """How data that begin like this are compressed; `None` if they are not."""
    name = next((name for name, magic in _MAGIC.items() if magic.match(start)), None)
    return _codec(name) if name else None


def needs_dictionary(start: bytes) -> bool:
    """Whether a zstd frame can only be decoded with a dictionary that is elsewhere (RFC 8878, 3.1.1.1.1.6)."""
    return start.startswith(ZSTD) and len(start) > len(ZSTD) and start[len(ZSTD)] & 3 != 0


# What follows is imported only when it is needed, to start faster: most objects need none of it.


def _codec(name: str) -> Codec:
    made: dict[str, Callable[[], _Made]] = {"gzip": _gzip, "zstd": _zstd, "xz": _xz, "bzip2": _bzip2}
    errors, make = made[name]()
    return Codec(name, _START_BYTES[name], errors, make)


_Made = tuple[tuple[type[Exception], ...], Callable[[bool], Decoder]]


def _gzip() -> _Made:
    zlib_ng: Any
    try:
        from zlib_ng import zlib_ng  # noqa: PLC0415 (see above)
    except ImportError:  # a build for another processor, as in `sam local` on x86_64
        import zlib as zlib_ng  # noqa: PLC0415

    error: Any = zlib_ng.error  # zlib-ng's stubs call the class an instance, and leave out `copy`
    return (error,), lambda _: GzipDecoder(zlib_ng.decompressobj(wbits=31))


def _zstd() -> _Made:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415

    def make(bounded: bool) -> Decoder:  # noqa: FBT001 (the type of all of them)
        largest = _ZSTD_WINDOW_LOG if bounded else _ZSTD_LARGEST_WINDOW_LOG
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: largest})

    return (zstd.ZstdError,), make


def _xz() -> _Made:
    import lzma  # noqa: PLC0415

    return (lzma.LZMAError,), lambda bounded: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY if bounded else None)


def _bzip2() -> _Made:
    import bz2  # noqa: PLC0415

    return (OSError,), lambda _: bz2.BZ2Decompressor()


class GzipDecoder:
    """A `Decoder` for one member of gzip, which can be copied, to decode the same bytes again from there."""

    def __init__(self, decoder: Any, *, has_more: bool = False) -> None:
        self._decoder = decoder
        self._has_more = has_more

    @property
    def needs_input(self) -> bool:
        return not self._has_more and not self._decoder.unconsumed_tail

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        tail = self._decoder.unconsumed_tail
        found: bytes = self._decoder.decompress(tail + data if tail else data, max_length)
        self._has_more = len(found) == max_length
        return found

    def copy(self) -> GzipDecoder:
        return GzipDecoder(self._decoder.copy(), has_more=self._has_more)
