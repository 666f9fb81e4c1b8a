"""How `make local` delivers messages to the function of `sam local start-lambda`, here replaced by a double."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local.event import notification
from local.event_source import EventSource
from local.stack import BUCKET, Stack, free_port
from tests.conftest import messages_left
from tests.doubles.server import QuietHandler, serving

BODY = json.dumps(notification(BUCKET, "team/a b.layer"))


@pytest.fixture
def queue(stack: Stack) -> Stack:
    """The stack with a queue of the test's own, and one message in it."""
    url = stack.sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    stack.sqs.send_message(QueueUrl=url, MessageBody=BODY)
    return dataclasses.replace(stack, queue_url=url)


def left(stack: Stack) -> tuple[int, int]:
    return messages_left(stack.sqs, stack.queue_url)


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A function that answers with the first item of this list, and replaces it with the event that it received."""
    answers: list[Any] = []

    class Function(QuietHandler):
        def do_POST(self) -> None:
            event = json.loads(self.body())
            status, answer = answers[0]
            answers[0] = event
            self.reply(status, json.dumps(answer).encode())

    with serving(Function) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        yield answers


def test_a_message_that_succeeds_is_deleted(queue: Stack, function: list[Any]) -> None:
    function.append((200, {"batchItemFailures": []}))

    report = EventSource(queue).deliver()

    assert report == f"s3://{BUCKET}/team/a b.layer: done"
    assert left(queue) == (0, 0)
    [record] = function[0]["Records"]
    assert record["body"] == BODY
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


@pytest.mark.parametrize(
    ("answer", "report"),
    [
        ((200, {"batchItemFailures": [{"itemIdentifier": "any"}]}), "comes back later"),
        (
            (200, {"errorMessage": "out of luck", "errorType": "Error"}),
            "failed, comes back in 10 seconds (out of luck)",
        ),
        ((500, {"message": "no container engine"}), "not invoked, comes back in 10 seconds"),
    ],
)
def test_a_message_that_fails_stays_on_the_queue(queue: Stack, function: list[Any], answer: Any, report: str) -> None:
    function.append(answer)

    assert report in str(EventSource(queue).deliver())
    assert left(queue) == (0, 1)


def test_without_a_message_the_function_is_not_invoked(queue: Stack, function: list[Any]) -> None:
    queue.sqs.purge_queue(QueueUrl=queue.queue_url)

    assert EventSource(queue).deliver() is None
    assert function == []


def test_without_a_function_no_message_is_received(queue: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{free_port()}")

    assert EventSource(queue).deliver() is None
    assert left(queue) == (1, 0)
