"""Where one layer stands on its way into ECR: pure bookkeeping, without a call to anybody."""

from __future__ import annotations

# How often ECR may refuse a part without having got further than before. This is rare, and past it the queue has more
# patience than we do.
_MAX_STALLS = 3


class Position:
    """How far a layer of `size` bytes has got. `next_byte` is the byte that ECR expects next.

    Everything but `size` and the furthest byte sent belongs to the current upload, of which a layer may need several.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._furthest = 0
        self.start()

    def start(self) -> None:
        """A new upload, of which ECR has nothing."""
        self.next_byte = self._confirmed = self._sent = self._stalls = 0

    def resume(self, next_byte: int) -> None:
        """An upload of an earlier invocation, of which ECR has confirmed the bytes before `next_byte`."""
        self.next_byte = self._confirmed = next_byte
        self._sent = self.size  # earlier invocations may have sent any of it
        self._stalls = 0

    @property
    def percent(self) -> int:
        return min(self.next_byte * 100 // self.size, 100)

    @property
    def sent(self) -> int:
        """The end of what may have been sent to this upload."""
        return self._sent

    def send(self, first_byte: int, end: int) -> bool:
        """Notes that the bytes from `first_byte` to before `end` are being sent. Says whether they were sent before."""
        sent_before = first_byte < self._furthest
        self._furthest = max(self._furthest, end)
        self._sent = max(self._sent, end)
        return sent_before

    def move_to(self, expected: int) -> bool:
        """Takes the byte that ECR expects next. Says whether this makes sense.

        It does not if ECR claims to have bytes that were never sent, or fewer than none, or gets no further again and
        again.
        """
        if expected > self._confirmed:
            self._stalls = 0
        elif expected <= self.next_byte:
            self._stalls += 1
        if self._stalls > _MAX_STALLS or not 0 <= expected <= self._sent:
            return False
        self.next_byte = expected
        self._confirmed = max(self._confirmed, expected)
        return True
