"""Notifications of new objects, from S3 itself or by way of EventBridge, read and answered.

An event holds *records*, one for each object. In a notification by S3 (sent directly, or as the body of an SQS message)
they are the members of `Records`. An EventBridge event is its own only record. In S3 Batch Operations they are the
`tasks`. `records` finds them, and `read_record` reads one. So a record that cannot be read does not affect the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard
from urllib.parse import unquote_plus

from s3_to_ecr.errors import MalformedEvent, concerning
from s3_to_ecr.results import Attempt
from s3_to_ecr.s3_objects import OtherEvent, S3Object
from s3_to_ecr.telemetry.metrics import count
from s3_to_ecr.text import readable, shortened

# S3 sends one record at a time. Every record may have to be reported, and there must be time for that.
_MOST_RECORDS = 100

# S3's longest key, encoded as UTF-8. Buckets, versions and ETags are shorter.
_MOST_BYTES = 1024

# How much of an unreadable event goes into the error: enough to recognise it, not enough to flood a log.
_EXCERPT_CHARACTERS = 200


def answer(attempts: list[Attempt]) -> dict[str, Any]:
    """The answer for records that have been run: their results in order.

    If any record failed, raises its error, or an `ExceptionGroup` of several.
    """
    match [attempt.error for attempt in attempts if attempt.error]:
        case []:
            return {"results": [attempt.outcome for attempt in attempts]}
        case [only]:
            raise only
        case several:
            message = f"{len(several)} objects failed: " + "; ".join(map(str, several))
            raise ExceptionGroup(readable(message), several)


def run_records(notification: object, run_record: Callable[[dict[str, Any]], Attempt]) -> list[Attempt]:
    """Runs every record of a notification, in order. Raises `MalformedEvent` if it is not a notification."""
    found = records(notification)
    count("Records", len(found))
    return [run_record(record) for record in found]


def is_sqs(event: object) -> bool:
    """Whether Lambda polled the event from an SQS queue."""
    return _event_source(event) == "aws:sqs"


def is_batch_operations(event: object) -> TypeGuard[dict[str, Any]]:
    """Whether a job of S3 Batch Operations invoked the function."""
    return isinstance(event, dict) and "invocationSchemaVersion" in event


def parse_body(body: str) -> object:
    """The notification that an SQS message carries. Raises `MalformedEvent` if its body is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedEvent(f"the message body is not JSON: {shortened(body, _EXCERPT_CHARACTERS)}") from None


def records(notification: object) -> list[dict[str, Any]]:
    """The records of a notification: none for S3's own test message. Raises `MalformedEvent` for anything else."""
    if isinstance(notification, dict):
        if notification.get("Event") == "s3:TestEvent":
            return []
        if _is_eventbridge(notification):
            return [notification]
        found = notification.get("Records")
        # Each record is judged by itself later, but at least one must show that the list comes from S3.
        if isinstance(found, list) and any(_is_s3_record(record) for record in found):
            if len(found) > _MOST_RECORDS:
                raise MalformedEvent(f"the notification has {len(found):,} records, more than {_MOST_RECORDS}.")
            return found
    raise MalformedEvent(
        f"expected an S3 notification or an EventBridge event of source aws.s3, received {_excerpt(notification)}"
    )


def read_record(record: object) -> S3Object | OtherEvent:
    """The object that a record announces. Raises `MalformedEvent` if the record does not say which one that is."""
    if _is_eventbridge(record):
        return _from_eventbridge(record)
    if _is_s3_record(record):
        return _from_s3(record)
    if _is_task(record):
        return _from_task(record)
    raise MalformedEvent(f"expected an S3 event record, received {_excerpt(record)}")


