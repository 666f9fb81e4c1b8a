"""The unpacked content of a compressed object, of which only what is asked for is in memory.

One pass through the object finds what is in it. gzip's decoder can be copied, so the pass leaves checkpoints. From them
any range can be read later, by several threads at once. The other decoders cannot be copied, so their content is a
stream: reading goes forward, and what lies further back takes another pass.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Generator
from dataclasses import dataclass, replace

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenArchive, OutOfTime, UnsupportedArchive
from s3_to_ecr.images.compression import MAGIC_BYTES, Codec, GzipDecoder, Undecodable
from s3_to_ecr.images.manifests import MAX_MANIFEST_BYTES

# How much is unpacked at a time: a multiple of 3 for base64.
_CHUNK_BYTES = 1536 * 1024

# How much compressed data a decoder gets at a time. A checkpoint keeps what its decoder has not used of it.
_PIECE_BYTES, _SCANNED_PIECE_BYTES = 128 * 1024, 16 * 1024

# ECR's usual part size. Checkpoints are where parts of a layer begin, so that nothing is unpacked in vain.
_PART_BYTES = 10 * 1024 * 1024
_LEAST_SPACING = _PART_BYTES // 2

# What a checkpoint takes: the decoder's window and tables (measured), and on average half a piece.
_CHECKPOINT_BYTES = 43_000 + _SCANNED_PIECE_BYTES // 2

# The shares of the function's memory that checkpoints and documents may take.
_CHECKPOINTS_SHARE, _DOCUMENTS_SHARE = 12, 32

# Real archives shrink to a thirtieth at most. What grows far beyond that is meant to do harm.
_MOST_RATIO, _ALWAYS_ALLOWED = 100, 1024 * 1024 * 1024

# tar pads an archive with zeros to a multiple of its blocking factor, which is hardly ever more than this.
_MOST_PADDING = 4 * 1024 * 1024


class Unpacked:
    """The unpacked content of `packed`. First `at` and `member` go through it, until `finish`; then it is read.

    `memory` is the function's, in bytes. Raises `BrokenArchive` for damaged data, and `UnsupportedArchive` for what
    takes too much memory or too long.
    """

    def __init__(self, packed: ObjectRange, codec: Codec, deadline: Deadline, memory: int) -> None:
        self.packed = packed
        self.documents: dict[int, bytes] = {}
        self._codec = codec
        self._deadline = deadline
        self._cursor = _Cursor(packed, codec, piece=_SCANNED_PIECE_BYTES)
        self._checkpoints = _Checkpoints(memory // _CHECKPOINTS_SHARE // _CHECKPOINT_BYTES)
        self._room = memory // _DOCUMENTS_SHARE
        self._limit = _ALWAYS_ALLOWED + _MOST_RATIO * packed.size
        self._window_start = 0
        self._window = b""
        self._size = 0
        self._seconds = 0.0
        self._passed = 0

    @property
    def seekable(self) -> bool:
        return self._codec.name == "gzip"

    @property
    def held_bytes(self) -> int:
        """The memory that checkpoints and documents take."""
        return len(self._checkpoints) * _CHECKPOINT_BYTES + sum(map(len, self.documents.values()))

    @property
    def content(self) -> UnpackedRange:
        """All of it, whatever its size."""
        return UnpackedRange(self, sys.maxsize)

    def at(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset` on, or fewer at the end. Calls go forward only."""
        if offset >= self._window_start + len(self._window):
            self._pass_to(offset)
            self._window = b""
        else:
            self._window = self._window[offset - self._window_start :]
        self._window_start = offset
        while len(self._window) < length and (chunk := self._next(length - len(self._window))):
            self._window += chunk
        return self._window[:length]

    def member(self, offset: int, size: int, magic_bytes: int) -> bytes:
        """The first bytes of a file in the archive, whose header comes before it.

        Documents are kept, because whoever reads them next would need another pass. Where parts of a large file will
        begin, checkpoints are left.
        """
        self._check_limit(offset + size)
        if self.seekable:
            for start in range(offset, offset + size, _PART_BYTES):
                if not self._checkpoints.wants(start):
                    continue
                if start > offset:
                    self.at(offset, magic_bytes)
                    self._pass_to(start)
                if self._cursor.position == start and (checkpoint := self._cursor.checkpoint()):
                    self._checkpoints.add(checkpoint)
        magic = self.at(offset, min(size, magic_bytes))
        if magic.lstrip()[:1] in (b"{", b"[") and size <= min(MAX_MANIFEST_BYTES, self._room):
            self._room -= size
            self.documents[offset] = self.at(offset, size)
        return magic

    def finish(self) -> None:
        """Goes to the end of the object, which is soon after the end of the archive."""
        archive_end = self._cursor.position
        while self._next(_CHUNK_BYTES):
            if self._cursor.position > archive_end + _MOST_PADDING:
                raise BrokenArchive("something else follows the archive in the same object. Save the image again.")
        self._size = self._cursor.position
        self._window = b""

    def read(self, offset: int, length: int) -> Generator[bytes]:
        """Exactly `length` bytes from `offset` on, in chunks, some of them empty."""
        if self.seekable:
            start, end = self._checkpoints.around(offset, offset + length)
            cursor = _Cursor(self.packed, self._codec, start, end.packed if end else None)
        else:
            if offset < self._cursor.position:
                self._cursor.close()
                self._cursor = _Cursor(self.packed, self._codec)
            cursor = self._cursor
        try:
            while cursor.position < offset + length:
                target = offset if cursor.position < offset else offset + length
                most = min(target - cursor.position, _CHUNK_BYTES)
                skipped = cursor.position < offset
                chunk = cursor.take(most) if self.seekable else self._take(most, offset)
                if not chunk:
                    raise BrokenArchive(f"the archive ends at byte {cursor.position:,}, before it should.")
                yield b"" if skipped else chunk
        finally:
            if self.seekable:
                cursor.close()

    def _check_limit(self, end: int) -> None:
        if end > self._limit:
            raise UnsupportedArchive(
                f"{self.packed.size:,} bytes of {self._codec.name} unpack to more than {self._limit:,}, which no image "
                "archive does. If this is meant, decompress it, and drop the result."
            )

    def _pass_to(self, offset: int) -> None:
        self._check_limit(offset)
        while self._cursor.position < offset and self._next(offset - self._cursor.position):
            pass

    def _next(self, most: int) -> bytes:
        return self._take(min(most, _CHUNK_BYTES), 0)

    def _take(self, most: int, goal: int) -> bytes:
        """The next bytes, none only at the end. `goal` is what the second pass has to reach, and 0 in the first one."""
        self._require_time(goal)
        before, packed_before = self._deadline.seconds_left(), self._cursor.packed
        chunk = self._cursor.take(most)
        self._seconds += before - self._deadline.seconds_left()
        self._passed += self._cursor.packed - packed_before
        return chunk

    def _require_time(self, goal: int) -> None:
        """Raises `OutOfTime` if the invocation is about to end, but `UnsupportedArchive` if none could reach the goal.

        An invocation that has spent less than half of its time on this tells too little about the next one.
        """
        try:
            self._deadline.require("unpacking the archive")
        except OutOfTime as late:
            whole = self._deadline.whole_seconds
            passes = 1 + (goal / self._size if self._size else 0)
            needed = self._seconds / self._passed * self.packed.size * passes if self._passed else 0
            if self._seconds < whole / 2 or needed <= whole:
                raise
            raise UnsupportedArchive(
                f"to unpack the archive ({self._codec.name}) as far as needed takes about {needed:,.0f} s, and an "
                f"invocation has {whole:,.0f}. Give the function more memory, or decompress the archive first."
            ) from late


