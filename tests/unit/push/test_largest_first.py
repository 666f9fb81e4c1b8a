from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

from s3_to_ecr.push.largest_first import LargestFirst


class Work:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.started: SimpleQueue[str] = SimpleQueue()
        self.ended: SimpleQueue[str] = SimpleQueue()
        self._gates: dict[str, threading.Event] = {}

    def add(self, threads: LargestFirst, name: str, size: int, room: int) -> None:
        gate = self._gates[name] = threading.Event()

        def work() -> None:
            self.started.put(name)
            assert gate.wait(10)
            if name == "broken":
                raise ValueError(name)

        def ended(done: Future[Any]) -> None:
            self.ended.put(f"{name}: {done.exception()}")

        threads.add(size, room, work, ended)

    def end(self, *names: str) -> None:
        for name in names or self._gates:
            self._gates[name].set()

    def next(self, count: int) -> set[str]:
        """The next ones that start."""
        return {self.started.get(timeout=10) for _ in range(count)}


def test_the_largest_goes_first_as_far_as_there_is_room_and_small_work_takes_none() -> None:
    work = Work()
    with LargestFirst(4, room=20) as threads:
        for name, size, room in [("c", 8, 8), ("small", 1, 0), ("a", 10, 10), ("b", 9, 10), ("d", 2, 2)]:
            work.add(threads, name, size, room)
        threads.start()
        assert work.next(3) == {"a", "b", "small"}
        work.end("small")
        assert work.ended.get(timeout=10) == "small: None"
        assert work.started.empty()  # there are threads, but no room
        work.end("a")
        assert work.next(2) == {"c", "d"}
        work.end()


def test_what_waits_for_room_is_not_overtaken_by_what_would_fit() -> None:
    work = Work()
    with LargestFirst(4, room=20) as threads:
        work.add(threads, "first", 9, 9)
        threads.start()
        assert work.next(1) == {"first"}
        work.add(threads, "large", 20, 20)
        work.add(threads, "fits", 5, 5)
        threads.start()
        work.end("first")
        assert work.next(1) == {"large"}
        work.end("large")
        assert work.next(1) == {"fits"}
        work.end()


def test_work_that_takes_more_than_all_the_room_is_done_alone() -> None:
    work = Work()
    with LargestFirst(4, room=20) as threads:
        work.add(threads, "large", 30, 30)
        work.add(threads, "other", 1, 1)
        threads.start()
        assert work.next(1) == {"large"}
        work.end("large")
        assert work.next(1) == {"other"}
        work.end()


def test_there_are_only_so_many_threads() -> None:
    work = Work()
    with LargestFirst(2, room=20) as threads:
        for name in "abc":
            work.add(threads, name, 0, 0)
        threads.start()
        assert work.next(2) == {"a", "b"}
        assert work.started.empty()
        work.end()
        assert work.next(1) == {"c"}


def test_a_failure_is_told_and_stops_nothing() -> None:
    work = Work()
    with LargestFirst(1, room=20) as threads:
        work.add(threads, "broken", 2, 1)
        work.add(threads, "next", 1, 1)
        threads.start()
        work.end()
        assert [work.ended.get(timeout=10) for _ in range(2)] == ["broken: broken", "next: None"]


def test_after_an_error_what_runs_is_waited_for_and_nothing_else_starts() -> None:
    work = Work()
    with pytest.raises(KeyError), LargestFirst(1, room=20) as threads:  # noqa: PT012 (the error is raised inside)
        work.add(threads, "running", 2, 1)
        work.add(threads, "waiting", 1, 1)
        threads.start()
        work.next(1)
        threading.Timer(0.05, work.end).start()
        raise KeyError
    assert work.ended.get_nowait() == "running: None"
    assert work.started.empty()
    assert work.ended.empty()
