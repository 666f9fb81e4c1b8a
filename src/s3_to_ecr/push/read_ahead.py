"""Reading the next parts of a blob while one is being used, in order, and in as much memory as there is for it."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, Protocol, TypeVar

from s3_to_ecr.blobs import Blob
from s3_to_ecr.deadline import Pace
from s3_to_ecr.errors import OutOfTime

_LATE = "the invocation is about to end, and S3 has not sent the next part yet."


class RunningDigest:
    """The SHA-256 of a blob's first `length` bytes, fed in order. Bytes that come again count once."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.length = 0

    def update(self, first: int, chunk: bytes) -> None:
        """Takes the bytes of `chunk`, which starts at byte `first` of the blob. Raises `ValueError` for a gap."""
        if first > self.length:
            raise ValueError(f"byte {first} came after {self.length}")
        fresh = memoryview(chunk)[self.length - first :]
        self._sha256.update(fresh)
        self.length += len(fresh)

    def __str__(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


class Part(Protocol):
    """What a part of a blob is written into, from its first byte to its last."""

    def write(self, chunk: bytes, /) -> object: ...


P = TypeVar("P", bound=Part)


def read_ahead(
    blob: Blob,
    starts: range,
    begin: Callable[[int, int, P | None], P],
    running_digest: RunningDigest | None,
    most: int,
    pace: Pace,
) -> Generator[P]:
    """The parts of `blob` that start at `starts`, in order. Each is written in full into what `begin` made for it.

    All have `starts.step` bytes, except the blob's last. `begin` gets a part's first byte, its length, and a used part,
    if there is one, whose memory it may take over. While the caller uses one part, threads read the next ones. `most`
    parts are in memory at a time, so the part's memory is reused on the next iteration. All bytes pass through the
    `running_digest`, if there is one. Raises `OutOfTime` if waiting for a part would leave too little time, by the
    `pace`, to use it.

    Close the generator to end early. It waits for the chunks that are being read, and leaves nothing running. If the
    invocation would end meanwhile, it raises `OutOfTime` instead. Then the threads end when S3 answers or the request
    times out, and nothing that they have read is used.
    """
    stopped = threading.Event()

    def fill(first: int, used: P | None, before: Future[P] | None) -> P:
        length = min(starts.step, blob.size - first)
        part = begin(first, length, used)
        position = first
        with closing(blob.read(first, length)) as chunks:
            for chunk in chunks:
                if running_digest and before:
                    before.result()  # the bytes of the part before come first
                if stopped.is_set():
                    break  # the part before may have stopped halfway, too
                if running_digest:
                    running_digest.update(position, chunk)
                part.write(chunk)
                position += len(chunk)
        return part

    waiting = iter(starts)
    reading: deque[Future[P]] = deque()
    free: deque[P | None] = deque([None] * most)
    threads = ThreadPoolExecutor(max_workers=most if blob.seekable else 1, thread_name_prefix="read-ahead")
    try:
        while True:
            while free and (first := next(waiting, None)) is not None:
                before = reading[-1] if reading else None
                reading.append(threads.submit(fill, first, free.popleft(), before))
            if not reading:
                return
            if wait([reading[0]], pace.seconds_to_wait()).not_done:
                raise OutOfTime(_LATE)
            part = reading.popleft().result()
            yield part
            free.append(part)
    finally:
        stopped.set()
        _shut_down(threads, reading, pace.deadline.seconds_to_spare())


def _shut_down(threads: ThreadPoolExecutor, reading: Iterable[Future[Any]], seconds: float) -> None:
    """Waits until nothing is being read any more. Raises `OutOfTime` after so many seconds."""
    unfinished = wait(reading, seconds).not_done
    threads.shutdown(wait=not unfinished)
    if unfinished:
        raise OutOfTime(_LATE)
