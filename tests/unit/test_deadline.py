from __future__ import annotations

import pytest

from s3_to_ecr.deadline import RESERVE_SECONDS
from s3_to_ecr.errors import OutOfTime
from tests.doubles.invocation import Hourglass, deadline_of


def steps(seconds_left: float, *taken: float) -> int:
    """How many steps start before there is too little time left. `taken` are their durations in seconds."""
    invocation = Hourglass(seconds_left)
    pace = deadline_of(invocation).pace("the next part")
    for number, seconds in enumerate(taken):
        try:
            with pace.step():
                invocation.pass_by(seconds)
        except OutOfTime:
            return number
        assert invocation.seconds > 0
    return len(taken)


@pytest.mark.parametrize(
    ("seconds_left", "seconds", "number"),
    [
        (30, 10, 2),  # with 10 s left, a third might not end in time
        (900, 10, 89),
        (900, 0.2, 1000),
        (3, 0.9, 1),
        (3, 0.2, 4),
        (2.7, 0.2, 0),  # the duration of the first step is unknown
    ],
)
def test_steps_start_while_there_is_time_for_one_more(seconds_left: float, seconds: float, number: int) -> None:
    assert steps(seconds_left, *[seconds] * 1000) == number


def test_the_slowest_of_the_last_steps_counts() -> None:
    assert steps(40, 20, *[1] * 9) == 1  # 20 s are left, and a step like the first takes all of them
    assert steps(60, 20, *[1] * 30) == 10
    assert steps(60, *[1] * 5, 20, *[1] * 30) == 10


def test_a_slow_step_is_forgotten_after_ten_others() -> None:
    assert steps(100, 20, *[1] * 100) == 78


def test_the_steps_of_an_object_count_for_the_next_one_but_not_for_the_next_invocation() -> None:
    invocation = Hourglass(30)
    deadline = deadline_of(invocation)
    with deadline.pace("the next part").step():
        invocation.pass_by(15)  # the object's only part

    with deadline.pace("something else").step():
        pass
    with pytest.raises(OutOfTime), deadline.pace("the next part").step():
        pass
    with deadline_of(invocation).pace("the next part").step():
        pass


def test_the_error_names_the_step_that_there_is_no_time_for() -> None:
    with pytest.raises(OutOfTime, match=r"has 4\.0 s left, too few for the next part"):
        deadline_of(Hourglass(4)).require("the next part", 3)


def test_waiting_for_a_step_leaves_time_for_the_step_and_the_reserve() -> None:
    invocation = Hourglass(30)
    pace = deadline_of(invocation).pace("the next part")

    assert 25 < pace.seconds_to_wait() < 30 - RESERVE_SECONDS
    with pace.step():
        invocation.pass_by(10)
    assert pace.seconds_to_wait() == 20 - 15 - RESERVE_SECONDS
    invocation.pass_by(10)
    assert pace.seconds_to_wait() == 0
