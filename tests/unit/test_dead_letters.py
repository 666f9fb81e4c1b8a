"""The table that `make dead-letters` prints, and how dead letters are chosen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.event import eventbridge, notification
from operate.dead_letters import Choice, DeadLetter, table

DAY = 86400
SENT = 1_800_000_000
RETENTION = 14 * DAY


def message(body: object, number: int = 1, sent: int = SENT, **attributes: str) -> dict[str, Any]:
    """A message as SQS returns it."""
    return {
        "MessageId": f"{number:08d}-0000-4000-8000-000000000000",
        "ReceiptHandle": f"receipt {number}",
        "Body": json.dumps(body),
        "Attributes": {"SentTimestamp": str(sent * 1000)},
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    }


def letter(number: int = 1, key: str = "team/app/1.0.tar", kind: str = "RepositoryMissing", **more: Any) -> DeadLetter:
    reason = more.pop("reason", "team/app does not exist")
    body = notification("bucket", key)
    report = {"ErrorType": kind, "Reason": reason, "Bucket": "bucket", "Key": key}
    return DeadLetter.read(message(body, number, **more, **report), RETENTION)


def test_a_report_is_shown_with_its_object_reason_and_time_left() -> None:
    assert table([letter()], SENT + 3 * DAY, None).splitlines() == [
        "ID        TYPE               EXPIRES IN  OBJECT",
        "00000001  RepositoryMissing  11 days     s3://bucket/team/app/1.0.tar",
        "          team/app does not exist",
        "1 dead letter.",
    ]


def test_columns_are_as_wide_as_the_longest_type() -> None:
    header, first, _, second, _, last = table([letter(1, kind="A"), letter(2, kind="B" * 30)], SENT, None).splitlines()

    assert header.index("EXPIRES") == first.index("14 days") == second.index("14 days") == 12 + 30
    assert last == "2 dead letters."


@pytest.mark.parametrize(
    ("age", "left"),
    [
        (0, "14 days"),
        (12 * DAY, "2 days"),
        (12 * DAY + 1, "47 hours"),
        (14 * DAY - 60, "0 hours"),
        (15 * DAY, "0 hours"),
    ],
)
def test_the_time_left_is_told_in_hours_at_the_end(age: int, left: str) -> None:
    assert f"  {left} " in table([letter()], SENT + age, None)


def test_a_reason_is_wrapped_to_the_terminal() -> None:
    lines = table([letter(reason="word " * 40)], SENT, 60).splitlines()

    assert len(lines) == 7
    assert all(line.startswith(" " * 10 + "word") and len(line) <= 60 for line in lines[2:-1])


def test_a_key_cannot_command_the_terminal() -> None:
    assert "s3://bucket/a\ufffd[2J\ufffdb" in table([letter(key="a\x1b[2J\nb")], SENT, None)


def test_without_letters_the_table_says_so() -> None:
    assert table([], SENT, None) == "There are no dead letters."


@pytest.mark.parametrize("event", [notification, eventbridge])
def test_a_letter_without_a_report_names_the_object_of_its_event(event: Any) -> None:
    found = DeadLetter.read(message(event("bucket", "a b+c.tar")), RETENTION)

    assert (found.error_type, found.object) == ("(none)", "s3://bucket/a b+c.tar")
    assert found.reason == "moved by SQS, without a reason"


def test_a_letter_of_eventbridges_has_its_error() -> None:
    sent = message(
        eventbridge("bucket", "key"), ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="Access to the queue is denied"
    )
    found = DeadLetter.read(sent, RETENTION)

    assert (found.error_type, found.reason) == ("NO_PERMISSIONS", "Access to the queue is denied")


@pytest.mark.parametrize("body", [{}, [], 7, "text", {"Records": []}, {"detail": None}, {"Records": [{"s3": "x"}]}])
def test_a_letter_about_no_object_shows_how_it_begins(body: object) -> None:
    assert DeadLetter.read(message(body), RETENTION).object == f"a message: {json.dumps(body)}"


LETTERS = [
    letter(11, "team/app/1.0.tar"),
    letter(12, "team/app/2.0.tar", kind="TagTaken"),
    letter(22, "other/app.tar"),
]


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({}, [0, 1, 2]),
        ({"ALL": "1"}, [0, 1, 2]),
        ({"KEY": "team/*"}, [0, 1]),
        ({"KEY": "team/app/1.0.tar"}, [0]),
        ({"KEY": "team"}, []),
        ({"TYPE": "RepositoryMissing"}, [0, 2]),
        ({"KEY": "team/*", "TYPE": "RepositoryMissing"}, [0]),
        ({"ID": "00000012"}, [1]),
        ({"ID": " 00000011, 00000022 "}, [0, 2]),
        ({"ID": "0000001"}, [0, 1]),
    ],
)
def test_letters_are_chosen_by_key_type_and_id(variables: dict[str, str], chosen: list[int]) -> None:
    choice = Choice.from_environment(variables)

    assert [number for number, entry in enumerate(LETTERS) if choice.takes(entry)] == chosen
    assert choice.is_made is bool(variables)
