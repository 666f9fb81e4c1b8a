"""Objects that cannot be mirrored get a clear error, upload nothing under a wrong digest, and stop no other object."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import pytest

from local.invocation import Invocation
from local.stack import BUCKET, Stack
from s3_to_ecr import errors
from s3_to_ecr.errors import S3ToEcrError
from s3_to_ecr.event_sources.notifications import read_record
from s3_to_ecr.layouts import route
from tests.conftest import Load, sqs_message
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.s3 import Bytes, S3Double, Stored
from tests.doubles.server import Fault

GOOD = b"a good layer"
GOOD_DIGEST = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
OTHER_HEX = "0" * 64


@dataclass(frozen=True)
class Bad:
    """A bad object. `stored` is what the bucket holds under `key`, or `None` if there is no object."""

    key: str
    error: type[S3ToEcrError]
    reason: str
    stored: bytes | None = b"some bytes"
    event: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


BAD = {
    "empty object": Bad("app/empty", errors.EmptyBlob, "is empty", stored=b"", event={"size": 0}),
    "no repository": Bad("no-folder", errors.RepositoryNotNamed, "DEFAULT_REPOSITORY"),
    "invalid repository": Bad("My App/file", errors.InvalidRepositoryName, "'My App'"),
    "missing repository": Bad("nowhere/file", errors.RepositoryMissing, "repository nowhere"),
    "wrong digest": Bad(f"app/sha256:{OTHER_HEX}", errors.DigestMismatch, "digest that its key names"),
    "wrong digest, no algorithm": Bad(f"app/{OTHER_HEX}", errors.DigestMismatch, "digest that its key names"),
    "changed": Bad("app/changed", errors.ObjectChanged, "event of its own", event={"eTag": "an-older-one"}),
    "deleted": Bad("app/deleted", errors.ObjectMissing, "deleted after the event", stored=None),
    "shorter than in the event": Bad("app/short", errors.ObjectChanged, "event of its own", event={"size": 11}),
    "longer than in the event": Bad("app/long", errors.ObjectChanged, "has 10 bytes, not 9", event={"size": 9}),
    "archived": Bad("app/cold", errors.ObjectArchived, "Restore", fault=Fault("InvalidObjectState", 403)),
    "no permission": Bad("app/secret", errors.AccessDenied, "s3:GetObject", fault=Fault("AccessDenied", 403)),
    "not a size": Bad("app/odd", errors.MalformedEvent, "number of bytes", event={"size": "ten"}),
}


def record(key: str, body: bytes, **changes: Any) -> dict[str, Any]:
    s3_object = {"key": quote_plus(key), "size": len(body), "eTag": etag(body), "sequencer": uuid.uuid4().hex}
    return {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": s3_object | changes},
    }


def etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@pytest.fixture
def handler(stack: Stack, s3_double: S3Double, strict_ecr: EcrDouble, load_handler: Load) -> Function:
    s3_double.objects["app/good"] = Stored(Bytes(GOOD), etag(GOOD))
    endpoints = {"AWS_ENDPOINT_URL_S3": s3_double.url, "AWS_ENDPOINT_URL_ECR": strict_ecr.url}
    while stack.sqs.receive_message(QueueUrl=stack.dead_letter_queue_url).get("Messages"):
        stack.sqs.purge_queue(QueueUrl=stack.dead_letter_queue_url)
    return load_handler(stack.environment | endpoints)


def prepare(bad: Bad, s3_double: S3Double) -> dict[str, Any]:
    """Puts the bad object into the bucket, and returns its record."""
    body = bad.stored if bad.stored is not None else b"some bytes"
    if bad.stored is not None:
        s3_double.objects[bad.key] = Stored(Bytes(bad.stored), etag(bad.stored))
    if bad.fault:
        s3_double.faults.add("GetObject", bad.fault)
    return record(bad.key, body, **bad.event)


def only_the_good_layer(strict_ecr: EcrDouble) -> bool:
    return {name: repository.layers for name, repository in strict_ecr.repositories.items()} == {
        "app": {GOOD_DIGEST: GOOD}
    }


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_a_bad_object_fails_the_invocation_after_the_good_one_is_uploaded(
    bad: Bad,
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
    context: Invocation,
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    event = {"Records": [prepare(bad, s3_double), record("app/good", GOOD)]}

    with pytest.raises(bad.error, match=bad.reason) as raised:
        handler.lambda_handler(event, context)

    assert str(raised.value).startswith(f"s3://{BUCKET}/{bad.key}: ")
    assert only_the_good_layer(strict_ecr)
    [rejection] = [line for line in logs() if line["message"] == "Rejected"]
    assert (rejection["level"], rejection["error_type"]) == ("ERROR", bad.error.__name__)
    # Errors that the user has to fix have no stack trace.
    assert "exception" not in rejection
    assert "stack_trace" not in rejection


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_a_bad_object_goes_to_the_dead_letter_queue_once_with_its_reason(
    bad: Bad,
    handler: Function,
    stack: Stack,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
    context: Invocation,
    metrics: Callable[[], dict[str, Any]],
) -> None:
    several = {"Records": [prepare(bad, s3_double), record("app/good", GOOD)]}

    assert handler.lambda_handler({"Records": [sqs_message(json.dumps(several))]}, context) == {"batchItemFailures": []}

    assert only_the_good_layer(strict_ecr)
    [dead] = stack.sqs.receive_message(
        QueueUrl=stack.dead_letter_queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    attributes = {name: value["StringValue"] for name, value in dead["MessageAttributes"].items()}
    assert attributes["ErrorType"] == bad.error.__name__
    assert bad.reason in attributes["Reason"]
    assert (attributes["Bucket"], attributes["Key"]) == (BUCKET, bad.key)
    # The report is the rejected record alone, ready to be sent again.
    assert json.loads(dead["Body"]) == {"Records": several["Records"][:1]}
    counted = metrics()
    assert (counted["Rejected"], counted["LayersUploaded"]) == (1, 1)


def test_a_body_that_is_not_an_event_does_not_stop_the_other_messages(
    handler: Function, stack: Stack, strict_ecr: EcrDouble, context: Invocation
) -> None:
    bodies = ["hello", '{"Records": [{"eventSource": "aws:sns"}]}', json.dumps({"Records": [record("app/good", GOOD)]})]
    messages = [sqs_message(body, number) for number, body in enumerate(bodies)]

    assert handler.lambda_handler({"Records": messages}, context) == {"batchItemFailures": []}

    assert only_the_good_layer(strict_ecr)
    dead = stack.sqs.receive_message(
        QueueUrl=stack.dead_letter_queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    assert sorted(message["Body"] for message in dead) == sorted(bodies[:2])
    assert {message["MessageAttributes"]["ErrorType"]["StringValue"] for message in dead} == {"MalformedEvent"}


def test_the_error_for_an_unknown_event_quotes_it(handler: Function, context: Invocation) -> None:
    with pytest.raises(errors.MalformedEvent, match="hello"):
        handler.lambda_handler({"hello": "world"}, context)


def test_several_bad_objects_are_all_reported(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    records = [prepare(BAD["empty object"], s3_double), record("app/good", GOOD), prepare(BAD["deleted"], s3_double)]

    with pytest.raises(ExceptionGroup, match=r"2 objects failed: s3://.*app/empty.*app/deleted") as raised:
        handler.lambda_handler({"Records": records}, context)

    assert [type(error) for error in raised.value.exceptions] == [errors.EmptyBlob, errors.ObjectMissing]
    assert only_the_good_layer(strict_ecr)


def test_results_are_in_the_order_of_the_records(handler: Function, s3_double: S3Double, context: Invocation) -> None:
    s3_double.objects["app/other"] = Stored(Bytes(b"other"), etag(b"other"))
    removed = record("app/gone", b"") | {"eventName": "ObjectRemoved:Delete"}
    records = [record("app/folder/", b""), record("app/good", GOOD), removed, record("app/other", b"other")]

    answer = handler.lambda_handler({"Records": records}, context)

    assert [(result["key"], result["action"]) for result in answer["results"]] == [
        ("app/folder/", "ignored"),
        ("app/good", "uploaded"),
        ("app/gone", "ignored"),
        ("app/other", "uploaded"),
    ]
    assert set(answer["results"][0]) == set(answer["results"][1])


def test_an_outage_puts_the_message_back_without_a_dead_letter(
    handler: Function, stack: Stack, strict_ecr: EcrDouble, context: Invocation
) -> None:
    strict_ecr.faults.add("InitiateLayerUpload", Fault("RepositoryBusyException"))
    message = sqs_message(json.dumps({"Records": [record("app/good", GOOD)]}))

    answer = handler.lambda_handler({"Records": [message]}, context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
    assert "Messages" not in stack.sqs.receive_message(QueueUrl=stack.dead_letter_queue_url)

    # The next delivery does the work.
    assert handler.lambda_handler({"Records": [message]}, context) == {"batchItemFailures": []}
    assert only_the_good_layer(strict_ecr)


def test_a_bug_in_reading_a_record_does_not_stop_the_others(
    handler: Function, strict_ecr: EcrDouble, context: Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(record: dict[str, Any]) -> Any:
        if record["s3"]["object"]["key"] == "app%2Fbug":
            raise ZeroDivisionError("a bug")
        return read_record(record)

    monkeypatch.setattr("s3_to_ecr.dispatcher.read_record", buggy)
    with pytest.raises(errors.Unexpected, match="ZeroDivisionError: a bug"):
        handler.lambda_handler({"Records": [record("app/bug", b"x"), record("app/good", GOOD)]}, context)
    assert only_the_good_layer(strict_ecr)


def test_a_bug_in_one_object_does_not_stop_the_others(
    handler: Function, strict_ecr: EcrDouble, context: Invocation, logs: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def buggy(key: str, settings: Any) -> Any:
        if key == "app/bug":
            raise ZeroDivisionError("a bug")
        return route(key, settings)

    monkeypatch.setattr("s3_to_ecr.dispatcher.route", buggy)
    with pytest.raises(errors.Unexpected, match=r"^s3://.*/app/bug: .*ZeroDivisionError: a bug"):
        handler.lambda_handler({"Records": [record("app/bug", b"x"), record("app/good", GOOD)]}, context)

    assert only_the_good_layer(strict_ecr)
    [line] = [line for line in logs() if line["message"].startswith("Unexpected error")]
    assert (line["key"], line["exception_name"]) == ("app/bug", "ZeroDivisionError")
