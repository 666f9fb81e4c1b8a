from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from s3_to_ecr.errors import (
    EmptyBlob,
    EventNotSent,
    MalformedEvent,
    OutOfTime,
    S3ToEcrError,
    ServiceUnavailable,
    Unexpected,
)
from s3_to_ecr.event_sources.sqs import WorkQueue
from s3_to_ecr.results import Attempt, Result
from s3_to_ecr.s3_objects import S3Object
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.metrics import metrics
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.conftest import ONE_ATTEMPT, sqs_message, stubbed
from tests.doubles.sqs import MOST_BYTES, message_bytes, strict

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

SETTINGS = Settings("state", queue_url="https://sqs/work", dead_letter_queue_url="https://sqs/dead-letters")
RECORD = {"eventSource": "aws:s3", "s3": {"object": {"key": "app/x"}}}
EVENTBRIDGE = {"source": "aws.s3", "detail-type": "Object Created", "detail": {}}
PROGRESSED = Outcomes()
PROGRESSED.progressed = True

# The error by which each named record fails, or `None` for a success.
Fates = dict[str, S3ToEcrError | None]


def message(*records: dict[str, Any], number: int = 1, received: int = 1) -> dict[str, Any]:
    return sqs_message(json.dumps({"Records": list(records)}), number, received)


def named(name: str) -> dict[str, Any]:
    return {**RECORD, "name": name}


class Bus:
    """Takes the place of `OutcomeEvents`: what was `announced`, and whether the bus is `down`."""

    def __init__(self) -> None:
        self.announced: list[list[tuple[str, bool]]] = []
        self.down = False

    def announce(self, attempts: list[Attempt]) -> list[Attempt]:
        self.announced.append([(each.error.reason if each.error else "done", each.has_ended) for each in attempts])
        return (
            [replace(each, outcome=EventNotSent("bus"), given_up=False) for each in attempts] if self.down else attempts
        )


class Queue:
    """A work queue whose records end as the `fates` of their names say. A single fate is for unnamed records."""

    def __init__(self, sqs: SQSClient, fates: Fates | S3ToEcrError | None, settings: Settings = SETTINGS) -> None:
        self._fates = fates if isinstance(fates, dict) else {"": fates}
        self.work_queue = WorkQueue(cast("Any", SimpleNamespace(sqs=sqs)), settings)
        self.bus = Bus()

    def answer(self, *messages: Any, outcomes: Outcomes | None = None) -> Any:
        event = {"Records": list(messages)}
        return self.work_queue.answer(event, self._run, outcomes or Outcomes(), cast("OutcomeEvents", self.bus))

    def _run(self, record: dict[str, Any]) -> Attempt:
        error = self._fates[record.get("name", "")]
        key = "app/\x01ä"
        return Attempt(S3Object("bucket", key), error.about("bucket", key) if error else cast("Result", {}), 0)


def queue(sqs: SQSClient, fates: Fates | S3ToEcrError | None, settings: Settings = SETTINGS) -> Queue:
    """A queue that already knows its number of deliveries."""
    informed = Queue(sqs, fates, settings)
    informed.work_queue._most_deliveries = 100
    return informed


def failures_of(answer: Any) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


@pytest.fixture
def sqs() -> SQSClient:
    return strict(boto3.client("sqs", config=ONE_ATTEMPT))


