"""How much time an invocation has left, and when to stop so that it ends by itself."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING

from s3_to_ecr.errors import OutOfTime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Kept for the end: releasing the lease, setting the message's visibility, logs and metrics. These are a few calls of
# 10 ms each, one of them with a client that has to be made first.
RESERVE_SECONDS = 2

# A step may take half as long again as the slowest of the last ones. The first step of all gets a multiple of the
# 0.14 s that 10 MiB take at the 75 MB/s of Lambda's network.
_LAST_STEPS = 10
_ALLOWANCE = 1.5
_UNMEASURED_SECONDS = 0.5


class Deadline:
    """The end of an invocation, after which Lambda kills the function. `context` is the invocation's own.

    `whole_seconds` are what the invocation could spend from its beginning on.
    """

    def __init__(self, context: LambdaContext) -> None:
        self._context = context
        self.whole_seconds = self.seconds_to_spare()
        self._step_seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LAST_STEPS))

    def seconds_left(self) -> float:
        """The seconds until Lambda ends the invocation."""
        return self._context.get_remaining_time_in_millis() / 1000

    def seconds_to_spare(self) -> float:
        """The seconds that may still be spent. It is 0 when only the reserve is left."""
        return max(self.seconds_left() - RESERVE_SECONDS, 0)

    def require(self, doing: str, seconds: float = 0) -> None:
        """Raises `OutOfTime` unless `seconds` and the reserve are left for what is to be done."""
        left = self.seconds_left()
        if left < seconds + RESERVE_SECONDS:
            raise OutOfTime(f"the invocation has {left:.1f} s left, too few for {doing}. The next one resumes.")

    def pause(self, seconds: float, doing: str) -> None:
        """Lets so much time pass while `doing` something. Raises `OutOfTime` if it is not there."""
        self.require(doing, seconds)
        sleep(seconds)

    def pace(self, step: str) -> Pace:
        """The pace of equal steps. Steps of one name count together, whichever object they belong to."""
        return Pace(self, step, self._step_seconds[step])


class Pace:
    """How long one of many equal steps has been taking in this invocation. `last_seconds` are the last few steps."""

    def __init__(self, deadline: Deadline, step: str, last_seconds: deque[float]) -> None:
        self.deadline = deadline
        self._step = step
        self._last_seconds = last_seconds

    @contextmanager
    def step(self) -> Iterator[None]:
        """Times one step. Raises `OutOfTime` beforehand if the invocation might end during it."""
        self.deadline.require(self._step, self._allowed())
        before = self.deadline.seconds_left()
        yield
        self._last_seconds.append(before - self.deadline.seconds_left())

    def seconds_to_wait(self) -> float:
        """The longest wait that still leaves time for a step."""
        return max(self.deadline.seconds_to_spare() - self._allowed(), 0)

    def _allowed(self) -> float:
        return max(self._last_seconds, default=_UNMEASURED_SECONDS) * _ALLOWANCE
