from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from s3_to_ecr.carriers.sqs import WorkQueue
from s3_to_ecr.errors import EmptyBlob, MalformedEvent, OutOfTime, S3ToEcrError, ServiceUnavailable, Unexpected
from s3_to_ecr.layouts.jobs import Failure, Outcome
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry import logs as telemetry
from tests.conftest import ONE_ATTEMPT, sqs_message, stubbed

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

SETTINGS = Settings("state", queue_url="https://sqs/work", dead_letter_queue_url="https://sqs/dead-letters")
RECORD = {"eventSource": "aws:s3", "s3": {"object": {"key": "app/x"}}}
Mirror = Callable[[object], Outcome]


def failed(error: S3ToEcrError, record: dict[str, Any] | None = None) -> Failure:
    error.bucket, error.key = "bucket", "app/\x01ä"
    return Failure(record or RECORD, error)


def always(*failures: Failure) -> Mirror:
    return lambda _: Outcome([], list(failures))


def outcomes(**by_name: Outcome) -> Mirror:
    return lambda notification: by_name[str(notification)]


def asking_queue(sqs: SQSClient, mirror: Mirror, settings: Settings = SETTINGS) -> WorkQueue:
    """One that has to ask how often the queue delivers a message."""
    return WorkQueue(lambda: sqs, settings, mirror)


def queue(sqs: SQSClient, mirror: Mirror, settings: Settings = SETTINGS) -> WorkQueue:
    """One that knows it already."""
    found = asking_queue(sqs, mirror, settings)
    found._most_deliveries = 100
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
    monkeypatch.setattr(telemetry, "count", lambda name, value=1: counted.append((name, value)))
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


def test_messages_that_are_done_are_not_named_in_the_answer(sqs: SQSClient, stub: Stubber) -> None:
    assert stub
    answer = queue(sqs, always()).process({"Records": [sqs_message("{}", 1), sqs_message("{}", 2)]})

    assert answer == {"batchItemFailures": []}