@dataclass(frozen=True)
class UnpackedRange:
    """`size` bytes of unpacked content from `offset` on; a `BlobRange`."""

    whole: Unpacked
    size: int
    offset: int = 0

    @property
    def bucket(self) -> str:
        return self.whole.packed.bucket

    @property
    def key(self) -> str:
        return self.whole.packed.key

    @property
    def uri(self) -> str:
        return self.whole.packed.uri

    @property
    def seekable(self) -> bool:
        return self.whole.seekable or self._document is not None

    @property
    def is_one_version(self) -> bool:
        return self.whole.packed.is_one_version

    @property
    def identity(self) -> str:
        """What distinguishes these bytes from all others, whoever announced them."""
        return f"{self.size} bytes from byte {self.offset} on, unpacked, {self.whole.packed.identity}"

    def within(self, offset: int, size: int) -> UnpackedRange:
        return replace(self, offset=self.offset + offset, size=size)

    def read_all(self) -> bytes:
        return b"".join(self.read(0, self.size))

    def read(self, first: int, length: int) -> Generator[bytes]:
        if (document := self._document) is not None:
            yield document[first : first + length]
        else:
            yield from self.whole.read(self.offset + first, length)

    @property
    def _document(self) -> bytes | None:
        """All of the bytes, if they are kept."""
        document = self.whole.documents.get(self.offset)
        return document if document is not None and len(document) == self.size else None


