"""The books of an upload, of a layer of 40 bytes in parts of 4."""

from __future__ import annotations

import pytest

from s3_to_ecr.push.position import Position


@pytest.fixture
def position() -> Position:
    return Position(40)


def send(position: Position, expected: int | None = None) -> bool:
    """Sends the part at the position. ECR then expects `expected`, or else the byte after it. Says whether ECR may."""
    end = position.next_byte + 4
    position.send(position.next_byte, end)
    return position.move_to(end if expected is None else expected)


def test_it_moves_with_ecr_part_by_part(position: Position) -> None:
    assert [send(position) for _ in range(3)] == [True] * 3
    assert (position.next_byte, position.sent, position.percent) == (12, 12, 30)


def test_it_moves_back_to_where_ecr_stands(position: Position) -> None:
    send(position)
    send(position)

    assert send(position, expected=6)
    assert position.next_byte == 6


def test_what_is_sent_again_is_noticed_also_in_another_upload(position: Position) -> None:
    assert not position.send(0, 4)
    assert not position.send(4, 8)
    assert position.send(4, 8)
    position.start()
    assert position.send(0, 4)
    assert position.send(4, 8)
    assert not position.send(8, 12)


def test_ecr_cannot_have_what_was_never_sent(position: Position) -> None:
    assert not send(position, expected=5)


def test_of_an_upload_that_is_resumed_earlier_invocations_may_have_sent_any_of_it(position: Position) -> None:
    position.resume(8)

    assert position.next_byte == 8
    assert send(position, expected=40)


def test_a_new_upload_forgets_what_was_sent_to_the_one_before(position: Position) -> None:
    position.resume(8)
    position.start()

    assert (position.next_byte, position.sent) == (0, 0)
    assert not send(position, expected=40)


def test_an_ecr_that_gets_no_further_four_times_in_a_row_is_not_believed(position: Position) -> None:
    assert [send(position, expected=0) for _ in range(4)] == [True, True, True, False]


def test_whatever_gets_further_than_ever_is_patience_won(position: Position) -> None:
    for end in range(4, 40, 4):
        assert send(position, expected=max(end - 4, 0))
        assert send(position, expected=max(end - 4, 0))
        while position.next_byte < end:
            assert send(position)


def test_a_new_upload_has_all_of_the_patience(position: Position) -> None:
    for _ in range(3):
        send(position, expected=0)
    position.start()

    assert [send(position, expected=0) for _ in range(4)] == [True, True, True, False]