def test_only_the_message_that_failed_comes_back(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-2", 30)
    mirror = outcomes(one=Outcome([], []), two=Outcome([], [failed(ServiceUnavailable("down"))]), three=Outcome([], []))
    records = [sqs_message(f'"{name}"', number) for number, name in enumerate(["one", "two", "three"], 1)]

    assert failures_of(queue(sqs, mirror).process({"Records": records})) == ["message-2"]


def test_that_all_messages_failed_is_no_exception(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    mirror = always(failed(ServiceUnavailable("down")))

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}")]})) == ["message-1"]


@pytest.mark.parametrize(("received", "seconds"), [(1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (50, 900)])
def test_a_message_waits_longer_each_time(sqs: SQSClient, stub: Stubber, received: int, seconds: int) -> None:
    expect_visibility(stub, "receipt-1", seconds)
    mirror = always(failed(ServiceUnavailable("down")))

    queue(sqs, mirror).process({"Records": [sqs_message("{}", received=received)]})


def test_a_message_out_of_time_comes_back_at_once(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)

    queue(sqs, always(failed(OutOfTime("later", got_on=True)))).process({"Records": [sqs_message("{}", received=9)]})


def test_how_often_a_message_was_delivered_is_counted_when_it_has_to_wait(
    sqs: SQSClient, stub: Stubber, counted: list[tuple[str, float]]
) -> None:
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-2", 0)
    mirror = outcomes(
        waits=Outcome([], [failed(ServiceUnavailable("out"))]),
        goes_on=Outcome([], [failed(OutOfTime("later", got_on=True))]),
    )
    messages = [sqs_message('"waits"', 1, received=11), sqs_message('"goes_on"', 2, received=12)]

    queue(sqs, mirror).process({"Records": messages})

    assert counted == [("Deliveries", 11)]


def test_a_message_out_of_time_that_got_nowhere_waits(sqs: SQSClient, stub: Stubber) -> None:
    error = OutOfTime("later", got_on=True)
    error.got_on = False
    expect_visibility(stub, "receipt-1", 120)

    queue(sqs, always(failed(error))).process({"Records": [sqs_message("{}", received=3)]})


def test_a_queue_is_asked_until_it_has_told_how_often_it_delivers(sqs: SQSClient, stub: Stubber) -> None:
    under_test = asking_queue(sqs, always(failed(ServiceUnavailable("down"))))
    stub.add_client_error("get_queue_attributes", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 900)
    expect_redrive_policy(stub, {"maxReceiveCount": 100})
    expect_visibility(stub, "receipt-1", 900)
    expect_visibility(stub, "receipt-1", 900)

    for _ in range(3):
        under_test.process({"Records": [sqs_message("{}", received=99)]})


def test_a_visibility_that_cannot_be_set_leaves_the_message_where_it_is(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("change_message_visibility", "ServiceUnavailable", http_status_code=503)
    mirror = always(failed(ServiceUnavailable("down")))

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}")]})) == ["message-1"]


def test_an_unexpected_error_puts_the_message_back_as_any_other(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    mirror = always(failed(Unexpected(KeyError("a bug"))))

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}")]})) == ["message-1"]


def test_a_message_without_attributes_stands_in_no_others_way(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    expect_visibility(stub, "receipt-2", 30)
    bare = {name: value for name, value in sqs_message("{}").items() if name != "attributes"}
    mirror = always(failed(ServiceUnavailable("down")))

    answer = queue(sqs, mirror).process({"Records": [bare, sqs_message("{}", 2)]})
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
    mirror = always(failed(EmptyBlob("no bytes")))

    assert queue(sqs, mirror).process({"Records": [sqs_message("{}")]}) == {"batchItemFailures": []}


def test_a_body_that_cannot_be_read_is_reported_as_it_came(sqs: SQSClient, stub: Stubber) -> None:
    expect_report(
        stub,
        "hello",
        ErrorType="MalformedEvent",
        Reason="the message body is not JSON: hello",
        Bucket="(unknown)",
        Key="(unknown)",
    )

    assert queue(sqs, always()).process({"Records": [sqs_message("hello")]}) == {"batchItemFailures": []}


def test_of_several_records_each_rejected_one_is_reported_alone(sqs: SQSClient, stub: Stubber) -> None:
    eventbridge = {"source": "aws.s3", "detail-type": "Object Created", "detail": {}}
    for body in ({"Records": [RECORD]}, eventbridge):
        expect_report(
            stub, json.dumps(body), ErrorType="EmptyBlob", Reason="no bytes", Bucket="bucket", Key="app/\ufffdä"
        )
    mirror = always(failed(EmptyBlob("no bytes")), failed(EmptyBlob("no bytes"), eventbridge))

    assert queue(sqs, mirror).process({"Records": [sqs_message("{}")]}) == {"batchItemFailures": []}


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
    under_test = asking_queue(sqs, always(failed(ServiceUnavailable("down"))))
    assert failures_of(under_test.process({"Records": [sqs_message("{}", received=6)]})) == ["message-1"]
    assert under_test.process({"Records": [sqs_message("{}", received=7)]}) == {"batchItemFailures": []}
    [line] = [line for line in logs() if line["message"] == "Given up"]
    assert (line["level"], line["error_type"], line["deliveries"]) == ("ERROR", "ServiceUnavailable", 7)


def test_of_several_records_that_are_given_up_each_is_reported_with_its_own_reason(
    sqs: SQSClient, stub: Stubber
) -> None:
    expect_redrive_policy(stub, {"maxReceiveCount": "7"})
    for error_type, reason in [("EmptyBlob", "no bytes"), ("ServiceUnavailable", "given up after 7 deliveries: down")]:
        expect_report(
            stub, json.dumps({"Records": [RECORD]}), ErrorType=error_type, Reason=reason, Bucket="bucket",
            Key="app/\ufffdä",
        )  # fmt: skip
    mirror = always(failed(EmptyBlob("no bytes")), failed(ServiceUnavailable("down")))
    answer = asking_queue(sqs, mirror).process({"Records": [sqs_message("{}", received=7)]})

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
    mirror = always(failed(ServiceUnavailable("down")))

    answer = asking_queue(sqs, mirror).process({"Records": [sqs_message("{}", received=999)]})
    assert failures_of(answer) == ["message-1"]


def test_of_several_records_that_wait_the_soonest_decides(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 0)
    mirror = always(
        failed(ServiceUnavailable("down")), failed(OutOfTime("later", got_on=True)), failed(EmptyBlob("no bytes"))
    )

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}", received=5)]})) == ["message-1"]


def test_nothing_is_reported_while_a_record_of_the_message_has_to_wait(sqs: SQSClient, stub: Stubber) -> None:
    expect_visibility(stub, "receipt-1", 30)
    mirror = always(failed(EmptyBlob("no bytes")), failed(ServiceUnavailable("down")))

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}")]})) == ["message-1"]


def test_a_report_that_cannot_be_sent_keeps_the_sqs_message(sqs: SQSClient, stub: Stubber) -> None:
    stub.add_client_error("send_message", "ServiceUnavailable", http_status_code=503)
    expect_visibility(stub, "receipt-1", 30)
    mirror = always(failed(EmptyBlob("no bytes")))

    assert failures_of(queue(sqs, mirror).process({"Records": [sqs_message("{}")]})) == ["message-1"]


def test_without_a_dead_letter_queue_a_rejected_message_just_fails(sqs: SQSClient, stub: Stubber) -> None:
    assert stub
    settings = Settings("state", queue_url="https://sqs/work")
    mirror = always(failed(EmptyBlob("no bytes")))

    assert failures_of(queue(sqs, mirror, settings).process({"Records": [sqs_message("{}")]})) == ["message-1"]


@pytest.mark.parametrize("message", [{}, {"body": "{}"}, {"messageId": "1"}, "hello"])
def test_messages_that_nobody_could_answer_for_are_refused(sqs: SQSClient, stub: Stubber, message: Any) -> None:
    assert stub
    with pytest.raises(MalformedEvent, match="messageId and body"):
        queue(sqs, always()).process({"Records": [sqs_message("{}"), message]})
