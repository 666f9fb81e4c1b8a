"""SQS: every message ends completed, back on the queue, or as readable reports in the dead-letter queue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from s3_to_ecr.aws.clients import Clients
from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.errors import MalformedEvent, OutOfTime, Rejected, S3ToEcrError
from s3_to_ecr.event_sources.notifications import as_notification, parse_body, records, run_records
from s3_to_ecr.results import Attempt
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.metrics import count
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents
from s3_to_ecr.telemetry.outcomes import Outcomes
from s3_to_ecr.text import readable

RunRecord = Callable[[dict[str, Any]], Attempt]
Message = dict[str, Any]

# A message that must wait comes back after 30 s, then after twice as long each time, up to a quarter of an hour.
_FIRST_DELAY_SECONDS = 30
_LONGEST_DELAY_SECONDS = 900

# SQS refuses messages and attributes with characters outside XML 1.0. An S3 key may hold any character.
_NOT_IN_SQS = r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"

# What SQS accepts as a message: its body, and the names, types and values of its attributes.
_MOST_BYTES = 1024 * 1024

# The type of a report's attributes.
_STRING = "String"

# What a message must have to be answered at all.
_REQUIRED = ("messageId", "body")


class WorkQueue:
    """Answers SQS events. It outlives invocations: it remembers the queue's policy.

    Powertools' batch processor would do little of this, and its import takes longer than that of all our modules.
    """

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._queue_url = settings.queue_url
        self._dead_letter_queue_url = settings.dead_letter_queue_url
        self._most_deliveries: int | None = None

    def answer(
        self, event: dict[str, Any], run_record: RunRecord, outcomes: Outcomes, events: OutcomeEvents
    ) -> dict[str, Any]:
        """Handles every message of the event, whatever becomes of the others. The answer names those that stay.

        Raises `MalformedEvent` for a hand-made event with a message that cannot be answered.
        """
        for message in event["Records"]:
            if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in _REQUIRED):
                raise MalformedEvent("expected SQS messages, each with its messageId and body.")
        failed = []
        for message in event["Records"]:
            try:
                self._handle(message, run_record, outcomes, events)
            except Exception as error:  # noqa: BLE001 (the boundary between messages)
                self._keep(message, error, outcomes)
                failed.append({"itemIdentifier": message["messageId"]})
        return {"batchItemFailures": failed}

    def _handle(self, message: Message, run_record: RunRecord, outcomes: Outcomes, events: OutcomeEvents) -> None:
        """Ends normally if the message is completed. An exception leaves it on the queue."""
        try:
            notification = parse_body(message["body"])
            attempts = run_records(notification, run_record)
        except Rejected as error:
            outcomes.record(error)
            self._report(message["body"], error)
            return
        # The message comes back with all of its records. So they are announced, and rejected ones reported, once, when
        # none of the others is left to be retried.
        ended = self._given_up_if_last(attempts, message, outcomes)
        announced = self._given_up_if_last(events.announce(ended), message, outcomes)
        for one, before, after in zip(records(notification), ended, announced, strict=True):
            # Why the object is not in ECR comes before why its event could not be sent.
            if failure := before.error or after.error:
                self._report(json.dumps(as_notification(one)), failure)

    def _given_up_if_last(self, attempts: list[Attempt], message: Message, outcomes: Outcomes) -> list[Attempt]:
        """The attempts, with every object given up that would have to be tried again after the last delivery.

        Before that, raises the error of the one that waits the shortest.
        """
        retried = [attempt.error for attempt in attempts if attempt.error and not attempt.has_ended]
        if not retried:
            return attempts
        if not self._is_last_delivery(message):
            raise min(retried, key=lambda error: _delay_seconds(error, message, outcomes))
        for error in retried:
            outcomes.record_given_up(error, _deliveries(message))
        reason = f"given up after {self._most_deliveries} deliveries"
        return [
            replace(attempt, outcome=attempt.error.within(reason), given_up=True)
            if attempt.error and not attempt.has_ended
            else attempt
            for attempt in attempts
        ]

    def _is_last_delivery(self, message: Message) -> bool:
        """Whether SQS would not deliver the message again, but move it to the dead-letter queue without a reason."""
        most = self._ask_most_deliveries()
        return most is not None and _deliveries(message) >= most

    def _ask_most_deliveries(self) -> int | None:
        """The queue's maxReceiveCount; `None` if it has none or does not answer. Asks until the queue has answered."""
        if self._queue_url is None or self._dead_letter_queue_url is None:
            return None
        if self._most_deliveries is not None:
            return self._most_deliveries
        try:
            answer = self._clients.sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["RedrivePolicy"])
        except (ClientError, BotoCoreError) as error:
            logger.warning("The queue did not say how often it delivers a message", reason=str(error))
            return None
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        self._most_deliveries = int(json.loads(policy)["maxReceiveCount"]) if policy else None
        return self._most_deliveries

    def _report(self, body: str, error: S3ToEcrError) -> None:
        """Sends a rejected or given-up object to the dead-letter queue. Raises `error` if there is no such queue.

        Raises `ServiceUnavailable` if it cannot be sent, so the message stays on the work queue.
        """
        if self._dead_letter_queue_url is None:
            raise error
        found = {
            "ErrorType": type(error).__name__,
            "Reason": readable(error.reason),
            "Bucket": error.bucket or "(unknown)",
            "Key": error.key or "(unknown)",
        }
        attributes = {name: _sendable(text) for name, text in found.items()}
        room = _MOST_BYTES - sum(len((name + _STRING + text).encode()) for name, text in attributes.items())
        with translated("reporting a rejected object to the dead-letter queue", {}):
            self._clients.sqs.send_message(
                QueueUrl=self._dead_letter_queue_url,
                # Only a message made by hand is so long that it has to be cut, and it is of no use to redrive that.
                # Neither is one that is empty, which SQS refuses.
                MessageBody=_sendable(body).encode()[:room].decode(errors="ignore") or "(empty)",
                MessageAttributes={
                    name: {"DataType": _STRING, "StringValue": text} for name, text in attributes.items()
                },
            )

    def _keep(self, message: Message, error: Exception, outcomes: Outcomes) -> None:
        """Leaves a message that failed on the queue, until its reason may have passed."""
        logger.warning(
            "The message stays on the queue",
            message_id=message.get("messageId"),
            error_type=type(error).__name__,
            reason=str(error),
        )
        if self._queue_url is None or isinstance(error, Rejected):
            return
        delay = _delay_seconds(error, message, outcomes)
        if delay:  # a message that made progress and only ran out of time is no cause for concern
            count("Deliveries", _deliveries(message))
        try:
            self._clients.sqs.change_message_visibility(
                QueueUrl=self._queue_url,
                ReceiptHandle=message.get("receiptHandle", ""),
                VisibilityTimeout=delay,
            )
        except (ClientError, BotoCoreError) as failed:
            # The message is as safe as before: it comes back when the queue's own visibility timeout ends.
            logger.warning("The message's visibility could not be set", reason=str(failed))


def _sendable(text: str) -> str:
    """The text as SQS accepts it."""
    return re.sub(_NOT_IN_SQS, "\ufffd", text)


def _deliveries(message: Message) -> int:
    """How often the message has been delivered, including this time."""
    # Messages made by hand may have anything here, or nothing.
    attributes = message.get("attributes")
    received = str(attributes.get("ApproximateReceiveCount")) if isinstance(attributes, dict) else ""
    return int(received) if re.fullmatch("[1-9][0-9]{0,8}", received) else 1


def _delay_seconds(error: Exception, message: Message, outcomes: Outcomes) -> int:
    """How long the message waits. It does not if all it needs is more time, and the next invocation gets further."""
    if isinstance(error, OutOfTime) and outcomes.progressed:
        return 0
    return int(min(_FIRST_DELAY_SECONDS * 2 ** min(_deliveries(message) - 1, 10), _LONGEST_DELAY_SECONDS))
