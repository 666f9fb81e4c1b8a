"""What a layer is uploaded from: bytes that can be read, wherever they come from."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from hashlib import sha256
from itertools import chain
from typing import Protocol, Self

from s3_to_ecr.deadline import Deadline


class Blob(Protocol):
    """`size` bytes of the S3 object `bucket`, `key`, or of what is packed in it.

    A `seekable` blob can be read anywhere, and by several threads at once. One that is not is a stream: it is read by
    one thread, from its first byte to its last, and reading from an earlier byte means starting over. To read no bytes
    of it goes to where they would begin.
    """

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def seekable(self) -> bool: ...

    @property
    def offset(self) -> int:
        """Where the bytes begin in what they are a part of."""
        ...

    @property
    def identity(self) -> str:
        """What distinguishes these bytes from all others, whoever announced them."""
        ...

    @property
    def is_one_version(self) -> bool:
        """Whether the object has a version of its own, which no other write to the key will have."""
        ...

    def read(self, first: int, length: int) -> Generator[bytes]:
        """Exactly `length` bytes from byte `first` on, in chunks of any size, some of them empty.

        Raises any `Rejected` or `RetryLater` that S3 can be the cause of.
        """
        ...


class BlobRange(Blob, Protocol):
    """A blob of which parts are blobs, too. `uri` names the object for people."""

    @property
    def uri(self) -> str: ...

    def within(self, offset: int, size: int) -> Self:
        """The `size` bytes of this range from `offset` on. They must exist."""
        ...

    def read_all(self) -> bytes:
        """All of the bytes. The caller knows that they are few."""
        ...


class MadeBlob:
    """A blob that was made from the object of another one, and is in memory."""

    seekable = True
    offset = 0

    def __init__(self, origin: Blob, content: bytes) -> None:
        self.bucket = origin.bucket
        self.key = origin.key
        self.size = len(content)
        self.identity = f"{len(content)} bytes made from {origin.identity}"
        self.is_one_version = origin.is_one_version
        self._content = content

    def read(self, first: int, length: int) -> Generator[bytes]:
        yield self._content[first : first + length]


class PeekedBlob:
    """A blob whose `start` has been read, in a request for its first `most` bytes. It must be closed.

    The first read from byte 0 goes on with the same request, so that looking costs nothing.
    """

    def __init__(self, blob: Blob, most: int) -> None:
        self.bucket = blob.bucket
        self.key = blob.key
        self.size = blob.size
        self.seekable = blob.seekable
        self.offset = blob.offset
        self.identity = blob.identity
        self.is_one_version = blob.is_one_version
        self._blob = blob
        self._requested = min(blob.size, most)
        chunks = blob.read(0, self._requested)
        self.start = next(filter(None, chunks))
        self._begun: Generator[bytes] | None = chunks

    def read(self, first: int, length: int) -> Generator[bytes]:
        begun, self._begun = (self._begun, None) if first == 0 else (None, self._begun)
        if begun is None:
            yield from self._blob.read(first, length)
            return
        position = 0
        with closing(begun):
            for chunk in chain([self.start], begun):
                wanted = chunk[: length - position]
                yield wanted
                position += len(wanted)
                if position == length < self._requested:
                    return
        if position < length:
            yield from self._blob.read(position, length - position)

    def close(self) -> None:
        """Ends the request, unless its bytes are being read."""
        if self._begun:
            self._begun.close()


def digest_by_reading(blob: Blob, deadline: Deadline, doing: str) -> str:
    """A blob's digest. All of it is read for that; raises `OutOfTime` if the invocation ends before."""
    running = sha256()
    for chunk in blob.read(0, blob.size):
        deadline.require(doing)
        running.update(chunk)
    return f"sha256:{running.hexdigest()}"