@dataclass(frozen=True)
class _Checkpoint:
    """A decoder that has come to a `position`, having got the compressed bytes before `packed`."""

    position: int
    packed: int
    decoder: GzipDecoder


class _Checkpoints:
    """The checkpoints so far, `most` at a time. If there are more, every second one is given up."""

    def __init__(self, most: int) -> None:
        self._most = max(most, 2)
        self._spacing = _LEAST_SPACING
        self._found: list[_Checkpoint] = []

    def __len__(self) -> int:
        return len(self._found)

    def wants(self, position: int) -> bool:
        """Whether there is none near the position, which is further on than the last one."""
        return position >= (self._found[-1].position if self._found else 0) + self._spacing

    def add(self, checkpoint: _Checkpoint) -> None:
        self._found.append(checkpoint)
        if len(self._found) > self._most:
            del self._found[::2]
            self._spacing *= 2

    def around(self, first: int, end: int) -> tuple[_Checkpoint | None, _Checkpoint | None]:
        """The last one up to `first`, and the first one from `end` on, as far as there are any."""
        before = bisect.bisect_right(self._found, first, key=lambda checkpoint: checkpoint.position)
        after = bisect.bisect_left(self._found, end, key=lambda checkpoint: checkpoint.position)
        return self._found[before - 1] if before else None, next(iter(self._found[after : after + 1]), None)


class _Cursor:
    """Unpacks from a checkpoint on, or from the beginning. `position` is that of the next byte that it gives.

    `packed` is that of the next compressed byte that its decoder gets, before `packed_end`.
    """

    def __init__(
        self,
        packed: ObjectRange,
        codec: Codec,
        start: _Checkpoint | None = None,
        packed_end: int | None = None,
        piece: int = _PIECE_BYTES,
    ) -> None:
        self.position = start.position if start else 0
        self.packed = start.packed if start else 0
        self._codec = codec
        self._decoder = start.decoder.copy() if start else codec.decoder()
        self._pieces = self._read(packed, self.packed, packed.size if packed_end is None else packed_end, piece)
        self._returned = b""

    def take(self, most: int) -> bytes:
        """Up to `most` bytes, none of them only at the end."""
        while True:
            if self._decoder.eof and not self._goes_on():
                return b""
            piece = b""
            if self._decoder.needs_input:
                piece = self._next_piece()
                if not piece:
                    raise BrokenArchive(
                        f"the archive is truncated: its {self._codec.name} data have no end. Upload it again."
                    )
            try:
                chunk = self._codec.decode(self._decoder, piece, most)
            except Undecodable as error:
                if error.unsupported:
                    raise UnsupportedArchive(
                        f"the archive cannot be decompressed here: {error}. Compress it without a dictionary, and with "
                        "a window of at most 128 MiB (xz: 64 MiB)."
                    ) from error
                raise BrokenArchive(
                    f"the archive's {self._codec.name} data are damaged before byte {self.packed:,}: {error}. "
                    "Upload it again."
                ) from error
            if chunk:
                self.position += len(chunk)
                return chunk

    def checkpoint(self) -> _Checkpoint | None:
        """Where the cursor is now; `None` between two members."""
        if not isinstance(self._decoder, GzipDecoder) or self._decoder.eof:
            return None
        return _Checkpoint(self.position, self.packed, self._decoder.copy())

    def close(self) -> None:
        self._pieces.close()

    def _goes_on(self) -> bool:
        """Begins the next member or frame, if there is one. Zeros may come before it, and at the end."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while len(rest) < MAGIC_BYTES and (piece := self._next_piece()):
            rest = (rest + piece).lstrip(b"\0")
        if not rest:
            return False
        if not self._codec.begins(rest):
            raise BrokenArchive(
                f"the archive's {self._codec.name} data end before the object does, and something else follows. "
                "Upload it again."
            )
        self._decoder = self._codec.decoder()
        self._returned = rest
        self.packed -= len(rest)
        return True

    def _next_piece(self) -> bytes:
        piece, self._returned = self._returned or next(self._pieces, b""), b""
        self.packed += len(piece)
        return piece

    @staticmethod
    def _read(packed: ObjectRange, first: int, end: int, size: int) -> Generator[bytes]:
        if first < end:
            for chunk in packed.read(first, end - first):
                for start in range(0, len(chunk), size):
                    yield chunk[start : start + size]
