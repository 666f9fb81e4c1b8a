"""The work queue and the dead-letter queue, on moto's SQS, polled as Lambda does."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from local import images
from local.invocation import Invocation, put_event
from local.stack import Stack, queue_arn
from tests.conftest import SMALL_PART, Load, messages_left, sqs_message
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import Hourglass, let_parts_take
from tests.doubles.layouts import put_all
from tests.doubles.s3 import Pattern, S3Double, Stored

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

pytestmark = pytest.mark.usefixtures("no_backoff", "small_parts")

PART = SMALL_PART
SIZE = 10 * PART
DELIVERIES = 6


class Queues:
    """A work queue whose messages go to the dead-letter queue after this number of `deliveries`."""

    def __init__(self, sqs: SQSClient, deliveries: int) -> None:
        self._sqs = sqs
        name = uuid.uuid4().hex
        self.dead_letters = sqs.create_queue(QueueName=f"dead-{name}")["QueueUrl"]
        redrive = json.dumps({"deadLetterTargetArn": queue_arn(sqs, self.dead_letters), "maxReceiveCount": deliveries})
        self.work = sqs.create_queue(QueueName=f"work-{name}", Attributes={"RedrivePolicy": redrive})["QueueUrl"]

    def send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self.work, MessageBody=body)

    def deliver(self, handler: Function, invocation: Invocation | None = None) -> int:
        """Hands visible messages to the handler, deletes those that succeed, and returns how many there were."""
        received = self._sqs.receive_message(
            QueueUrl=self.work, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"]
        ).get("Messages", [])
        if not received:
            return 0
        records = [
            sqs_message(message["Body"], number, int(message["Attributes"]["ApproximateReceiveCount"]))
            | {"receiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(received)
        ]
        answer = handler.lambda_handler({"Records": records}, invocation or Invocation())
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        for record in records:
            if record["messageId"] not in failed:
                self._sqs.delete_message(QueueUrl=self.work, ReceiptHandle=record["receiptHandle"])
            self._last = record["receiptHandle"]
        return len(received)

    def end_delay(self) -> None:
        """Makes the last message visible, as if its delay were over."""
        self._sqs.change_message_visibility(QueueUrl=self.work, ReceiptHandle=self._last, VisibilityTimeout=0)

    @property
    def left(self) -> tuple[int, int]:
        """How many messages are on the work queue: visible, and delayed."""
        return messages_left(self._sqs, self.work)

    def reports(self) -> list[dict[str, Any]]:
        """Deletes the dead letters from their queue, and returns the attributes and body of each."""
        received = self._sqs.receive_message(
            QueueUrl=self.dead_letters, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        reports = []
        for message in received.get("Messages", []):
            attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
            reports.append(attributes | {"body": message["Body"]})
            self._sqs.delete_message(QueueUrl=self.dead_letters, ReceiptHandle=message["ReceiptHandle"])
        return reports


@pytest.fixture
def queues(stack: Stack) -> Queues:
    return Queues(stack.sqs, DELIVERIES)


@pytest.fixture
def handler(queues: Queues, doubled: dict[str, str], load_handler: Load) -> Any:
    return load_handler(doubled, QUEUE_URL=queues.work, DEAD_LETTER_QUEUE_URL=queues.dead_letters)


def put(s3: S3Double, key: str, size: int = SIZE) -> tuple[Pattern, str]:
    """Puts an object into the bucket. Returns its content and the notification about it."""
    content = Pattern(size, seed=len(s3.objects))
    s3.objects[key] = Stored(content)
    return content, json.dumps(put_event(key, size, Stored(content).etag))


@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_a_layer_that_takes_longer_than_an_invocation_is_uploaded_by_several(
    known: bool, handler: Function, queues: Queues, s3_double: S3Double, strict_ecr: EcrDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    key = f"app/{Pattern(SIZE).digest}" if known else "app/large"
    content, body = put(s3_double, key)
    queues.send(body)

    deliveries = 0
    while queues.left[0]:
        invocation = Hourglass(30)
        with monkeypatch.context() as patch:
            let_parts_take(patch, invocation, 10)
            # The message is visible again at once, after any number of deliveries.
            assert queues.deliver(handler, invocation) == 1
        assert invocation.seconds >= 10
        deliveries += 1

    assert deliveries == 5
    assert queues.left == (0, 0)
    assert queues.reports() == []
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, SIZE)
    assert strict_ecr.spans == [(first, first + PART - 1) for first in range(0, SIZE, PART)]


def test_messages_without_time_left_make_no_calls_and_are_visible_again_at_once(
    handler: Function, queues: Queues, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for number in range(3):
        queues.send(put(s3_double, f"app/{number}")[1])

    assert queues.deliver(handler, Hourglass(1)) == 3
    assert strict_ecr.calls == []
    assert queues.left == (3, 0)


def test_a_message_whose_layer_another_invocation_is_uploading_waits(
    handler: Function, queues: Queues, s3_double: S3Double
) -> None:
    content, body = put(s3_double, f"app/{Pattern(SIZE).digest}")
    queues.send(body)

    with handler.leases.layer((None, "app"), content.digest):
        assert queues.deliver(handler) == 1
    assert queues.left == (0, 1)
    queues.end_delay()
    assert queues.deliver(handler) == 1
    assert queues.left == (0, 0)


def test_a_rejected_object_is_reported_once_and_can_be_sent_again_after_the_fix(
    handler: Function, queues: Queues, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for key in ("app/good", "nowhere/rejected", "app/good too"):
        queues.send(put(s3_double, key)[1])

    assert queues.deliver(handler) == 3
    assert queues.left == (0, 0)
    assert len(strict_ecr.repositories["app"].layers) == 2
    [report] = queues.reports()
    assert report["ErrorType"] == "RepositoryMissing"
    assert report["Key"] == "nowhere/rejected"
    assert "Create the repository" in report["Reason"]

    # The fix, and what `aws sqs start-message-move-task` does.
    strict_ecr.create("nowhere")
    queues.send(report["body"])
    assert queues.deliver(handler) == 1
    assert queues.left == (0, 0)
    assert queues.reports() == []
    assert len(strict_ecr.repositories["nowhere"].layers) == 1


def test_an_image_whose_blob_never_arrives_ends_in_a_dead_letter_that_names_it(
    handler: Function, queues: Queues, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = images.image([b"comes", b"never comes"])
    files = images.oci_layout({"1.0": built})
    missing = images.digest_of(b"never comes")
    del files[images.blob_path(missing)]
    for event in reversed(put_all(s3_double, files)):
        queues.send(json.dumps(event))

    assert queues.deliver(handler) == len(files)
    for _ in range(DELIVERIES - 1):
        assert queues.left == (0, 1)
        queues.end_delay()
        assert queues.deliver(handler) == 1

    assert queues.left == (0, 0)
    [report] = queues.reports()
    assert (report["ErrorType"], report["Key"]) == ("BlobsMissing", "app/index.json")
    assert missing in report["Reason"]
    assert strict_ecr.repositories["app"].tags == {}


def test_a_lasting_outage_ends_in_a_readable_dead_letter(
    handler: Function, gremlin: Gremlin, queues: Queues, s3_double: S3Double
) -> None:
    _, body = put(s3_double, "app/unlucky")
    queues.send(body)
    gremlin.fail("ecr:*", "error 500", times=10_000)

    for delivery in range(1, DELIVERIES + 1):
        assert queues.deliver(handler) == 1
        if delivery < DELIVERIES:
            assert queues.left == (0, 1)
            assert queues.reports() == []
            queues.end_delay()

    assert queues.left == (0, 0)
    [report] = queues.reports()
    assert (report["ErrorType"], report["Key"]) == ("ServiceUnavailable", "app/unlucky")
    assert report["Reason"].startswith("given up after 6 deliveries: InitiateLayerUpload for ECR repository app failed")
    assert json.loads(report["body"]) == json.loads(body)
