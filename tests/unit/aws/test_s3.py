from __future__ import annotations

import datetime
import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import FlexibleChecksumError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from local.invocation import Invocation
from s3_to_ecr.aws.s3 import ObjectRange, ObjectReader
from s3_to_ecr.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RequestRefused,
    S3ToEcrError,
    ServiceUnavailable,
    TransferCorrupted,
)
from s3_to_ecr.push.read_ahead import RunningDigest
from s3_to_ecr.s3_objects import S3Object
from tests.conftest import ONE_ATTEMPT, stubbed
from tests.doubles.invocation import deadline_of

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


def versioned(s3: S3Client) -> ObjectRange:
    return ObjectRange(s3, "bucket", "app/x", "v1", None, 10, 10)


def opened(s3: S3Client, target: S3Object) -> ObjectRange:
    return ObjectReader(s3, deadline_of(Invocation()), 1 << 30).open(target)


def read(blob: ObjectRange, first: int, length: int) -> bytes:
    return b"".join(blob.read(first, length))


def get_request(span: str, **pin: str) -> dict[str, str]:
    return {"Bucket": "bucket", "Key": "app/x", "Range": span, **pin}


@pytest.mark.parametrize(
    ("version_id", "etag", "pin"),
    [
        ("v1", "e7a6", {"VersionId": "v1"}),
        (None, "e7a6", {"IfMatch": '"e7a6"'}),
        ("null", "e7a6", {"IfMatch": '"e7a6"'}),  # a suspended bucket's version, which can be overwritten
    ],
)
def test_reads_are_ranges_pinned_to_the_version_in_the_event(
    s3: S3Client, stub: Stubber, version_id: str | None, etag: str, pin: dict[str, str]
) -> None:
    stub.add_response("get_object", answer(b"4567"), get_request("bytes=4-7", **pin))

    assert read(ObjectRange(s3, "bucket", "app/x", version_id, etag, 10, 10), 4, 4) == b"4567"


def test_a_blob_inside_an_object_is_read_from_its_offset(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"4567"), get_request("bytes=1004-1007", VersionId="v1"))

    assert read(ObjectRange(s3, "bucket", "app/x", "v1", None, 10, 2000, offset=1000), 4, 4) == b"4567"


def test_reading_resumes_where_a_body_breaks_off(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"45", promised=4), get_request("bytes=4-7", VersionId="v1"))
    stub.add_response("get_object", answer(b"67"), get_request("bytes=6-7", VersionId="v1"))

    assert read(versioned(s3), 4, 4) == b"4567"


def test_a_body_that_keeps_breaking_off_is_retried_later(s3: S3Client, stub: Stubber) -> None:
    for body in (b"45", b"", b"6"):
        stub.add_response("get_object", answer(body, promised=len(body) + 1))

    with pytest.raises(ServiceUnavailable, match=r"s3://bucket/app/x broke off 3 times"):
        read(versioned(s3), 4, 4)


def test_a_body_that_breaks_off_after_its_last_byte_is_complete(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"4567", promised=5))

    assert read(versioned(s3), 4, 4) == b"4567"


def test_a_body_with_a_wrong_checksum_is_refused(s3: S3Client, stub: Stubber) -> None:
    class Corrupted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if body := super().read(size):
                return body
            raise FlexibleChecksumError(error_msg="crc32")

    stub.add_response("get_object", {"Body": StreamingBody(Corrupted(b"4567"), 4)})

    with pytest.raises(TransferCorrupted, match="s3://bucket/app/x gave other bytes than S3"):
        read(versioned(s3), 4, 4)


def test_a_body_longer_than_its_range_is_refused(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"0123456789"))

    with pytest.raises(TransferCorrupted, match="more bytes than were asked for"):
        read(versioned(s3), 0, 4)


def test_a_reader_may_stop_after_a_body_breaks_off(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"45", promised=4))  # and no other response

    chunks = versioned(s3).read(4, 4)
    assert [next(chunks), next(chunks)] == [b"45", b""]
    chunks.close()


def test_an_object_shorter_than_its_event_says_is_refused(s3: S3Client, stub: Stubber) -> None:
    stub.add_response("get_object", answer(b"45"))

    with pytest.raises(ObjectChanged, match="no 4 bytes from byte 4 on"):
        read(versioned(s3), 4, 4)


def test_an_object_longer_than_its_event_says_is_refused(s3: S3Client, stub: Stubber) -> None:
    raw = io.BytesIO(b"4567")
    stub.add_response("get_object", {"Body": StreamingBody(raw, 4), "ContentRange": "bytes 4-7/11"})

    with pytest.raises(ObjectChanged, match="has 11 bytes, not 10"):
        read(versioned(s3), 4, 4)
    assert raw.closed  # otherwise its connection would be lost


