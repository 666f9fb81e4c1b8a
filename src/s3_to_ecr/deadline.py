"""How much time an invocation has left, and when to stop so that it ends by itself."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from s3_to_ecr.errors import OutOfTime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Kept for the end: releasing the lease, setting the message's visibility, logs and metrics. A few calls of 10 ms each,
# one of them with a client that is made for it.
RESERVE_SECONDS = 2

# A step may take half as long again as the slowest of the last ones; the first of all, some multiple of the 0.14 s that
# 10 MiB take at the 75 MB/s which Lambda's network gives.
_LAST_STEPS = 10
_ALLOWANCE = 1.5
_UNMEASURED_SECONDS = 0.5


class Deadline:
    """The end of the current invocation, after which Lambda kills the function."""

    _context: LambdaContext

    def begin(self, context: LambdaContext) -> None:
        """At the start of each invocation."""
        self._context = context
        self.taken: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LAST_STEPS))

    def seconds_left(self) -> float:
        """The seconds until Lambda ends the invocation."""
        return self._context.get_remaining_time_in_millis() / 1000

    def seconds_to_spare(self) -> float:
        """Those that may still be spent; 0 when only the reserve is left."""
        return max(self.seconds_left() - RESERVE_SECONDS, 0)

    def require(self, doing: str, seconds: float = 0) -> None:
        """Raises `OutOfTime` if less than `seconds` and the reserve is left for what is to be done."""
        left = self.seconds_left()
        if left < seconds + RESERVE_SECONDS:
            raise OutOfTime(f"the invocation has {left:.1f} s left, too few for {doing}; another goes on from there.")


class Pace:
    """What one of many equal steps has been taking, in this invocation and by its own clock.

    Steps of the same name count together, whichever object's: the first of an object is not begun blindly, either.
    """

    def __init__(self, deadline: Deadline, step: str) -> None:
        self.deadline = deadline
        self._step = step
        self._taken = deadline.taken[step]

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step. Raises `OutOfTime` beforehand, if the invocation might end within it."""
        self.deadline.require(self._step, self._allowed())
        before = self.deadline.seconds_left()
        yield
        self._taken.append(before - self.deadline.seconds_left())

    def seconds_to_wait(self) -> float:
        """How long the next step may be waited for, for there to be time for it then."""
        return max(self.deadline.seconds_to_spare() - self._allowed(), 0)

    def _allowed(self) -> float:
        return max(self._taken, default=_UNMEASURED_SECONDS) * _ALLOWANCE
