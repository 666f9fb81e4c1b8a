from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from s3_to_ecr.carriers.sqs import WorkQueue
from s3_to_ecr.errors import EmptyBlob, MalformedEvent, OutOfTime, S3ToEcrError, ServiceUnavailable, Unexpected
from s3_to_ecr.results import Failure, Result
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.metrics import metrics
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.conftest import ONE_ATTEMPT, sqs_message, stubbed

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

SETTINGS = Settings("state", queue_url="https://sqs/work", dead_letter_queue_url="https://sqs/dead-letters")
RECORD = {"eventSource": "aws:s3", "s3": {"object": {"key": "app/x"}}}
EVENTBRIDGE = {"source": "aws.s3", "detail-type": "Object Created", "detail": {}}
PROGRESSED = Outcomes()
PROGRESSED.progressed = True

# A record's name, and what becomes of it.
Fates = dict[str, S3ToEcrError | None]


def message(*records: dict[str, Any], number: int = 1, received: int = 1) -> dict[str, Any]:
    return sqs_message(json.dumps({"Records": list(records)}), number, received)


def named(name: str) -> dict[str, Any]:
    return {**RECORD, "name": name}


class Queue:
    """A work queue whose records end as the `fates` say, by their names; those without a name as the only one."""

    def __init__(self, sqs: SQSClient, fates: Fates | S3ToEcrError | None, settings: Settings = SETTINGS) -> None:
        self._fates = fates if isinstance(fates, dict) else {"": fates}
        self.work_queue = WorkQueue(cast("Any", SimpleNamespace(sqs=sqs)), settings)

    def answer(self, *messages: Any, outcomes: Outcomes | None = None) -> Any:
        return self.work_queue.answer({"Records": list(messages)}, self._run, outcomes or Outcomes())

    def _run(self, record: dict[str, Any]) -> Result | Failure:
        error = self._fates[record.get("name", "")]
        return Failure(record, error.about("bucket", "app/\x01ä")) if error else cast("Result", {})


def queue(sqs: SQSClient, fates: Fates | S3ToEcrError | None, settings: Settings = SETTINGS) -> Queue:
    """One that knows already how often the queue delivers a message."""
    found = Queue(sqs, fates, settings)
    found.work_queue._most_deliveries = 100
    return found


def failures_of(answer: Any) -> list[str]:
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


@pytest.fixture
def sqs() -> SQSClient:
    return boto3.client("sqs", config=ONE_ATTEMPT)


