"""The position in the upload of a layer of 40 bytes, in parts of 4."""

from __future__ import annotations

import pytest

from s3_to_ecr.push.position import Position


@pytest.fixture
def position() -> Position:
    return Position(40)


def send(position: Position, expected: int | None = None) -> bool:
    """Sends the next part, after which ECR expects byte `expected`. Returns whether ECR may expect that."""
    end = position.next_byte + 4
    position.send(position.next_byte, end)
    return position.move_to(end if expected is None else expected)


def test_it_advances_part_by_part(position: Position) -> None:
    assert [send(position) for _ in range(3)] == [True] * 3
    assert (position.next_byte, position.sent, position.percent) == (12, 12, 30)


def test_it_moves_back_to_the_byte_that_ecr_expects(position: Position) -> None:
    send(position)
    send(position)

    assert send(position, expected=6)
    assert position.next_byte == 6


def test_resent_bytes_are_noticed_also_in_another_upload(position: Position) -> None:
    assert not position.send(0, 4)
    assert not position.send(4, 8)
    assert position.send(4, 8)
    position.start()
    assert position.send(0, 4)
    assert position.send(4, 8)
    assert not position.send(8, 12)


def test_ecr_cannot_have_what_was_never_sent(position: Position) -> None:
    assert not send(position, expected=5)


def test_earlier_invocations_may_have_sent_any_part_of_a_resumed_upload(position: Position) -> None:
    position.resume(8)

    assert position.next_byte == 8
    assert send(position, expected=40)


@pytest.mark.parametrize("expected", [-1, 41])
def test_ecr_expects_a_byte_of_the_layer_also_in_a_resumed_upload(position: Position, expected: int) -> None:
    position.resume(8)

    assert not send(position, expected)


def test_a_new_upload_forgets_what_was_sent_in_the_last_one(position: Position) -> None:
    position.resume(8)
    position.start()

    assert (position.next_byte, position.sent) == (0, 0)
    assert not send(position, expected=40)


def test_an_upload_fails_after_four_parts_without_an_advance(position: Position) -> None:
    assert [send(position, expected=0) for _ in range(4)] == [True, True, True, False]


def test_every_advance_allows_new_attempts(position: Position) -> None:
    for end in range(4, 40, 4):
        assert send(position, expected=max(end - 4, 0))
        assert send(position, expected=max(end - 4, 0))
        while position.next_byte < end:
            assert send(position)


def test_a_new_upload_has_all_attempts_again(position: Position) -> None:
    for _ in range(3):
        send(position, expected=0)
    position.start()

    assert [send(position, expected=0) for _ in range(4)] == [True, True, True, False]
