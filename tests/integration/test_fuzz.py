"""Any event, of any shape and with any key, gets an answer or an error of our own tree."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local.invocation import Invocation
from local.stack import BUCKET
from s3_to_ecr.errors import MalformedEvent, S3ToEcrError, Unexpected
from tests.conftest import Load, sqs_message
from tests.doubles.function import Function
from tests.doubles.s3 import Bytes, S3Double, Stored

# All of Unicode, including lone surrogates, which JSON can express.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)
HEX = st.text("0123456789abcdef", min_size=63, max_size=65)
KEYS = st.one_of(
    TEXT,
    st.builds("/".join, st.lists(st.one_of(TEXT, HEX, st.sampled_from(
        ["app", "blobs", "sha256", "..", "", "a" * 300, "docker/registry/v2", "index.json", "manifests", "My App",
         "image.tar", "layer.tar.gz", "repositories", "_manifests/tags", "current/link"]
    )), max_size=5)),
    st.builds("app/sha256:{}".format, HEX),
)  # fmt: skip


def quote_any(key: str) -> str:
    """Encodes an ASCII key as S3 does. Lone surrogates cannot be encoded, so other keys stay as they are."""
    return quote_plus(key, safe="/", errors="replace") if key.isascii() else key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


RECORD = st.fixed_dictionaries({
    "eventSource": st.just("aws:s3"),
    "eventName": st.sampled_from(["ObjectCreated:Put", "ObjectCreated:Put", "ObjectRemoved:Delete"]),
    "s3": st.fixed_dictionaries({
        "bucket": st.fixed_dictionaries({"name": st.sampled_from([BUCKET, BUCKET, "x", "arn:aws:s3:::b", "Bad!"])}),
        "object": st.fixed_dictionaries({
            "key": KEYS.map(quote_any),
            "size": st.sampled_from([5, 5, 5, 0, 6, -1, 10**30]),
            "eTag": st.sampled_from(["e7a6", "e7a6", "other", '"', ""]),
            "versionId": st.sampled_from(["v1", "v2", "null", None]),
            "sequencer": TEXT,
        }),
    }),
})  # fmt: skip
EVENTBRIDGE = st.fixed_dictionaries({
    "source": st.just("aws.s3"),
    "detail-type": st.sampled_from(["Object Created", "Object Created", "Object Deleted"]),
    "detail": st.fixed_dictionaries({
        "bucket": st.fixed_dictionaries({"name": st.just(BUCKET)}),
        "object": st.fixed_dictionaries({"key": KEYS, "size": st.sampled_from([5, 6, None]), "etag": st.just("e7a6")}),
    }),
})  # fmt: skip
TASK = st.fixed_dictionaries({
    "taskId": TEXT,
    "s3Key": KEYS.map(quote_any),
    "s3VersionId": st.sampled_from(["v1", "v2", None]),
    "s3BucketArn": st.just(f"arn:aws:s3:::{BUCKET}"),
})  # fmt: skip
JOBS = st.fixed_dictionaries({
    "invocationSchemaVersion": st.sampled_from(["1.0", "2.0"]),
    "invocationId": TEXT,
    "tasks": st.lists(TASK, min_size=1, max_size=3),
})  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> Any:
    """A whole value, or one in which some member is missing or replaced."""
    value = draw(whole)
    place, member = None, None
    while isinstance(value if place is None else place[member], (dict, list)) and draw(st.booleans()):
        place = value if place is None else place[member]
        if not place:
            return value
        member = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if place is None:
        return value
    if draw(st.booleans()):
        place[member] = draw(JSON)
    else:
        del place[member]
    return value


NOTIFICATION = st.one_of(
    st.fixed_dictionaries({"Records": st.lists(damaged(RECORD), min_size=1, max_size=3)}),
    damaged(EVENTBRIDGE),
    damaged(st.fixed_dictionaries({"Records": st.lists(RECORD, max_size=2)})),
    JSON,
)

pytestmark = pytest.mark.usefixtures("no_backoff")

FUZZ = settings(max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture
def handler(doubled: dict[str, str], load_handler: Load) -> Any:
    return load_handler(doubled, CREATE_REPOSITORIES="true")


@pytest.fixture(autouse=True)
def _every_object_exists(s3_double: S3Double, monkeypatch: pytest.MonkeyPatch) -> None:
    class Everything(dict[str, Stored]):
        def get(self, *_: Any) -> Any:
            return Stored(Bytes(b"bytes"), etag="e7a6")

    monkeypatch.setattr(s3_double, "objects", Everything())


@FUZZ
@given(NOTIFICATION)
@example(
    {
        "Records": [
            {"s3": {"bucket": {"name": BUCKET}, "object": {"key": "app/\ud83d"}}, "eventName": "ObjectCreated:Put"}
        ]
    }
)
def test_any_event_gets_an_answer_or_an_error_of_our_own(handler: Function, event: Any) -> None:
    errors: list[Exception] = []
    try:
        answer = handler.lambda_handler(event, Invocation())
    except ExceptionGroup as several:
        errors += several.exceptions
    except S3ToEcrError as error:
        errors.append(error)
    else:
        assert set(answer) == {"results"}
    assert all(isinstance(error, S3ToEcrError) and not isinstance(error, Unexpected) for error in errors), errors


@FUZZ
@given(st.one_of(NOTIFICATION.map(json.dumps), TEXT))
def test_any_message_is_done_reported_or_put_back(handler: Function, body: str) -> None:
    answer = handler.lambda_handler({"Records": [sqs_message(body)]}, Invocation())

    # All calls succeed, so nothing has to be retried.
    assert answer == {"batchItemFailures": []}


@FUZZ
@given(damaged(JOBS))
def test_any_job_is_answered_or_refused(handler: Function, event: Any) -> None:
    try:
        answer = handler.lambda_handler(event, Invocation())
    except MalformedEvent:
        return  # such a job cannot be answered
    results = [result.get("resultString", result) for result in answer["results"]]
    assert not [text for text in results if "Unexpected" in text]