@pytest.fixture
def stub(sqs: SQSClient) -> Iterator[Stubber]:
    with stubbed(sqs) as stub:
        yield stub


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The metrics that were counted, kept from those of other tests."""
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


def test_messages_that_are_completed_are_not_named_in_the_answer(sqs: SQSClient, stub: Stubber) -> None:
    assert stub

    assert queue(sqs, None).answer(message(RECORD), message(RECORD, number=2)) == {"batchItemFailures": []}


def test_only_the_message_that_failed_comes_back(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-2", 30)
    fates: Fates = {"one": None, "two": ServiceUnavailable("down"), "three": None}
    messages = [message(named(name), number=number) for number, name in enumerate(fates, 1)]

    assert failures_of(queue(sqs, fates).answer(*messages)) == ["message-2"]


def test_that_all_messages_failed_is_no_exception(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, ServiceUnavailable("down")).answer(message(RECORD))) == ["message-1"]


@pytest.mark.parametrize(("received", "seconds"), [(1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (50, 900)])
def test_a_message_waits_longer_each_time(sqs: SQSClient, stub: Stubber, received: int, seconds: int) -> None:
    expect_visibility(stub, "receipt-1", seconds)

    queue(sqs, ServiceUnavailable("down")).answer(message(RECORD, received=received))


def test_a_message_out_of_time_comes_back_at_once_if_the_invocation_progressed(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)

    queue(sqs, OutOfTime("later")).answer(message(RECORD, received=9), outcomes=PROGRESSED)


def test_progress_makes_no_message_come_back_sooner_that_waits_for_something_else(
    sqs: SQSClient, stub: Stubber
) -> None:
    expect_visibility(stub, "receipt-1", 120)

    queue(sqs, ServiceUnavailable("down")).answer(message(RECORD, received=3), outcomes=PROGRESSED)


def test_how_often_a_message_was_delivered_is_counted_when_it_has_to_wait(
    sqs: SQSClient, stub: Stubber, counted: list[tuple[str, float]]
) -> None:
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-2", 0)
    messages = [message(named("waits"), received=11), message(named("resumes"), number=2, received=12)]
    fates: Fates = {"waits": ServiceUnavailable("out"), "resumes": OutOfTime("later")}

    queue(sqs, fates).answer(*messages, outcomes=PROGRESSED)

    assert ("Deliveries", 11) in counted
    assert ("Deliveries", 12) not in counted


def test_a_message_out_of_time_that_got_nowhere_waits(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 120)

    queue(sqs, OutOfTime("later")).answer(message(RECORD, received=3))


def test_a_queue_is_asked_until_it_has_told_how_often_it_delivers(sqs: SQSClient, stub: Stubber) -> None:
    under_test = Queue(sqs, ServiceUnavailable("down"))
    stub.add_client_error("get_queue_attributes", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 900)
    expect_redrive_policy(stub, {"maxReceiveCount": 100})
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-1", 900)

    for _ in range(3):
        under_test.answer(message(RECORD, received=99))


def test_a_visibility_that_cannot_be_set_leaves_the_message_where_it_is(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("change_message_visibility", "ServiceUnavailable", http_status_code=503)

    assert failures_of(queue(sqs, ServiceUnavailable("down")).answer(message(RECORD))) == ["message-1"]


def test_an_unexpected_error_puts_the_message_back_as_any_other(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    error = Unexpected.from_error(KeyError("a bug"))

    assert failures_of(queue(sqs, error).answer(message(RECORD))) == ["message-1"]


def test_a_message_without_attributes_stands_in_no_others_way(sqs: SQSClient, stub: Stubber) -> None:
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


def test_a_body_that_cannot_be_read_is_reported_as_it_came(sqs: SQSClient, stub: Stubber) -> None:
    expect_report(
        stub,
        "hello",
        ErrorType="MalformedEvent",
        Reason="the message body is not JSON: hello",
        Bucket="(unknown)",
        Key="(unknown)",
    )

    assert queue(sqs, None).answer(sqs_message("hello")) == {"batchItemFailures": []}


def test_of_several_records_each_rejected_one_is_reported_alone(sqs: SQSClient, stub: Stubber) -> None:
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


def test_an_eventbridge_event_is_reported_as_it_came(sqs: SQSClient, stub: Stubber) -> None:
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


def test_a_message_that_would_not_be_delivered_again_is_reported_with_its_reason(
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


def test_of_several_records_that_are_given_up_each_is_reported_with_its_own_reason(
    sqs: SQSClient, stub: Stubber
) -> None:
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
def test_a_queue_that_does_not_say_how_often_it_delivers_decides_itself(
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


def test_of_several_records_that_wait_the_soonest_decides(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)

    answer = queue(sqs, WAITING).answer(message(*map(named, WAITING), received=5), outcomes=PROGRESSED)
    assert failures_of(answer) == ["message-1"]


def test_nothing_is_reported_while_a_record_of_the_message_has_to_wait(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, WAITING).answer(message(named("empty"), named("down")))) == ["message-1"]


def test_a_report_that_cannot_be_sent_keeps_the_sqs_message(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("send_message", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 30)

    assert failures_of(queue(sqs, EmptyBlob("no bytes")).answer(message(RECORD))) == ["message-1"]


def test_without_a_dead_letter_queue_a_rejected_message_just_fails(sqs: SQSClient, stub: Stubber) -> None:
    assert stub
    settings = Settings("state", queue_url="https://sqs/work")

    assert failures_of(queue(sqs, EmptyBlob("no bytes"), settings).answer(message(RECORD))) == ["message-1"]


@pytest.mark.parametrize("malformed", [{}, {"body": "{}"}, {"messageId": "1"}, "hello"])
def test_messages_that_nobody_could_answer_for_are_refused(sqs: SQSClient, stub: Stubber, malformed: Any) -> None:
    assert stub
    with pytest.raises(MalformedEvent, match="messageId and body"):
        queue(sqs, None).answer(message(RECORD), malformed)
