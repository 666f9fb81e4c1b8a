"""Reading ahead: in order, bounded, and nothing left running."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import pytest

from local.invocation import Invocation
from s3_to_ecr.deadline import RESERVE_SECONDS
from s3_to_ecr.errors import ObjectChanged, OutOfTime
from s3_to_ecr.push.read_ahead import RunningDigest, read_ahead
from tests.conftest import wait_until
from tests.doubles.blobs import MemoryBlob
from tests.doubles.invocation import Hourglass, deadline_of

BODY = bytes(range(200))


def source(before_chunk: Callable[[int], None] = lambda _: None) -> MemoryBlob:
    return MemoryBlob(BODY, before_chunk=before_chunk)


class Parts:
    """Creates parts, and counts those that need new memory."""

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


FOR_LONG = deadline_of(Invocation(10_000)).pace("a test")


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Generator[None]:
    yield
    assert running() == []


@pytest.mark.parametrize("most", [1, 2, 3, 4, 99])
@pytest.mark.parametrize("part_size", [7, 50, 199, 200, 1000])
def test_parts_come_complete_and_in_order(most: int, part_size: int) -> None:
    digest = RunningDigest()
    found = [
        (part.first, part.body)
        for part in read_ahead(source(), range(0, 200, part_size), Parts().begin, digest, most, FOR_LONG)
    ]

    assert found == [(first, BODY[first : first + part_size]) for first in range(0, 200, part_size)]
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def test_a_stream_is_read_by_one_thread_from_its_first_byte_to_its_last() -> None:
    at_once: list[int] = []
    blob = MemoryBlob(BODY, seekable=False, before_chunk=lambda _: at_once.append(len(running())))

    parts = read_ahead(blob, range(0, 200, 20), Parts().begin, None, 3, FOR_LONG)

    assert b"".join(part.body for part in parts) == BODY
    assert blob.reads == [(first, 20) for first in range(0, 200, 20)]
    assert set(at_once) == {1}


def test_reading_may_begin_anywhere() -> None:
    parts = read_ahead(source(), range(66, 200, 100), Parts().begin, None, 2, FOR_LONG)

    assert [part.body for part in parts] == [BODY[66:166], BODY[166:]]


def test_the_next_parts_are_read_while_one_is_used() -> None:
    parts = Parts()
    blob = source()
    with closing(read_ahead(blob, range(0, 200, 20), parts.begin, None, 3, FOR_LONG)) as reading:
        next(reading)
        wait_until(lambda: {20, 40} <= set(blob.closed))
        assert sorted(parts.begun) == [0, 20, 40]  # and no more until the next one is requested
        next(reading)
        wait_until(lambda: 60 in blob.closed)
        assert sorted(parts.begun) == [0, 20, 40, 60]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_memory_of_used_parts_is_reused(most: int) -> None:
    parts = Parts()
    for _ in read_ahead(source(), range(0, 200, 10), parts.begin, None, most, FOR_LONG):
        pass

    assert len(parts.begun) == 20
    assert parts.made == most


def test_the_digest_is_right_even_if_later_parts_arrive_first() -> None:
    held = threading.Event()
    begun: set[int] = set()

    def first_part_last(first: int) -> None:
        begun.add(first)
        if first == 0:
            assert held.wait(10)
        elif begun >= {0, 50, 100}:
            held.set()

    digest = RunningDigest()
    parts = read_ahead(source(first_part_last), range(0, 200, 50), Parts().begin, digest, 3, FOR_LONG)

    assert b"".join(part.body for part in parts) == BODY
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.mark.parametrize("digest", [None, RunningDigest()])
def test_an_error_is_raised_after_the_parts_before_it(digest: RunningDigest | None) -> None:
    def fail(first: int) -> None:
        if first == 100:
            raise ObjectChanged("the object changed")

    parts = read_ahead(source(fail), range(0, 200, 50), Parts().begin, digest, 4, FOR_LONG)
    found = [next(parts).first, next(parts).first]

    with pytest.raises(ObjectChanged):
        next(parts)
    assert found == [0, 50]


@pytest.mark.parametrize("digest", [None, RunningDigest()])
def test_closing_early_stops_the_reads(digest: RunningDigest | None) -> None:
    started, resume = threading.Event(), threading.Event()
    chunks: list[int] = []

    def wait_in_the_second(first: int) -> None:
        chunks.append(first)
        if first == 50:
            started.set()
            assert resume.wait(10)

    blob = source(wait_in_the_second)
    reading = read_ahead(blob, range(0, 200, 50), Parts().begin, digest, 2, FOR_LONG)
    next(reading)
    assert started.wait(10)
    threading.Timer(0.05, resume.set).start()
    reading.close()

    assert sorted(blob.closed) == [0, 50]
    assert chunks.count(50) <= 2  # of 17: the chunk in progress was the last


def test_a_digest_survives_an_early_end() -> None:
    digest = RunningDigest()
    halfway, resume = threading.Event(), threading.Event()

    def wait_halfway_through_the_second(first: int) -> None:
        if first == 50 and (chunks := seen.count(50)) == 5:
            halfway.set()
            assert resume.wait(10), chunks
        seen.append(first)

    seen: list[int] = []
    reading = read_ahead(source(wait_halfway_through_the_second), range(0, 200, 50), Parts().begin, digest, 3, FOR_LONG)
    next(reading)
    assert halfway.wait(10)
    wait_until(lambda: 100 in seen)  # the third part has its first chunk, and waits for its turn
    threading.Timer(0.05, resume.set).start()
    reading.close()

    assert (
        b"".join(part.body for part in read_ahead(source(), range(0, 200, 30), Parts().begin, digest, 2, FOR_LONG))
        == BODY
    )
    assert str(digest) == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.mark.parametrize("ended_by", ["waiting", "closing"])
def test_a_part_is_waited_for_only_as_long_as_there_is_time(ended_by: str) -> None:
    may, hangs = threading.Event(), threading.Event()

    def hang_in_the_second(first: int) -> None:
        if first == 50:
            hangs.set()
            assert may.wait(10)

    digest = RunningDigest()
    invocation = Hourglass(60)
    pace = deadline_of(invocation).pace("a test")
    reading = read_ahead(source(hang_in_the_second), range(0, 200, 50), Parts().begin, digest, 2, pace)
    assert next(reading).first == 0
    assert hangs.wait(10)
    invocation.seconds = RESERVE_SECONDS + 0.05
    if ended_by == "waiting":
        with pytest.raises(OutOfTime, match="S3 has not sent the next part"):
            next(reading)
    else:
        with pytest.raises(OutOfTime, match="S3 has not sent the next part"):
            reading.close()

    # Closing did not wait for the read either. The read ends by itself, and nothing of it is used.
    assert running()
    may.set()
    wait_until(lambda: not running())
    assert digest.length == 50


def test_a_part_is_not_waited_for_if_there_is_no_time_to_send_it() -> None:
    invocation = Hourglass(60)
    pace = deadline_of(invocation).pace("a test")
    may = threading.Event()
    reading = read_ahead(source(lambda _: assert_(may.wait(10))), range(0, 200, 50), Parts().begin, None, 2, pace)
    with pace.step():
        invocation.pass_by(30)  # another one might take 45 s, and only 30 s are left

    threading.Timer(0.2, may.set).start()
    with pytest.raises(OutOfTime):
        next(reading)


def assert_(value: object) -> None:
    assert value


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
