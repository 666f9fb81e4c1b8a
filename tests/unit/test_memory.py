from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from s3_to_ecr import memory

GIB = 1024**3


@pytest.mark.parametrize(("resident", "times"), [(170_000_000, 0), (280_000_000, 1)])
def test_much_that_the_allocator_keeps_is_given_back(
    resident: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(memory, "_resident_bytes", lambda: resident)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))

    memory.give_back(GIB)

    assert len(trimmed) == times


def test_another_allocator_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_resident_bytes", lambda: GIB)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())

    memory.give_back(GIB)


def test_the_resident_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < memory._resident_bytes() < 10 * GIB