@pytest.fixture
def stub(sqs: SQSClient) -> Iterator[Stubber]:
    with stubbed(sqs) as stub:
        yield stub


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The metrics counted during the test."""
    counted: list[tuple[str, float]] = []
    monkeypatch.setattr(metrics, "add_metric", lambda name, _unit, value: counted.append((name, value)))
    return counted


def expect_visibility(stub: Stubber, receipt: str, seconds: int) -> None:
    stub.add_response(
        "change_message_visibility",
        {},
        {"QueueUrl": "https://sqs/work", "ReceiptHandle": receipt, "VisibilityTimeout": seconds},
    )


def expect_report(stub: Stubber, body: str, **attributes: str) -> None:
    stub.add_response(
        "send_message",
        {"MessageId": "1", "MD5OfMessageBody": "x"},
        {
            "QueueUrl": "https://sqs/dead-letters",
            "MessageBody": body,
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        },
    )


def test_completed_messages_are_not_in_the_answer(sqs: SQSClient, stub: Stubber) -> None:
    assert stub

    assert queue(sqs, None).answer(message(RECORD), message(RECORD, number=2)) == {"batchItemFailures": []}


def test_only_the_failed_message_is_retried(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-2", 30)
    fates: Fates = {"one": None, "two": ServiceUnavailable("down"), "three": None}
    messages = [message(named(name), number=number) for number, name in enumerate(fates, 1)]

    assert failures_of(queue(sqs, fates).answer(*messages)) == ["message-2"]


def test_no_exception_is_raised_if_all_messages_fail(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, ServiceUnavailable("down")).answer(message(RECORD))) == ["message-1"]


@pytest.mark.parametrize(("received", "seconds"), [(1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (50, 900)])
def test_a_message_waits_longer_each_time(sqs: SQSClient, stub: Stubber, received: int, seconds: int) -> None:
    expect_visibility(stub, "receipt-1", seconds)

    queue(sqs, ServiceUnavailable("down")).answer(message(RECORD, received=received))


def test_a_message_out_of_time_is_retried_at_once_if_the_invocation_progressed(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)

    queue(sqs, OutOfTime("later")).answer(message(RECORD, received=9), outcomes=PROGRESSED)


def test_progress_does_not_shorten_the_wait_after_another_error(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 120)

    queue(sqs, ServiceUnavailable("down")).answer(message(RECORD, received=3), outcomes=PROGRESSED)


def test_deliveries_are_counted_only_for_messages_that_wait(
    sqs: SQSClient, stub: Stubber, counted: list[tuple[str, float]]
) -> None:
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-2", 0)
    messages = [message(named("waits"), received=11), message(named("resumes"), number=2, received=12)]
    fates: Fates = {"waits": ServiceUnavailable("out"), "resumes": OutOfTime("later")}

    queue(sqs, fates).answer(*messages, outcomes=PROGRESSED)

    assert ("Deliveries", 11) in counted
    assert ("Deliveries", 12) not in counted


def test_a_message_out_of_time_without_progress_waits(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 120)

    queue(sqs, OutOfTime("later")).answer(message(RECORD, received=3))


def test_the_redrive_policy_is_read_until_that_succeeds(sqs: SQSClient, stub: Stubber) -> None:
    under_test = Queue(sqs, ServiceUnavailable("down"))
    stub.add_client_error("get_queue_attributes", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 900)
    expect_redrive_policy(stub, {"maxReceiveCount": 100})
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-1", 900)

    for _ in range(3):
        under_test.answer(message(RECORD, received=99))


def test_a_message_stays_on_the_queue_if_its_visibility_cannot_be_set(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("change_message_visibility", "ServiceUnavailable", http_status_code=503)

    assert failures_of(queue(sqs, ServiceUnavailable("down")).answer(message(RECORD))) == ["message-1"]


def test_an_unexpected_error_is_retried_like_any_other(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    error = Unexpected.from_error(KeyError("a bug"))

    assert failures_of(queue(sqs, error).answer(message(RECORD))) == ["message-1"]


def test_a_message_without_attributes_does_not_block_others(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    expect_visibility(stub, "receipt-2", 30)
    bare = {name: value for name, value in message(RECORD).items() if name != "attributes"}

    answer = queue(sqs, ServiceUnavailable("down")).answer(bare, message(RECORD, number=2))
    assert failures_of(answer) == ["message-1", "message-2"]


def test_a_rejected_object_is_reported_with_its_reason_and_consumed(sqs: SQSClient, stub: Stubber) -> None:
    expect_report(
        stub,
        json.dumps({"Records": [RECORD]}),
        ErrorType="EmptyBlob",
        Reason="no bytes",
        Bucket="bucket",
        Key="app/\ufffdä",  # SQS takes no control characters
    )

    assert queue(sqs, EmptyBlob("no bytes")).answer(message(RECORD)) == {"batchItemFailures": []}


def test_an_unreadable_body_is_reported_unchanged(sqs: SQSClient, stub: Stubber) -> None:
    expect_report(
        stub,
        "hello",
        ErrorType="MalformedEvent",
        Reason="the message body is not JSON: hello",
        Bucket="(unknown)",
        Key="(unknown)",
    )

    assert queue(sqs, None).answer(sqs_message("hello")) == {"batchItemFailures": []}


def test_each_rejected_record_is_reported_separately(sqs: SQSClient, stub: Stubber) -> None:
    for name in ("one", "two"):
        expect_report(
            stub,
            json.dumps({"Records": [named(name)]}),
            ErrorType="EmptyBlob",
            Reason="no bytes",
            Bucket="bucket",
            Key="app/\ufffdä",
        )
    fates: Fates = {"one": EmptyBlob("no bytes"), "two": EmptyBlob("no bytes")}

    assert queue(sqs, fates).answer(message(named("one"), named("two"))) == {"batchItemFailures": []}


def test_an_eventbridge_event_is_reported_unchanged(sqs: SQSClient, stub: Stubber) -> None:
    expect_report(
        stub, json.dumps(EVENTBRIDGE), ErrorType="EmptyBlob", Reason="no bytes", Bucket="bucket", Key="app/\ufffdä"
    )

    answer = queue(sqs, EmptyBlob("no bytes")).answer(sqs_message(json.dumps(EVENTBRIDGE)))
    assert answer == {"batchItemFailures": []}


def expect_redrive_policy(stub: Stubber, policy: dict[str, Any] | None) -> None:
    stub.add_response(
        "get_queue_attributes",
        {"Attributes": {"RedrivePolicy": json.dumps(policy)} if policy else {}},
        {"QueueUrl": "https://sqs/work", "AttributeNames": ["RedrivePolicy"]},
    )


def test_a_message_is_reported_with_its_reason_at_its_last_delivery(
    sqs: SQSClient, stub: Stubber, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    expect_redrive_policy(stub, {"maxReceiveCount": 7})
    expect_visibility(stub, "receipt-1", 900)
    expect_report(
        stub,
        json.dumps({"Records": [RECORD]}),
        ErrorType="ServiceUnavailable",
        Reason="given up after 7 deliveries: down",
        Bucket="bucket",
        Key="app/\ufffdä",
    )
    under_test = Queue(sqs, ServiceUnavailable("down"))
    assert failures_of(under_test.answer(message(RECORD, received=6))) == ["message-1"]
    assert under_test.answer(message(RECORD, received=7)) == {"batchItemFailures": []}
    [line] = [line for line in logs() if line["message"] == "Given up"]
    assert (line["level"], line["error_type"], line["deliveries"]) == ("ERROR", "ServiceUnavailable", 7)


def test_each_record_that_is_given_up_is_reported_with_its_own_reason(sqs: SQSClient, stub: Stubber) -> None:
    expect_redrive_policy(stub, {"maxReceiveCount": "7"})
    for name, error_type, reason in [
        ("empty", "EmptyBlob", "no bytes"),
        ("down", "ServiceUnavailable", "given up after 7 deliveries: down"),
    ]:
        expect_report(
            stub, json.dumps({"Records": [named(name)]}), ErrorType=error_type, Reason=reason, Bucket="bucket",
            Key="app/\ufffdä",
        )  # fmt: skip
    fates: Fates = {"empty": EmptyBlob("no bytes"), "down": ServiceUnavailable("down")}
    answer = Queue(sqs, fates).answer(message(named("empty"), named("down"), received=7))

    assert answer == {"batchItemFailures": []}


@pytest.mark.parametrize("policy", [None, "refused"])
def test_without_a_known_redrive_policy_a_message_is_always_retried(
    sqs: SQSClient, stub: Stubber, policy: str | None
) -> None:
    if policy:
        stub.add_client_error("get_queue_attributes", "AccessDenied", http_status_code=403)
    else:
        expect_redrive_policy(stub, None)
    expect_visibility(stub, "receipt-1", 900)

    answer = Queue(sqs, ServiceUnavailable("down")).answer(message(RECORD, received=999))
    assert failures_of(answer) == ["message-1"]


WAITING: Fates = {"down": ServiceUnavailable("down"), "late": OutOfTime("later"), "empty": EmptyBlob("no bytes")}


def test_the_record_with_the_shortest_wait_decides(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)

    answer = queue(sqs, WAITING).answer(message(*map(named, WAITING), received=5), outcomes=PROGRESSED)
    assert failures_of(answer) == ["message-1"]


def test_nothing_is_reported_while_a_record_of_the_message_waits(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, WAITING).answer(message(named("empty"), named("down")))) == ["message-1"]


def test_a_message_stays_on_the_queue_if_its_report_cannot_be_sent(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("send_message", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, EmptyBlob("no bytes")).answer(message(RECORD))) == ["message-1"]


def test_a_message_is_announced_once_when_all_of_its_records_have_ended(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    for _ in range(2):
        stub.add_response("send_message", {"MessageId": "1", "MD5OfMessageBody": "x"})
    under_test = queue(sqs, {"good": None, "empty": EmptyBlob("no bytes"), "down": ServiceUnavailable("down")})
    records = [named(name) for name in ("good", "empty", "down")]

    assert failures_of(under_test.answer(message(*records))) == ["message-1"]
    assert under_test.bus.announced == []

    assert failures_of(under_test.answer(message(*records, received=100))) == []
    assert under_test.bus.announced == [
        [("done", True), ("no bytes", True), ("given up after 100 deliveries: down", True)]
    ]


@pytest.mark.parametrize("fate", [None, EmptyBlob("no bytes")])
def test_a_message_whose_events_cannot_be_sent_is_retried_and_not_reported(
    sqs: SQSClient, stub: Stubber, fate: S3ToEcrError | None
) -> None:
    expect_visibility(stub, "receipt-1", 30)
    under_test = queue(sqs, fate)
    under_test.bus.down = True

    assert failures_of(under_test.answer(message(RECORD))) == ["message-1"]


@pytest.mark.parametrize(
    ("fate", "error_type", "reason"),
    [
        (None, "EventNotSent", "given up after 100 deliveries: bus"),
        (EmptyBlob("no bytes"), "EmptyBlob", "no bytes"),
        (ServiceUnavailable("down"), "ServiceUnavailable", "given up after 100 deliveries: down"),
    ],
)
def test_events_that_cannot_be_sent_at_the_last_delivery_leave_a_dead_letter(
    sqs: SQSClient, stub: Stubber, fate: S3ToEcrError | None, error_type: str, reason: str
) -> None:
    key = "app/\ufffdä" if fate else "(unknown)"
    bucket = "bucket" if fate else "(unknown)"
    body = json.dumps({"Records": [RECORD]})
    expect_report(stub, body, ErrorType=error_type, Reason=reason, Bucket=bucket, Key=key)
    under_test = queue(sqs, fate)
    under_test.bus.down = True

    assert failures_of(under_test.answer(message(RECORD, received=100))) == []


def test_without_a_dead_letter_queue_a_rejected_message_just_fails(sqs: SQSClient, stub: Stubber) -> None:
    assert stub
    settings = Settings("state", queue_url="https://sqs/work")

    assert failures_of(queue(sqs, EmptyBlob("no bytes"), settings).answer(message(RECORD))) == ["message-1"]


@pytest.mark.parametrize("malformed", [{}, {"body": "{}"}, {"messageId": "1"}, {"messageId": "1", "body": 7}, "hello"])
def test_messages_without_an_id_or_a_body_are_refused(sqs: SQSClient, stub: Stubber, malformed: Any) -> None:
    assert stub
    with pytest.raises(MalformedEvent, match="messageId and body"):
        queue(sqs, None).answer(message(RECORD), malformed)


@pytest.fixture
def reports(sqs: SQSClient, stub: Stubber) -> list[dict[str, Any]]:
    """The next report that SQS accepts, whatever it is."""
    sent: list[dict[str, Any]] = []
    sqs.meta.events.register_last("provide-client-params.sqs.SendMessage", lambda params, **_: sent.append(params))
    stub.add_response("send_message", {"MessageId": "1", "MD5OfMessageBody": "x"})
    return sent


@pytest.mark.parametrize("bloat", ["", "x"], ids=["S3's", "too long"])
@pytest.mark.parametrize("characters", ["xx", "\ud83d\0", "\U0001f4a3"])
def test_a_report_is_as_long_as_sqs_accepts_whatever_it_is_about(
    sqs: SQSClient, reports: list[dict[str, Any]], bloat: str, characters: str
) -> None:
    quoted = characters * MOST_BYTES
    record = RECORD | ({"bloat": bloat * 2 * MOST_BYTES} if bloat else {})
    fates: Fates = {"": EmptyBlob(f"what happened: {quoted}. What to do.")}

    assert queue(sqs, fates).answer(message(record)) == {"batchItemFailures": []}

    [report] = reports
    reason = report["MessageAttributes"]["Reason"]["StringValue"]
    assert reason.startswith("what happened: ")
    assert reason.endswith(". What to do.")
    assert len(reason) <= 1024
    assert message_bytes(report) <= MOST_BYTES
    body = json.dumps({"Records": [record]})
    assert report["MessageBody"] == body[: len(report["MessageBody"])]
    assert report["MessageBody"] == body or message_bytes(report) == MOST_BYTES


def test_a_body_that_is_as_long_as_sqs_accepts_is_reported(sqs: SQSClient, reports: list[dict[str, Any]]) -> None:
    body = "é" * (MOST_BYTES // 2)

    assert queue(sqs, None).answer(sqs_message(body)) == {"batchItemFailures": []}

    [report] = reports
    assert MOST_BYTES - 1 <= message_bytes(report) <= MOST_BYTES
    assert set(report["MessageBody"]) == {"é"}


@pytest.mark.parametrize("character", ["k", "é", "\x01", "✨"])
def test_the_longest_key_is_reported_whole(sqs: SQSClient, reports: list[dict[str, Any]], character: str) -> None:
    key = character * (1024 // len(character.encode()))
    error = EmptyBlob("no bytes").about("bucket", key)
    work_queue = WorkQueue(cast("Any", SimpleNamespace(sqs=sqs)), SETTINGS)
    rejected = Attempt(S3Object("bucket", key), error, 0)

    work_queue.answer({"Records": [message(RECORD)]}, lambda _: rejected, Outcomes(), cast("OutcomeEvents", Bus()))

    [report] = reports
    assert report["MessageAttributes"]["Key"]["StringValue"] == key.replace("\x01", "\ufffd")


def test_a_message_of_more_records_than_s3_sends_is_one_report(sqs: SQSClient, reports: list[dict[str, Any]]) -> None:
    body = json.dumps({"Records": [RECORD] * 101})

    assert queue(sqs, EmptyBlob("no bytes")).answer(sqs_message(body)) == {"batchItemFailures": []}

    [report] = reports
    assert report["MessageAttributes"]["Reason"]["StringValue"] == "the notification has 101 records, more than 100."


@pytest.mark.parametrize("attributes", [0, [], None, {"ApproximateReceiveCount": "x"}, {"ApproximateReceiveCount": []}])
def test_a_message_with_other_attributes_than_sqs_gives_waits_like_a_new_one(
    sqs: SQSClient, stub: Stubber, attributes: Any
) -> None:
    expect_visibility(stub, "receipt-1", 30)
    by_hand = message(RECORD) | {"attributes": attributes}

    assert failures_of(queue(sqs, ServiceUnavailable("down")).answer(by_hand)) == ["message-1"]
