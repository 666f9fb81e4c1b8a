"""The SQS side: every message ends done, back on the queue, or as readable reports in the dead-letter queue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import BotoCoreError, ClientError

from s3_to_ecr.aws.clients import translated
from s3_to_ecr.carriers import notifications as events
from s3_to_ecr.errors import MalformedEvent, OutOfTime, Rejected, S3ToEcrError
from s3_to_ecr.layouts.jobs import Outcome
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry import logs as telemetry

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.base import FailureResponse
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from types_boto3_sqs.client import SQSClient

# A message that must wait comes back after 30 s, then after twice as long each time, up to a quarter of an hour.
_FIRST_DELAY_SECONDS = 30
_LONGEST_DELAY_SECONDS = 900

# SQS refuses a message or attribute with a character outside XML 1.0's; an S3 key may hold any.
_NOT_IN_SQS = r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


class WorkQueue:
    """Answers SQS events with Powertools' batch processor; `mirror_all` does the work of one message's notification.

    `client` gives the SQS client when it is needed: for messages that fail.
    """

    def __init__(
        self, client: Callable[[], SQSClient], settings: Settings, mirror_all: Callable[[object], Outcome]
    ) -> None:
        self._client = client
        self._settings = settings
        self._mirror_all = mirror_all
        self._most_deliveries: int | None = None

    def process(self, event: dict[str, Any]) -> PartialItemFailureResponse:
        """Handles every message of the event, whatever becomes of the others.

        Raises `MalformedEvent` when there is a message that nobody could answer for, in an event that was made by hand.
        """
        for message in event["Records"]:
            if not isinstance(message, dict) or not {"messageId", "body"} <= message.keys():
                raise MalformedEvent("expected SQS messages, each with its messageId and body.")
        # Not an error even when all fail: the answer then names them all, and each comes back when it should.
        processor = _Processor(self._keep)
        with processor(records=event["Records"], handler=self._handle):
            processor.process()
        return processor.response()

    def _handle(self, record: SQSRecord) -> None:
        """Ends normally when the message is done with; an exception leaves it on the queue."""
        try:
            outcome = self._mirror_all(events.parse_body(record.body))
        except Rejected as error:
            telemetry.report(error)
            self._report(record.body, error)
            return
        # The message comes back with all its records: only when none of them waits are the failed reported, once.
        waiting = [failure.error for failure in outcome.failures if not isinstance(failure.error, Rejected)]
        if waiting and not self._is_last_delivery(record):
            raise min(waiting, key=lambda error: _delay_seconds(error, _deliveries(record)))
        for failure in outcome.failures:
            given_up = not isinstance(failure.error, Rejected)
            if given_up:
                telemetry.report_given_up(failure.error, _deliveries(record))
            self._report(json.dumps(events.as_notification(failure.record)), failure.error, given_up=given_up)

    def _is_last_delivery(self, record: SQSRecord) -> bool:
        """Whether SQS would not deliver the message again, but move it to the dead-letter queue without a reason."""
        most = self._ask_most_deliveries()
        return most is not None and _deliveries(record) >= most

    def _ask_most_deliveries(self) -> int | None:
        """The queue's maxReceiveCount, `None` if it has none or does not tell; asked until it has told."""
        if self._settings.queue_url is None or self._settings.dead_letter_queue_url is None:
            return None
        if self._most_deliveries is not None:
            return self._most_deliveries
        try:
            answer = self._client().get_queue_attributes(
                QueueUrl=self._settings.queue_url, AttributeNames=["RedrivePolicy"]
            )
        except (ClientError, BotoCoreError) as error:
            telemetry.logger.warning("The queue did not tell how often it delivers a message", reason=str(error))
            return None
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        self._most_deliveries = int(json.loads(policy)["maxReceiveCount"]) if policy else None
        return self._most_deliveries

    def _report(self, body: str, error: S3ToEcrError, *, given_up: bool = False) -> None:
        """Sends what was rejected or given up to the dead-letter queue; raises `error` if there is none.

        Raises `ServiceUnavailable` if it cannot be sent, so that the message stays on the queue.
        """
        if self._settings.dead_letter_queue_url is None:
            raise error
        told = {
            "ErrorType": type(error).__name__,
            "Reason": f"given up after {self._most_deliveries} deliveries: {error.reason}"
            if given_up
            else error.reason,
            "Bucket": error.bucket or "(unknown)",
            "Key": error.key or "(unknown)",
        }
        with translated("reporting a rejected object to the dead-letter queue", {}):
            self._client().send_message(
                QueueUrl=self._settings.dead_letter_queue_url,
                MessageBody=body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": re.sub(_NOT_IN_SQS, "\ufffd", text)}
                    for name, text in told.items()
                },
            )

    def _keep(self, message: SQSRecord, error: BaseException) -> None:
        """Leaves a message that failed on the queue, until its reason may have passed."""
        telemetry.logger.warning(
            "The message stays on the queue",
            message_id=message.raw_event.get("messageId"),
            error_type=type(error).__name__,
            reason=str(error),
        )
        if self._settings.queue_url is None or isinstance(error, Rejected):
            return
        deliveries = _deliveries(message)
        delay = _delay_seconds(error, deliveries)
        if delay:  # one that got on, and only ran out of time, is not to worry anybody
            telemetry.count("Deliveries", deliveries)
        try:
            self._client().change_message_visibility(
                QueueUrl=self._settings.queue_url,
                ReceiptHandle=message.raw_event.get("receiptHandle", ""),
                VisibilityTimeout=delay,
            )
        except (ClientError, BotoCoreError) as failed:
            # The message is as safe as before: it comes back when the queue's own visibility timeout ends.
            telemetry.logger.warning("The message's visibility could not be set", reason=str(failed))


class _Processor(BatchProcessor):
    """Partial batch responses, with a word in between for each message that failed."""

    def __init__(self, on_failure: Callable[[SQSRecord, BaseException], None]) -> None:
        super().__init__(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        self._on_failure = on_failure

    def failure_handler(self, record: Any, exception: Any) -> FailureResponse:
        self._on_failure(record, exception[1])
        return super().failure_handler(record, exception)


def _deliveries(message: SQSRecord) -> int:
    """How often the message has been delivered, this time included."""
    # Hand-written events leave it out.
    return int(message.raw_event.get("attributes", {}).get("ApproximateReceiveCount", 1))


def _delay_seconds(error: BaseException, delivered: int) -> int:
    if isinstance(error, OutOfTime) and error.got_on:
        return 0
    return int(min(_FIRST_DELAY_SECONDS * 2 ** min(delivered - 1, 10), _LONGEST_DELAY_SECONDS))
