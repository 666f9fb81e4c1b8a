"""Reading ahead: in order, bounded, and nothing left running."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from s3_to_ecr.content import Blob, RunningDigest, read_ahead
from s3_to_ecr.errors import ObjectChanged
from tests.conftest import wait_until

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

BODY = bytes(range(200))


@dataclass(frozen=True)
class Source(Blob):
    """A blob at hand, in chunks of 3 bytes; `before_chunk` is told a range's first byte ahead of each of its chunks."""

    before_chunk: Callable[[int], None] | None = None
    closed: list[int] = field(default_factory=list)

    def read(self, first: int, length: int) -> Generator[bytes]:
        try:
            for position in range(first, first + length, 3):
                if self.before_chunk:
                    self.before_chunk(first)
                yield BODY[position : min(position + 3, first + length)]
        finally:
            self.closed.append(first)


def source(before_chunk: Callable[[int], None] | None = None) -> Source:
    size = len(BODY)
    return Source(cast("S3Client", None), "bucket", "app/x", None, "e", size, size, before_chunk=before_chunk)


class Parts:
    """Makes parts, and counts how many there are in memory."""

    def __init__(self) -> None:
        self.made = 0
        self.begun: list[int] = []

    def begin(self, first: int, length: int, used: Part | None) -> Part:
        self.begun.append(first)
        self.made += used is None
        return Part(first, length)


@dataclass
class Part:
    first: int
    length: int
    body: bytes = b""

    def write(self, chunk: bytes, /) -> None:
        self.body += chunk


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Generator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")] == []


@pytest.mark.parametrize("most", [1, 2, 3, 4, 99])
@pytest.mark.parametrize("part_size", [7, 50, 199, 200, 1000])
def test_parts_come_in_order_and_whole(most: int, part_size: int) -> None:
    digest = RunningDigest()
    found = [
        (part.first, part.body) for part in read_ahead(source(), range(0, 200, part_size), Parts().begin, digest, most)
    ]

    assert found == [(first, BODY[first : first + part_size]) for first in range(0, 200, part_size)]
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def test_reading_may_begin_anywhere() -> None:
    parts = read_ahead(source(), range(66, 200, 100), Parts().begin, None, 2)

    assert [part.body for part in parts] == [BODY[66:166], BODY[166:]]


def test_the_next_parts_are_read_while_one_is_used() -> None:
    parts = Parts()
    blob = source()
    with closing(read_ahead(blob, range(0, 200, 20), parts.begin, None, 3)) as reading:
        next(reading)
        wait_until(lambda: {20, 40} <= set(blob.closed))
        assert sorted(parts.begun) == [0, 20, 40]  # and no more, until the next one is asked for
        next(reading)
        wait_until(lambda: 60 in blob.closed)
        assert sorted(parts.begun) == [0, 20, 40, 60]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_memory_of_used_parts_is_used_again(most: int) -> None:
    parts = Parts()
    for _ in read_ahead(source(), range(0, 200, 10), parts.begin, None, most):
        pass

    assert len(parts.begun) == 20
    assert parts.made == most


def test_later_parts_that_arrive_sooner_do_not_upset_the_digest() -> None:
    held = threading.Event()
    begun: set[int] = set()

    def first_part_last(first: int) -> None:
        begun.add(first)
        if first == 0:
            assert held.wait(10)
        elif begun >= {0, 50, 100}:
            held.set()

    digest = RunningDigest()
    parts = read_ahead(source(first_part_last), range(0, 200, 50), Parts().begin, digest, 3)

    assert b"".join(part.body for part in parts) == BODY
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.mark.parametrize("digest", [None, RunningDigest()])
def test_an_error_comes_after_the_parts_before_it(digest: RunningDigest | None) -> None:
    def fail(first: int) -> None:
        if first == 100:
            raise ObjectChanged("the object changed")

    parts = read_ahead(source(fail), range(0, 200, 50), Parts().begin, digest, 4)
    found = [next(parts).first, next(parts).first]

    with pytest.raises(ObjectChanged):
        next(parts)
    assert found == [0, 50]


@pytest.mark.parametrize("digest", [None, RunningDigest()])
def test_ending_early_stops_what_is_being_read(digest: RunningDigest | None) -> None:
    started, resume = threading.Event(), threading.Event()
    chunks: list[int] = []

    def wait_in_the_second(first: int) -> None:
        chunks.append(first)
        if first == 50:
            started.set()
            assert resume.wait(10)

    blob = source(wait_in_the_second)
    reading = read_ahead(blob, range(0, 200, 50), Parts().begin, digest, 2)
    next(reading)
    assert started.wait(10)
    threading.Timer(0.05, resume.set).start()
    reading.close()

    assert sorted(blob.closed) == [0, 50]
    assert chunks.count(50) <= 2  # of 17: the chunk that was under way was the last


def test_a_digest_survives_an_early_end() -> None:
    digest = RunningDigest()
    halfway, resume = threading.Event(), threading.Event()

    def wait_halfway_through_the_second(first: int) -> None:
        if first == 50 and (chunks := seen.count(50)) == 5:
            halfway.set()
            assert resume.wait(10), chunks
        seen.append(first)

    seen: list[int] = []
    reading = read_ahead(source(wait_halfway_through_the_second), range(0, 200, 50), Parts().begin, digest, 3)
    next(reading)
    assert halfway.wait(10)
    wait_until(lambda: 100 in seen)  # the third part has its first chunk, and waits for its turn
    threading.Timer(0.05, resume.set).start()
    reading.close()

    assert b"".join(part.body for part in read_ahead(source(), range(0, 200, 30), Parts().begin, digest, 2)) == BODY
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"