def as_notification(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """One record on its own, as a notification that `records` accepts."""
    return record if _is_eventbridge(record) else {"Records": [record]}


def _from_s3(record: Mapping[str, Any]) -> S3Object | OtherEvent:
    s3 = _member(record, "s3", dict)
    s3_object = _member(s3, "object", dict)
    bucket = _text(_member(s3, "bucket", dict), "name")
    # S3 form-encodes the key in its notifications: a space is `+`, a plus sign `%2B`.
    key = _text(s3_object, "key", unquote_plus)
    name = _text(record, "eventName")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return OtherEvent(bucket, key, name)
    with concerning(bucket, key):
        return _created(bucket, key, s3_object, version_id="versionId", etag="eTag")


def _from_eventbridge(event: Mapping[str, Any]) -> S3Object | OtherEvent:
    detail = _member(event, "detail", dict)
    s3_object = _member(detail, "object", dict)
    bucket = _text(_member(detail, "bucket", dict), "name")
    # EventBridge does not encode the key, so decoding it would change it.
    key = _text(s3_object, "key")
    name = _text(event, "detail-type")
    if name != "Object Created":
        return OtherEvent(bucket, key, name)
    with concerning(bucket, key):
        return _created(bucket, key, s3_object, version_id="version-id", etag="etag")


def _from_task(task: Mapping[str, Any]) -> S3Object:
    # Schema 1.0 has the bucket's ARN, 2.0 its name. Both form-encode the key, as S3's manifests do.
    bucket = _text(task, "s3Bucket") if "s3Bucket" in task else _text(task, "s3BucketArn").rpartition(":")[2]
    return S3Object(bucket, _text(task, "s3Key", unquote_plus), version_id=_optional_text(task, "s3VersionId"))


def _created(bucket: str, key: str, s3_object: Mapping[str, Any], *, version_id: str, etag: str) -> S3Object:
    size = s3_object.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise MalformedEvent(f"the object's size is {_excerpt(size)}, not a number of bytes")
    return S3Object(
        bucket=bucket,
        key=key,
        version_id=_optional_text(s3_object, version_id),
        etag=(_optional_text(s3_object, etag) or "").strip('"') or None,
        size=size,
        sequencer=_optional_text(s3_object, "sequencer"),
    )


def _event_source(event: object) -> object:
    """The `eventSource` of a Lambda event's first record."""
    found = event.get("Records") if isinstance(event, dict) else None
    first = found[0] if isinstance(found, list) and found else None
    return first.get("eventSource") if isinstance(first, dict) else None


def _is_s3_record(record: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(record, dict) and (record.get("eventSource") == "aws:s3" or "s3" in record)


def _is_eventbridge(record: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(record, dict) and record.get("source") == "aws.s3" and "detail-type" in record


def _is_task(record: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(record, dict) and "taskId" in record


def _member(parent: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    found = parent.get(name)
    if not isinstance(found, kind):
        raise MalformedEvent(f"the S3 event lacks a valid {name!r}: {_excerpt(parent)}")
    return found


def _text(parent: Mapping[str, Any], name: str, decoded: Callable[[str], str] = str) -> str:
    found = decoded(_member(parent, name, str))
    if not found:
        raise MalformedEvent(f"the S3 event has an empty {name!r}: {_excerpt(parent)}")
    if not is_unicode(found):
        raise MalformedEvent(f"the S3 event's {name!r} is not valid Unicode: {_excerpt(parent)}")
    if len(found.encode()) > _MOST_BYTES:
        raise MalformedEvent(f"the S3 event's {name!r} has more than {_MOST_BYTES:,} bytes: {_excerpt(parent)}")
    return found


def _optional_text(parent: Mapping[str, Any], name: str) -> str | None:
    return _text(parent, name) if parent.get(name) else None


def is_unicode(text: str) -> bool:
    """Whether a text can be sent anywhere: JSON can name half a character, and no AWS API accepts one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _excerpt(value: object) -> str:
    try:
        return shortened(json.dumps(value, default=repr), _EXCERPT_CHARACTERS)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is nested too deeply to show"
