"""What a layer is uploaded from: bytes that can be read, wherever they come from."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol


class Blob(Protocol):
    """`size` bytes of the S3 object `bucket`, `key`, or of what is packed in it.

    A `seekable` blob can be read anywhere, and by several threads at once. One that is not is a stream: it is read by
    one thread, from its first byte to its last, and reading from an earlier byte means starting over.
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
