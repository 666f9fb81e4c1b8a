"""Gives back the memory that the allocator keeps after a large object, which the next one may need."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Python, the SDK and what the last object has left take so much and a share of the function's memory: 229 MB of 1 GiB.
# To give back less would cost more than it helps, because the next object takes it again.
_OWN_BYTES, _SHARE = 95_000_000, 8


def give_back(memory: int) -> None:
    """Has glibc give back what it keeps, if that is much for a function with so much `memory`, in bytes."""
    with suppress(OSError, AttributeError):  # another system than Linux, or another allocator
        if _resident_bytes() > _OWN_BYTES + memory // _SHARE:
            import ctypes  # noqa: PLC0415 (hardly any object is so large)

            ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
