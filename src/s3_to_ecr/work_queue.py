"""The SQS side: every message ends done, back on the queue, or as readable reports in the dead-letter queue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import BotoCoreError, ClientError

from s3_to_ecr import events, telemetry
from s3_to_ecr.aws import translated
from s3_to_ecr.errors import OutOfTime, Rejected, S3ToEcrError
from s3_to_ecr.jobs import Outcome
from s3_to_ecr.settings import Settings

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

    def process(self, event: dict[str, Any]) -> PartialItemFailureResponse:
        """Handles every message of the event, whatever becomes of the others."""
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
        rejected: list[tuple[str, Rejected]] = []
        for failure in outcome.failures:
            # The message comes back with all its records; only when none has to wait are the rejected reported, once.
            if not isinstance(failure.error, Rejected):
                raise failure.error
            rejected.append((json.dumps(events.as_notification(failure.record)), failure.error))
        for body, rejection in rejected:
            self._report(body, rejection)

    def _report(self, body: str, error: Rejected) -> None:
        """Sends what was rejected to the dead-letter queue with the reason; raises `error` if there is none.

        Raises `ServiceUnavailable` if it cannot be sent, so that the message stays on the queue.
        """
        if self._settings.dead_letter_queue_url is None:
            raise error
        told = {
            "ErrorType": type(error).__name__,
            "Reason": error.reason,
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
            exc_info=None if isinstance(error, S3ToEcrError) else error,
        )
        if self._settings.queue_url is None or isinstance(error, Rejected):
            return
        # Hand-written events leave out what this does not depend on.
        received = int(message.raw_event.get("attributes", {}).get("ApproximateReceiveCount", 1))
        try:
            self._client().change_message_visibility(
                QueueUrl=self._settings.queue_url,
                ReceiptHandle=message.raw_event.get("receiptHandle", ""),
                VisibilityTimeout=_delay_seconds(error, received),
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


def _delay_seconds(error: BaseException, received: int) -> int:
    if isinstance(error, OutOfTime):
        return 0
    return int(min(_FIRST_DELAY_SECONDS * 2 ** min(received - 1, 10), _LONGEST_DELAY_SECONDS))
