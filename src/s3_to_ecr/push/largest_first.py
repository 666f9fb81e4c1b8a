"""Threads that do the largest work first, as much of it at a time as there is room for."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self


@dataclass(order=True, slots=True)
class _Job:
    order: tuple[int, int]
    room: int = field(compare=False)
    context: Context = field(compare=False)
    work: Callable[[], None] = field(compare=False)
    ended: Callable[[Future[Any]], None] = field(compare=False)


class LargestFirst:
    """At most `most` threads, whose work takes at most `room` at a time, in bytes of memory.

    Work that takes no room starts as soon as there is a thread. Other work never overtakes larger work, so large work
    waits for room only as long as what is running. At the end of the context, work that has not started never starts,
    and what is running is waited for.
    """

    def __init__(self, most: int, room: int) -> None:
        self._most = most
        self._room = room
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="layer")
        self._lock = threading.Lock()
        self._large: list[_Job] = []
        self._small: list[_Job] = []
        self._number = self._running = self._taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._large.clear()
            self._small.clear()
        self._threads.shutdown()

    def add(self, size: int, room: int, work: Callable[[], None], ended: Callable[[Future[Any]], None]) -> None:
        """Adds work that takes `room`, to be done in a copy of the caller's context. Then the thread calls `ended`.

        The larger `size` goes first, and of one size what was added first. Nothing starts before `start` is called.
        """
        with self._lock:
            self._number += 1
            job = _Job((-size, self._number), room, copy_context(), work, ended)
            heapq.heappush(self._large if room else self._small, job)

    def start(self) -> None:
        """Starts as much as there is room for. The rest follows by itself."""
        with self._lock:
            jobs = list(self._next())
        for job in jobs:
            self._threads.submit(job.context.run, job.work).add_done_callback(partial(self._end, job))

    def _next(self) -> Iterator[_Job]:
        """What can start now. It counts as running."""
        while self._running < self._most and (self._large or self._small):
            if self._large and (not self._taken or self._taken + self._large[0].room <= self._room):
                job = heapq.heappop(self._large)
            elif self._small:
                job = heapq.heappop(self._small)
            else:
                return
            self._running += 1
            self._taken += job.room
            yield job

    def _end(self, job: _Job, done: Future[Any]) -> None:
        with self._lock:
            self._running -= 1
            self._taken -= job.room
        self.start()
        job.ended(done)
