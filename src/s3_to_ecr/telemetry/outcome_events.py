"""Events on an EventBridge bus that say what became of each object. docs/events.md has their schema.

An event is sent before the object's source is answered. If it cannot be sent, the object counts as not done (ADR 14).
So its message comes back, finds the object in ECR, and tries to send the event again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from s3_to_ecr.aws.clients import Clients
from s3_to_ecr.errors import EventNotSent, S3ToEcrError
from s3_to_ecr.results import Attempt, PushedImage
from s3_to_ecr.s3_objects import S3Object
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.text import readable

SOURCE = "s3-to-ecr"
MIRRORED = "Object Mirrored"
REJECTED = "Object Rejected"

# What EventBridge takes in one call. An event must be smaller than 256 KB with the envelope that EventBridge adds.
MOST_ENTRIES = 10
_MOST_BYTES = 240 * 1024

# EventBridge may refuse some events of a call, which the SDK does not retry. These are the waits before the next tries.
_WAITS_SECONDS = (0.1, 0.4)

_Entry = dict[str, Any]


class OutcomeEvents:
    """Sends the events of one invocation to the bus in the `settings`, if there is one.

    `function_arn` tells the partition, region and account, for the ARNs in the events.
    """

    def __init__(self, clients: Clients, settings: Settings, function_arn: str) -> None:
        self._clients = clients
        self._bus = settings.outcome_bus
        _, self._partition, _, region, account, *_ = function_arn.split(":")
        registry = settings.registry_id or account
        self._repositories = f"arn:{self._partition}:ecr:{region}:{registry}:repository/"

    def announce(self, attempts: list[Attempt]) -> list[Attempt]:
        """Sends an event for each object that is done or not tried again, ignored ones excepted.

        Returns the attempts, with `EventNotSent` as the outcome of those whose event could not be sent.
        """
        if self._bus is None:
            return attempts
        entries = {
            number: self._entry(target, attempt)
            for number, attempt in enumerate(attempts)
            if (target := _announced(attempt))
        }
        unsent: dict[int, str] = {}
        for batch in _batches(entries):
            unsent |= self._put({number: entries[number] for number in batch})
        return [
            replace(attempt, outcome=self._not_sent(attempt, unsent[number]), given_up=False)
            if number in unsent
            else attempt
            for number, attempt in enumerate(attempts)
        ]

    def _put(self, entries: dict[int, _Entry]) -> dict[int, str]:
        """Sends some events in one call, and those again that EventBridge refuses. Returns why which were not sent."""
        for wait in (*_WAITS_SECONDS, None):
            try:
                answer = self._clients.events.put_events(Entries=list(entries.values()))
            except (ClientError, BotoCoreError) as error:
                return dict.fromkeys(entries, str(error))
            if not answer["FailedEntryCount"]:
                break
            refused = {
                number: f"{entry['ErrorCode']}: {entry.get('ErrorMessage', '')}"
                for number, entry in zip(entries, answer["Entries"], strict=True)
                if "ErrorCode" in entry
            }
            if wait is None:
                return refused
            entries = {number: entries[number] for number in refused}
            time.sleep(wait)
        return {}

    def _not_sent(self, attempt: Attempt, reason: str) -> EventNotSent:
        done = "was rejected" if attempt.error else "is done"
        error = EventNotSent(
            f"the object {done}, but its event could not be sent to the bus {self._bus}: {reason}. It is sent by the "
            "next try. If that goes on, check OUTCOME_BUS, the function's role and the bus's policy."
        )
        if attempt.target:
            error = error.about(attempt.target.bucket, attempt.target.key)
        logger.warning(
            "Event not sent", error_type="EventNotSent", reason=error.reason, bucket=error.bucket, key=error.key
        )
        return error

    def _entry(self, target: S3Object, attempt: Attempt) -> _Entry:
        """The event about an object, as PutEvents takes it."""
        detail = _detail(target, attempt)
        images: list[PushedImage] = detail["images"] or []
        resources = [f"arn:{self._partition}:s3:::{target.bucket}/{target.key}"]
        entry: _Entry = {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": REJECTED if attempt.error else MIRRORED,
        }
        room = _MOST_BYTES - _size({**entry, "Detail": json.dumps({**detail, "images": []}), "Resources": resources})
        for number, image in enumerate(images):
            arn = self._repositories + image["repository"]
            added = [arn] if arn not in resources else []
            room -= len(json.dumps(image)) + len(", ") + sum(map(len, added))
            if room < len('"images-left-out": 1000000, '):
                detail |= {"images": images[:number], "images-left-out": len(images) - number}
                break
            resources += added
        return {**entry, "Detail": json.dumps(detail), "Resources": resources}


def _detail(target: S3Object, attempt: Attempt) -> dict[str, Any]:
    """What the event says. What is not known is `None`."""
    outcome, error = attempt.outcome, attempt.error
    result: Mapping[str, Any] = {} if isinstance(outcome, S3ToEcrError) else {"images": [], **outcome}
    reason = error.reason if error else result["reason"]
    return {
        "bucket": target.bucket,
        "key": target.key,
        "version-id": target.version_id,
        "etag": target.etag,
        "action": result.get("action"),
        "repository": result.get("repository"),
        "images": result.get("images"),
        "digest": result.get("digest"),
        "size": result.get("size", target.size),
        "seconds": round(attempt.seconds, 3),
        "error-type": type(error).__name__ if error else None,
        "reason": reason and readable(reason),
    }


def _announced(attempt: Attempt) -> S3Object | None:
    """The object that an event is sent about; `None` if there is none, or it may be tried again, or is ignored."""
    outcome = attempt.outcome
    ignored = not isinstance(outcome, S3ToEcrError) and outcome["action"] == "ignored"
    return attempt.target if attempt.has_ended and not ignored else None


def _batches(entries: dict[int, _Entry]) -> Iterator[list[int]]:
    """The numbers of the entries that go together in one call."""
    batch: list[int] = []
    size = 0
    for number, entry in entries.items():
        if batch and (len(batch) == MOST_ENTRIES or size + _size(entry) > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += _size(entry)
    if batch:
        yield batch


def _size(entry: _Entry) -> int:
    """The size of an event in bytes, as EventBridge counts it."""
    texts = [entry["Source"], entry["DetailType"], entry["Detail"], *entry["Resources"]]
    return sum(len(text.encode()) for text in texts)
