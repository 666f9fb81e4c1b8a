"""A blob in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field


@dataclass
class MemoryBlob:
    """A `Blob` of `body`, read in chunks of 3 bytes. It can claim another size, or not to be seekable.

    `reads` are the requested ranges, `closed` the first bytes of those that have ended. `before_chunk` is called before
    each chunk, with the first byte of its range.
    """

    body: bytes
    claimed_size: int | None = None
    seekable: bool = True
    before_chunk: Callable[[int], None] = lambda _: None
    reads: list[tuple[int, int]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    bucket: str = "bucket"
    key: str = "app/x"
    identity: str = "a blob in memory"
    is_one_version: bool = True
    offset: int = 0

    @property
    def size(self) -> int:
        return len(self.body) if self.claimed_size is None else self.claimed_size

    def read(self, first: int, length: int) -> Generator[bytes]:
        self.reads.append((first, length))
        try:
            for position in range(first, first + length, 3):
                self.before_chunk(first)
                yield self.body[position : min(position + 3, first + length)]
        finally:
            self.closed.append(first)
