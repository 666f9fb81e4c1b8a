from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from s3_to_ecr.content import Blob, DigestReader, open_blob
from s3_to_ecr.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RequestRefused,
    S3ToEcrError,
    ServiceUnavailable,
)
from s3_to_ecr.events import ObjectCreated
from tests.conftest import ONE_ATTEMPT, stubbed

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


@pytest.fixture
def s3() -> S3Client:
    return boto3.client("s3", config=ONE_ATTEMPT)


@pytest.fixture
def stub(s3: S3Client) -> Iterator[Stubber]:
    with stubbed(s3) as stub:
        yield stub


def answer(body: bytes, promised: int | None = None) -> dict[str, Any]:
    return {"Body": StreamingBody(io.BytesIO(body), len(body) if promised is None else promised)}


def asked(span: str, **pin: str) -> dict[str, str]:
    return {"Bucket": "bucket", "Key": "app/x", "Range": span, **pin}


@pytest.mark.parametrize(
    ("version_id", "etag", "pin"),
    [
        ("v1", "e7a6", {"VersionId": "v1"}),
        (None, "e7a6", {"IfMatch": '"e7a6"'}),
        ("null", "e7a6", {"IfMatch": '"e7a6"'}),  # a suspended bucket's version, which can be overwritten
    ],
)
def test_reads_are_ranges_pinned_to_what_the_event_spoke_of(
    s3: S3Client, stub: Stubber, version_id: str | None, etag: str, pin: dict[str, str]
) -> None:
    stub.add_response("get_object", answer(b"4567"), asked("bytes=4-7", **pin))

    assert Blob(s3, "bucket", "app/x", version_id, etag, 10, 10).read(4, 4) == b"4567"


def test_a_blob_inside_an_object_is_read_from_its_offset(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"4567"), asked("bytes=1004-1007", VersionId="v1"))

    assert Blob(s3, "bucket", "app/x", "v1", None, 10, 2000, offset=1000).read(4, 4) == b"4567"


def test_a_body_that_breaks_off_is_read_again(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"45", promised=4))
    stub.add_response("get_object", answer(b"4567"))

    assert Blob(s3, "bucket", "app/x", "v1", None, 10, 10).read(4, 4) == b"4567"


def test_a_body_that_keeps_breaking_off_is_left_to_the_queue(s3: S3Client, stub: Stubber) -> None:
    for _ in range(3):
        stub.add_response("get_object", answer(b"45", promised=4))

    with pytest.raises(ServiceUnavailable, match=r"s3://bucket/app/x broke off 3 times"):
        Blob(s3, "bucket", "app/x", "v1", None, 10, 10).read(4, 4)


def test_an_object_shorter_than_its_event_says_is_not_taken(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"45"))

    with pytest.raises(ObjectChanged, match="no 4 bytes from byte 4 on"):
        Blob(s3, "bucket", "app/x", "v1", None, 10, 10).read(4, 4)


def test_an_object_longer_than_its_event_says_is_not_cut_short(s3: S3Client, stub: Stubber) -> None:
    raw = io.BytesIO(b"4567")
    stub.add_response("get_object", {"Body": StreamingBody(raw, 4), "ContentRange": "bytes 4-7/11"})

    with pytest.raises(ObjectChanged, match="has 11 bytes, not 10"):
        Blob(s3, "bucket", "app/x", "v1", None, 10, 10).read(4, 4)
    assert raw.closed  # or its connection would be lost


@pytest.mark.parametrize(
    ("code", "status", "error", "told"),
    [
        ("NoSuchKey", 404, ObjectMissing, "deleted since the event"),
        ("NoSuchVersion", 404, ObjectMissing, "deleted since the event"),
        ("NoSuchBucket", 404, ObjectMissing, "deleted since the event"),
        ("MethodNotAllowed", 405, ObjectMissing, "deleted since the event"),
        ("PreconditionFailed", 412, ObjectChanged, "its newer version has an event of its own"),
        ("InvalidRange", 416, ObjectChanged, "its newer version has an event of its own"),
        ("InvalidObjectState", 403, ObjectArchived, "Restore the object"),
        ("AccessDenied", 403, AccessDenied, "may also be a missing object"),
        ("InvalidArgument", 400, RequestRefused, "not one that S3 can have"),
        ("KeyTooLongError", 400, RequestRefused, "not one that S3 can have"),
        ("SlowDown", 503, ServiceUnavailable, ""),
        ("InternalError", 500, ServiceUnavailable, ""),
    ],
)
def test_every_answer_has_its_error(
    s3: S3Client, stub: Stubber, code: str, status: int, error: type[S3ToEcrError], told: str
) -> None:
    stub.add_client_error("get_object", code, http_status_code=status)

    with pytest.raises(error, match=rf"^reading s3://bucket/app/x failed with {code}.*{told}"):
        Blob(s3, "bucket", "app/x", "v1", None, 10, 10).read(0, 4)


def test_a_blob_is_opened_without_a_call_when_the_event_tells_all(s3: S3Client, stub: Stubber) -> None:
    assert stub
    created = ObjectCreated("bucket", "app/x", "v1", "e7a6", 10)

    assert open_blob(s3, created) == Blob(s3, "bucket", "app/x", "v1", "e7a6", 10, 10)


def test_s3_is_asked_for_what_the_event_does_not_tell(s3: S3Client, stub: Stubber) -> None:
    head = {"ContentLength": 10, "ETag": '"e7a6"'}
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x"})
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x", "VersionId": "v1"})
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x"})

    assert open_blob(s3, ObjectCreated("bucket", "app/x", size=99)) == Blob(s3, "bucket", "app/x", None, "e7a6", 10, 10)
    # Without an ETag, the version "null" could be overwritten while it is read.
    null = ObjectCreated("bucket", "app/x", "null", size=10)
    assert open_blob(s3, ObjectCreated("bucket", "app/x", "v1")) == Blob(s3, "bucket", "app/x", "v1", "e7a6", 10, 10)
    assert open_blob(s3, null) == Blob(s3, "bucket", "app/x", "null", "e7a6", 10, 10)


@pytest.mark.parametrize(("code", "error"), [("404", ObjectMissing), ("403", AccessDenied), ("412", ObjectChanged)])
def test_a_head_has_no_body_to_name_its_error(
    s3: S3Client, stub: Stubber, code: str, error: type[S3ToEcrError]
) -> None:
    stub.add_client_error("head_object", code, http_status_code=int(code))

    with pytest.raises(error, match=r"^looking up s3://bucket/app/x"):
        open_blob(s3, ObjectCreated("bucket", "app/x"))


class _Memory(Blob):
    def read(self, first: int, length: int) -> bytes:
        return b"0123456789"[first : first + length]


def reader(s3: S3Client, digest: str | None) -> DigestReader:
    return DigestReader(_Memory(s3, "bucket", "app/x", None, None, 10, 10), digest)


def test_a_digest_counts_every_byte_once_however_often_it_is_read(s3: S3Client) -> None:
    hashing = reader(s3, None)
    for first, length in [(0, 4), (4, 4), (2, 4), (0, 4), (6, 4), (8, 2)]:
        assert hashing.read(first, length) == b"0123456789"[first : first + length]

    assert hashing.digest == f"sha256:{hashlib.sha256(b'0123456789').hexdigest()}"
    assert hashing.furthest == 10
    assert not hashing.is_known


def test_a_known_digest_is_taken_at_its_word(s3: S3Client) -> None:
    known = reader(s3, "sha256:known")
    known.read(0, 10)

    assert (known.digest, known.is_known, known.furthest) == ("sha256:known", True, 10)
