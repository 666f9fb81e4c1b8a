"""One shape for what S3 says, whoever carried it.

A carrier's event holds *records*, one an object: of a notification sent by S3 itself (directly, or as the body of an
SQS message) each member of `Records`; of EventBridge the event itself; of S3 Batch Operations each of its `tasks`.
`records` finds them, `object_created` reads one, so that a record that cannot be read stands in no other's way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import unquote_plus

from s3_to_ecr.errors import MalformedEvent, concerning

# How much of an unreadable event goes into the error: enough to know it by, not enough to flood a log.
_EXCERPT_CHARACTERS = 200


@dataclass(frozen=True)
class ObjectCreated:
    """An object that was put into a bucket. `key` is decoded; `etag` is unquoted; `size` is in bytes.

    Everything but bucket and key may be missing from a hand-written event. `sequencer` orders the writes to one key.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None
    sequencer: str | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class OtherEvent:
    """A well-formed S3 event that does not announce a new object, such as a deletion."""

    bucket: str
    key: str
    name: str


def is_sqs(event: object) -> bool:
    """Whether Lambda polled the event from an SQS queue."""
    return _event_source(event) == "aws:sqs"


def is_batch_operations(event: object) -> TypeGuard[dict[str, Any]]:
    """Whether a job of S3 Batch Operations invoked the function."""
    return isinstance(event, dict) and "invocationSchemaVersion" in event


def parse_body(body: str) -> object:
    """The notification that an SQS message carries; raises `MalformedEvent` when its body is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedEvent(f"the message body is not JSON: {_shortened(body)}") from None


def records(notification: object) -> list[dict[str, Any]]:
    """The records of a notification, none for S3's own test message; raises `MalformedEvent` for anything else."""
    if isinstance(notification, dict):
        if notification.get("Event") == "s3:TestEvent":
            return []
        if _is_eventbridge(notification):
            return [notification]
        found = notification.get("Records")
        # Each record answers for itself later, but one of them must show that the list is S3's.
        if isinstance(found, list) and any(_is_s3_record(record) for record in found):
            return found
    raise MalformedEvent(
        f"expected an S3 notification or an EventBridge event of source aws.s3, received {_excerpt(notification)}"
    )


def object_created(record: object) -> ObjectCreated | OtherEvent:
    """Reads one record; raises `MalformedEvent` when it does not say which object it is about."""
    if _is_eventbridge(record):
        return _from_eventbridge(record)
    if _is_s3_record(record):
        return _from_s3(record)
    if _is_task(record):
        return _from_task(record)
    raise MalformedEvent(f"expected an S3 event record, received {_excerpt(record)}")


def as_notification(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """One record on its own, in the form its carrier brought it: what `records` takes apart again."""
    return record if _is_eventbridge(record) else {"Records": [record]}


def _from_s3(record: Mapping[str, Any]) -> ObjectCreated | OtherEvent:
    s3 = _member(record, "s3", dict)
    s3_object = _member(s3, "object", dict)
    bucket = _text(_member(s3, "bucket", dict), "name")
    # S3 form-encodes the key in its notifications: a space is `+`, a plus sign `%2B`.
    key = unquote_plus(_text(s3_object, "key"))
    name = _text(record, "eventName")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return OtherEvent(bucket, key, name)
    with concerning(bucket, key):
        return _created(bucket, key, s3_object, version_id="versionId", etag="eTag")


def _from_eventbridge(event: Mapping[str, Any]) -> ObjectCreated | OtherEvent:
    detail = _member(event, "detail", dict)
    s3_object = _member(detail, "object", dict)
    bucket = _text(_member(detail, "bucket", dict), "name")
    # EventBridge carries the key as it is, so decoding it would change it.
    key = _text(s3_object, "key")
    if event["detail-type"] != "Object Created":
        return OtherEvent(bucket, key, str(event["detail-type"]))
    with concerning(bucket, key):
        return _created(bucket, key, s3_object, version_id="version-id", etag="etag")


def _from_task(task: Mapping[str, Any]) -> ObjectCreated:
    # Schema 1.0 has the bucket's ARN, 2.0 its name. Both form-encode the key, as S3's own manifests do.
    bucket = _text(task, "s3Bucket") if "s3Bucket" in task else _text(task, "s3BucketArn").rpartition(":")[2]
    return ObjectCreated(bucket, unquote_plus(_text(task, "s3Key")), version_id=_optional_text(task, "s3VersionId"))


def _created(bucket: str, key: str, s3_object: Mapping[str, Any], *, version_id: str, etag: str) -> ObjectCreated:
    size = s3_object.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise MalformedEvent(f"the object's size is {size!r}: expected a number of bytes")
    return ObjectCreated(
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
        raise MalformedEvent(f"the S3 event has no {name!r} where one belongs: {_excerpt(parent)}")
    return found


def _text(parent: Mapping[str, Any], name: str) -> str:
    found: str = _member(parent, name, str)
    if not found:
        raise MalformedEvent(f"the S3 event has an empty {name!r}: {_excerpt(parent)}")
    try:
        found.encode()
    except UnicodeEncodeError:  # JSON can name half a character, and no AWS API takes one
        raise MalformedEvent(f"the S3 event's {name!r} is no text: {_excerpt(parent)}") from None
    return found


def _optional_text(parent: Mapping[str, Any], name: str) -> str | None:
    return _text(parent, name) if parent.get(name) else None


def _excerpt(value: object) -> str:
    try:
        return _shortened(json.dumps(value, default=repr))
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is nested too deeply to be shown"


def _shortened(text: str) -> str:
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + " …"
