from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_to_ecr.errors import EmptyBlob, MalformedEvent
from s3_to_ecr.event_sources import notifications as events
from s3_to_ecr.results import Attempt
from s3_to_ecr.s3_objects import OtherEvent, S3Object

TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["Records", "s3", "detail"]), inner),
)


def s3_record(key: str = "app/layer", name: str = "ObjectCreated:Put", **more: Any) -> dict[str, Any]:
    s3_object = {"key": key, "size": 7, "eTag": "e7a6", "sequencer": "0A1B"} | more
    return {"eventSource": "aws:s3", "eventName": name, "s3": {"bucket": {"name": "bucket"}, "object": s3_object}}


def eventbridge(key: str = "app/layer", kind: str = "Object Created", **more: Any) -> dict[str, Any]:
    s3_object = {"key": key, "size": 7, "etag": "e7a6", "sequencer": "0A1B"} | more
    detail = {"bucket": {"name": "bucket"}, "object": s3_object, "reason": "PutObject"}
    return {"source": "aws.s3", "detail-type": kind, "detail": detail}


def only(notification: object) -> S3Object | OtherEvent:
    [record] = events.records(notification)
    return events.read_record(record)


@pytest.mark.parametrize("kind", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
def test_every_way_to_create_an_object_is_read_from_a_notification(kind: str) -> None:
    record = s3_record(name=f"ObjectCreated:{kind}", versionId="v1")

    assert only({"Records": [record]}) == S3Object("bucket", "app/layer", "v1", "e7a6", 7, "0A1B")


def test_an_eventbridge_event_gives_the_same_object() -> None:
    assert only(eventbridge(**{"version-id": "v1"})) == only({"Records": [s3_record(versionId="v1")]})


@pytest.mark.parametrize("bucket", [{"s3BucketArn": "arn:aws-cn:s3:::bucket"}, {"s3Bucket": "bucket"}])
def test_a_task_of_batch_operations_is_read(bucket: dict[str, str]) -> None:
    task = {"taskId": "1", "s3Key": "app/a+b%2Bc%C3%A4", "s3VersionId": "v1"} | bucket

    assert events.read_record(task) == S3Object("bucket", "app/a b+cä", "v1")
    assert events.read_record(task | {"s3VersionId": None}) == S3Object("bucket", "app/a b+cä")


def test_an_unversioned_bucket_gives_no_version() -> None:
    assert only({"Records": [s3_record()]}) == only(eventbridge()) == S3Object(
        "bucket", "app/layer", None, "e7a6", 7, "0A1B"
    )  # fmt: skip


def test_details_that_an_event_lacks_are_none() -> None:
    record = {"s3": {"bucket": {"name": "bucket"}, "object": {"key": "app/layer"}}, "eventName": "ObjectCreated:Put"}

    assert only({"Records": [record]}) == S3Object("bucket", "app/layer")


KEYS = ["a b", "a+b", "a%2Bb", "100%", "%", "%25", "a%20b", "Grüße", "✨🚀", "a b+c%2Bd%/Ä ✨/", "a\tb", "a=b&c=d"]


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_decoded_exactly_once(key: str) -> None:
    # S3 form-encodes the keys of its notifications, EventBridge does not encode them.
    for encoded in (quote_plus(key), quote_plus(key, safe="/")):
        found = only({"Records": [s3_record(encoded)]})
        assert found.key == key
    assert only(eventbridge(key)).key == key


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_any_key_is_decoded_exactly_once(key: str) -> None:
    assert only({"Records": [s3_record(quote_plus(key))]}).key == key
    assert only(eventbridge(key)).key == key


def test_records_keep_their_order() -> None:
    found = events.records({"Records": [s3_record("one"), s3_record("two"), s3_record("three")]})

    assert [events.read_record(record).key for record in found] == ["one", "two", "three"]


def test_the_test_event_has_no_records() -> None:
    assert events.records(TEST_EVENT) == []


def test_other_s3_events_are_recognised() -> None:
    assert only({"Records": [s3_record(name="ObjectRemoved:Delete")]}) == OtherEvent(
        "bucket", "app/layer", "ObjectRemoved:Delete"
    )
    assert only(eventbridge(kind="Object Deleted")) == OtherEvent("bucket", "app/layer", "Object Deleted")


@pytest.mark.parametrize(
    "notification",
    [{"Records": []}, {"Records": [{"eventSource": "aws:sns"}]}, {"source": "aws.ec2", "detail-type": "x"}, {}, [], 7,
     None, "text"],
)  # fmt: skip
def test_any_other_event_is_quoted_in_the_error(notification: object) -> None:
    with pytest.raises(MalformedEvent) as raised:
        events.records(notification)

    assert json.dumps(notification) in str(raised.value)


def test_an_error_shows_only_the_ends_of_a_long_event() -> None:
    with pytest.raises(MalformedEvent) as raised:
        events.records({"text": "x" * 100_000})

    assert len(str(raised.value)) < 400


def test_a_body_that_is_not_json_is_quoted_in_the_error() -> None:
    with pytest.raises(MalformedEvent, match="not JSON: hello"):
        events.parse_body("hello")


@pytest.mark.parametrize(
    "record",
    [
        {"eventSource": "aws:s3"},
        {"s3": 7, "eventName": "ObjectCreated:Put"},
        s3_record(key=""),
        s3_record(size="7"),
        s3_record(size=-1),
        s3_record(size=True),
        s3_record(eTag=7),
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": "bucket"}}},
        eventbridge(key="app/half a character \ud83d"),
        {"taskId": "1", "s3Key": "app/layer"},
        {"taskId": "1", "s3Key": "", "s3Bucket": "bucket"},
        {"taskId": "1", "s3Key": "k" * 1025, "s3Bucket": "bucket"},
        eventbridge() | {"detail-type": {}},
        eventbridge(kind="half \ud83d"),
        s3_record(key="%C3%A9" * 513),
        s3_record(versionId="v" * 1025),
        None,
        7,
    ],
)
def test_an_unreadable_record_does_not_affect_the_others(record: object) -> None:
    assert events.records({"Records": [s3_record(), record]}) == [s3_record(), record]
    with pytest.raises(MalformedEvent):
        events.read_record(record)


def test_the_longest_key_is_read() -> None:
    assert only({"Records": [s3_record(key="%C3%A9" * 512)]}).key == "é" * 512


def test_a_member_that_is_nested_too_deeply_is_malformed() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(MalformedEvent, match="size"):
        events.read_record(s3_record(size=nested))


def test_the_error_for_many_records_is_short() -> None:
    failures: list[Any] = [Attempt(None, EmptyBlob("x" * 1000), 0) for _ in range(100)]

    with pytest.raises(ExceptionGroup) as raised:
        events.answer(failures)

    assert str(raised.value).startswith("100 objects failed: xxx")
    assert len(raised.value.message) == 1024


@pytest.mark.slow
@given(JSON)
def test_any_event_is_read_or_malformed(notification: object) -> None:
    try:
        for record in events.records(notification):
            events.read_record(record)
    except MalformedEvent:
        pass


@pytest.mark.parametrize("depth", [500, 900, 1000, 100_000])
def test_a_body_that_is_nested_too_deeply_is_malformed(depth: int) -> None:
    with pytest.raises(MalformedEvent):
        events.records(events.parse_body("[" * depth + "]" * depth))


def test_an_event_that_is_nested_too_deeply_is_malformed() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(MalformedEvent, match="a list that is nested too deeply"):
        events.records(nested)


def test_only_sqs_events_are_recognised_as_sqs() -> None:
    assert events.is_sqs({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]})
    assert not events.is_sqs({"Records": [s3_record()]})
    others: list[object] = [eventbridge(), {"Records": []}, {"Records": 7}, {}, [], None]
    assert not any(events.is_sqs(event) for event in others)


@pytest.mark.parametrize("record", [s3_record("a+b%2Bc"), eventbridge("a+b%2Bc")])
def test_a_record_in_its_own_notification_is_read_as_before(record: dict[str, Any]) -> None:
    assert only(events.as_notification(record)) == events.read_record(record)