@pytest.mark.parametrize(
    ("code", "status", "error", "message"),
    [
        ("NoSuchKey", 404, ObjectMissing, "deleted after the event"),
        ("NoSuchVersion", 404, ObjectMissing, "deleted after the event"),
        ("NoSuchBucket", 404, ObjectMissing, "deleted after the event"),
        ("MethodNotAllowed", 405, ObjectMissing, "deleted after the event"),
        ("PreconditionFailed", 412, ObjectChanged, "Its newer version has an event of its own"),
        ("InvalidRange", 416, ObjectChanged, "Its newer version has an event of its own"),
        ("InvalidObjectState", 403, ObjectArchived, "Restore the object"),
        ("AccessDenied", 403, AccessDenied, "may also be a missing object"),
        ("InvalidArgument", 400, RequestRefused, "cannot exist in S3"),
        ("KeyTooLongError", 400, RequestRefused, "cannot exist in S3"),
        ("SlowDown", 503, ServiceUnavailable, ""),
        ("InternalError", 500, ServiceUnavailable, ""),
    ],
)
def test_every_error_code_maps_to_its_exception(
    s3: S3Client, stub: Stubber, code: str, status: int, error: type[S3ToEcrError], message: str
) -> None:
    stub.add_client_error("get_object", code, http_status_code=status)

    with pytest.raises(error, match=rf"^reading s3://bucket/app/x failed with {code}.*{message}"):
        read(versioned(s3), 0, 4)


def test_a_blob_is_opened_without_a_call_if_the_event_has_all_details(s3: S3Client, stub: Stubber) -> None:
    assert stub
    created = S3Object("bucket", "app/x", "v1", "e7a6", 10)

    assert opened(s3, created) == ObjectRange(s3, "bucket", "app/x", "v1", "e7a6", 10, 10)


def test_details_that_the_event_lacks_are_read_from_s3(s3: S3Client, stub: Stubber) -> None:
    head = {"ContentLength": 10, "ETag": '"e7a6"'}
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x"})
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x", "VersionId": "v1"})
    stub.add_response("head_object", head, {"Bucket": "bucket", "Key": "app/x"})

    assert opened(s3, S3Object("bucket", "app/x", size=99)) == ObjectRange(s3, "bucket", "app/x", None, "e7a6", 10, 10)
    # Without an ETag, the version "null" could be overwritten while it is read.
    null = S3Object("bucket", "app/x", "null", size=10)
    assert opened(s3, S3Object("bucket", "app/x", "v1")) == ObjectRange(s3, "bucket", "app/x", "v1", "e7a6", 10, 10)
    assert opened(s3, null) == ObjectRange(s3, "bucket", "app/x", "null", "e7a6", 10, 10)


@pytest.mark.parametrize(("code", "error"), [("404", ObjectMissing), ("403", AccessDenied), ("412", ObjectChanged)])
def test_the_status_of_a_head_request_decides_the_exception(
    s3: S3Client, stub: Stubber, code: str, error: type[S3ToEcrError]
) -> None:
    stub.add_client_error("head_object", code, http_status_code=int(code))

    with pytest.raises(error, match=r"^looking up s3://bucket/app/x"):
        opened(s3, S3Object("bucket", "app/x"))


def test_a_digest_counts_repeated_bytes_once() -> None:
    digest = RunningDigest()
    for first, length in [(0, 4), (4, 4), (2, 4), (0, 4), (6, 4), (8, 2), (0, 1)]:
        digest.update(first, b"0123456789"[first : first + length])

    assert str(digest) == f"sha256:{hashlib.sha256(b'0123456789').hexdigest()}"


def test_a_digest_allows_no_gaps() -> None:
    digest = RunningDigest()
    digest.update(0, b"0123")

    with pytest.raises(ValueError, match="byte 5 came after 4"):
        digest.update(5, b"56")


@pytest.mark.parametrize(("version_id", "one"), [("v1", True), ("null", False), (None, False)])
def test_only_a_real_version_id_identifies_one_write(s3: S3Client, version_id: str | None, one: bool) -> None:
    found = ObjectRange(s3, "bucket", "app/x", version_id, "e7a6", 10, 10)

    assert found.is_one_version is one
    assert found.identity == ("VersionId v1 of s3://bucket/app/x" if one else 'IfMatch "e7a6" of s3://bucket/app/x')


WRITTEN = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("version_id", "head", "current"),
    [
        ("v1", {"VersionId": "v1", "ETag": '"e7a6"'}, True),
        # The same bytes, written again: another version, and an event of its own.
        ("v1", {"VersionId": "v2", "ETag": '"e7a6"'}, False),
        ("null", {"VersionId": "null", "ETag": '"e7a6"'}, True),
        ("null", {"VersionId": "null", "ETag": '"other"'}, False),
        (None, {"ETag": '"e7a6"'}, True),
        (None, {"ETag": '"other"'}, False),
    ],
)
def test_an_object_is_current_while_its_key_holds_the_same_write(
    s3: S3Client, stub: Stubber, version_id: str | None, head: dict[str, Any], current: bool
) -> None:
    stub.add_response("head_object", {**head, "LastModified": WRITTEN}, {"Bucket": "bucket", "Key": "app/x"})
    found = ObjectRange(s3, "bucket", "app/x", version_id, "e7a6", 10, 10)

    assert found.written_if_current() == (WRITTEN if current else None)


def test_an_object_that_was_deleted_is_not_current(s3: S3Client, stub: Stubber) -> None:
    stub.add_client_error("head_object", "404", http_status_code=404)

    assert versioned(s3).written_if_current() is None
