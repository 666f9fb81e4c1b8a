"""How `make local` delivers messages to the function of `sam local start-lambda`, here replaced by a double."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.event import notification
from local.event_source import EventSource
from local.function_log import LOG, FunctionLog
from local.stack import BUCKET, Stack, free_port
from tests.conftest import ROOT, messages_left
from tests.doubles.server import QuietHandler, serving

SUCCEEDED: tuple[int, Any] = (200, {"batchItemFailures": []})
PUSHED = {"message": "Image pushed", "repository": "team/app", "digest": "sha256:aa", "tags": ["1.0"]}
LAYER = {"message": "Layer uploaded", "repository": "team/app", "digest": "sha256:bb"}
MISSING = {"message": "Rejected", "error_type": "RepositoryMissing", "reason": "team/app does not exist"}
WAITS = {"message": "Will be retried", "error_type": "BlobsMissing", "reason": "sha256:bb has not come"}

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
def log(tmp_path: Path) -> Path:
    """The log that `sam local start-lambda` writes. It has the lines of an earlier invocation."""
    path = tmp_path / "function.log"
    path.write_text('{"message": "Image pushed", "repository": "old", "tags": ["1"]}\nREPORT RequestId: 0\n')
    return path


@pytest.fixture
def function(log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A function that answers with the first item of this list, and replaces it with the event that it received.

    Before it answers it logs the other items, and where its runtime would, the end of the invocation.
    """
    answers: list[Any] = []

    class Function(QuietHandler):
        def do_POST(self) -> None:
            event = json.loads(self.body())
            status, answer = answers[0]
            lines = [*map(json.dumps, answers[1:]), "END RequestId: 1", "REPORT RequestId: 1 Duration: 9 ms"]
            with log.open("a") as file:
                file.write("\n".join(lines) + "\n")
            answers[0] = event
            self.reply(status, json.dumps(answer).encode())

    with serving(Function) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        yield answers


@pytest.fixture
def source(queue: Stack, log: Path) -> EventSource:
    return EventSource(queue, FunctionLog(log))


def test_a_message_that_succeeds_is_deleted(queue: Stack, function: list[Any], source: EventSource) -> None:
    function += [SUCCEEDED, PUSHED]

    assert source.deliver() == f"s3://{BUCKET}/team/a b.layer: pushed team/app:1.0"
    assert left(queue) == (0, 0)
    [record] = function[0]["Records"]
    assert record["body"] == BODY
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


@pytest.mark.parametrize(
    ("logged", "report"),
    [
        ([LAYER, PUSHED], "pushed team/app:1.0"),
        ([PUSHED | {"tags": []}], "pushed team/app@sha256:aa"),
        (
            [PUSHED, PUSHED | {"message": "Image skipped", "tags": ["2", "3"]}],
            "pushed team/app:1.0; skipped team/app:2, team/app:3",
        ),
        ([LAYER], "uploaded team/app@sha256:bb"),
        ([LAYER | {"message": "Layer skipped"}], "skipped team/app@sha256:bb"),
        ([MISSING], "REJECTED RepositoryMissing: team/app does not exist"),
        ([WAITS | {"message": "Given up"}], "GIVEN UP BlobsMissing: sha256:bb has not come"),
        ([{"message": "Ignored", "reason": "a folder"}], "ignored: a folder"),
        ([{"_aws": {}}, "no object"], "only the function's log says what it did"),
    ],
)
def test_a_message_is_reported_with_what_became_of_its_object(
    function: list[Any], source: EventSource, logged: list[Any], report: str
) -> None:
    function += [SUCCEEDED, *logged]

    assert source.deliver() == f"s3://{BUCKET}/team/a b.layer: {report}"


def test_without_a_log_no_outcome_is_claimed(queue: Stack, function: list[Any], tmp_path: Path) -> None:
    function.append(SUCCEEDED)

    report = EventSource(queue, FunctionLog(tmp_path / "none.log")).deliver()

    assert report == f"s3://{BUCKET}/team/a b.layer: only the function's log says what it did"
    assert left(queue) == (0, 0)


def test_sam_writes_the_log_that_is_read() -> None:
    configured = tomllib.loads((ROOT / "samconfig.toml").read_text())["local"]["local_start_lambda"]["parameters"]

    assert ROOT / configured["log_file"] == LOG


def test_the_log_messages_that_are_looked_for_are_the_functions_own() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))

    for message in (PUSHED, LAYER, MISSING, WAITS):
        assert f'"{message["message"]}"' in source
    for text in ("Image skipped", "Layer skipped", "Given up", "Ignored", "Unexpected error, will be retried"):
        assert f'"{text}"' in source


@pytest.mark.parametrize(
    ("answer", "report"),
    [
        (
            (200, {"batchItemFailures": [{"itemIdentifier": "any"}]}),
            "comes back later: BlobsMissing: sha256:bb has not come",
        ),
        (
            (200, {"errorMessage": "out of luck", "errorType": "Error"}),
            "failed, comes back in 10 seconds (out of luck)",
        ),
        ((500, {"message": "no container engine"}), "not invoked, comes back in 10 seconds"),
    ],
)
def test_a_message_that_fails_stays_on_the_queue(
    queue: Stack, function: list[Any], source: EventSource, answer: Any, report: str
) -> None:
    function += [answer, WAITS]

    assert report in str(source.deliver())
    assert left(queue) == (0, 1)


def test_without_a_message_the_function_is_not_invoked(queue: Stack, function: list[Any], source: EventSource) -> None:
    queue.sqs.purge_queue(QueueUrl=queue.queue_url)

    assert source.deliver() is None
    assert function == []


def test_without_a_function_no_message_is_received(queue: Stack, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{free_port()}")

    assert EventSource(queue, FunctionLog(log)).deliver() is None
    assert left(queue) == (1, 0)
