"""Reading S3: ranges of bytes of one object, pinned so that the object cannot change underneath."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

from s3_to_ecr.aws.sdk_errors import Codes, translated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RequestRefused,
    ServiceUnavailable,
    TransferCorrupted,
)
from s3_to_ecr.s3_objects import S3Object

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

# botocore retries requests, but not a body that breaks off while it is being read.
_BODY_ATTEMPTS = 3

# How much is read at a time: enough that a call costs next to nothing, little enough that the allocator keeps the
# memory at hand, and a multiple of 3 for base64. Of all sizes from 96 KiB to 3 MiB it took the least CPU in the bench.
_CHUNK_BYTES = 1536 * 1024

_DENIED = "Allow s3:GetObject and s3:GetObjectVersion (without s3:ListBucket this may also be a missing object)."
_GONE = "It was deleted after the event, or the event names another object."
_CHANGED = "The object has changed since the event. Its newer version has an event of its own."
_ODD = "The event names a bucket, key or version that cannot exist in S3."
_ARCHIVED = "Restore the object from its archive, then send the event again."

_CODES: Codes = {
    "AccessDenied": (AccessDenied, _DENIED),
    "403": (AccessDenied, _DENIED),
    "NoSuchKey": (ObjectMissing, _GONE),
    "NoSuchVersion": (ObjectMissing, _GONE),
    "NoSuchBucket": (ObjectMissing, _GONE),
    "404": (ObjectMissing, _GONE),
    "MethodNotAllowed": (ObjectMissing, _GONE),  # the version asked for is a delete marker
    "405": (ObjectMissing, _GONE),
    "PreconditionFailed": (ObjectChanged, _CHANGED),
    "412": (ObjectChanged, _CHANGED),
    "InvalidRange": (ObjectChanged, _CHANGED),
    "416": (ObjectChanged, _CHANGED),
    "InvalidObjectState": (ObjectArchived, _ARCHIVED),
    "InvalidArgument": (RequestRefused, _ODD),
    "InvalidRequest": (RequestRefused, _ODD),
    "KeyTooLongError": (RequestRefused, _ODD),
    "400": (RequestRefused, _ODD),
}


@dataclass(frozen=True)
class ObjectRange:
    """`size` bytes of an S3 object from `offset` on, read through `s3`; a seekable `BlobRange`.

    They are pinned by version, or else by ETag. `object_size` is the size of the whole object.
    """

    s3: S3Client = field(repr=False)
    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size: int
    object_size: int
    offset: int = 0

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def seekable(self) -> bool:
        return True

    @property
    def is_one_version(self) -> bool:
        """Whether the object has a version of its own, which no other write to the key will have."""
        return "VersionId" in _pin(self.version_id, self.etag)

    @property
    def identity(self) -> str:
        """What distinguishes these bytes from all others, whoever announced them."""
        [(kind, value)] = _pin(self.version_id, self.etag).items()
        within = "" if self.size == self.object_size else f"{self.size} bytes from byte {self.offset} on, "
        return f"{within}{kind} {value} of {self.uri}"

    def within(self, offset: int, size: int) -> ObjectRange:
        """The `size` bytes of this range from `offset` on. They must exist."""
        return replace(self, offset=self.offset + offset, size=size)

    def written_if_current(self) -> datetime | None:
        """When the object was written; `None` if its key names another object by now, or none."""
        try:
            head = _look_up(self.s3, self.bucket, self.key, {})
        except ObjectMissing:
            return None
        if self.is_one_version and "VersionId" in head:
            return head["LastModified"] if head["VersionId"] == self.version_id else None
        return head["LastModified"] if head["ETag"].strip('"') == self.etag else None

    def start(self, length: int) -> bytes:
        """The first `length` bytes, or fewer at the end."""
        length = min(length, self.size)
        return b"".join(self.read(0, length)) if length else b""

    def read_all(self) -> bytes:
        """All of the bytes. The caller knows that they are few."""
        return self.start(self.size)

    def read(self, first: int, length: int) -> Generator[bytes]:
        """Exactly `length` bytes from byte `first` of the range on, in chunks of any size.

        If a body breaks off, an empty chunk gives the caller a chance to stop. Then reading resumes at the same byte.
        """
        position, end = first, first + length
        broken: Exception | None = None
        for _ in range(_BODY_ATTEMPTS):
            try:
                for chunk in self._body(position, end):
                    if position + len(chunk) > end:
                        raise TransferCorrupted(f"reading {self.uri} gave more bytes than were asked for.")
                    yield chunk
                    position += len(chunk)
            except (HTTPClientError, IncompleteReadError) as error:
                broken = error
            except FlexibleChecksumError as error:
                raise TransferCorrupted(f"reading {self.uri} gave other bytes than S3 has sent: {error}") from error
            else:
                if position != end:
                    # S3 cuts a range at the object's end, so the event stated another size than the object has.
                    start = self.offset + first
                    raise ObjectChanged(f"{self.uri} has no {length} bytes from byte {start} on. {_CHANGED}")
            if position == end:
                return
            yield b""
        raise ServiceUnavailable(f"reading {self.uri} broke off {_BODY_ATTEMPTS} times: {broken}") from broken

    def _body(self, first: int, end: int) -> Generator[bytes]:
        """The bytes that one request returns of those from `first` to before `end`."""
        span = f"bytes={self.offset + first}-{self.offset + end - 1}"
        with translated(f"reading {self.uri}", _CODES):
            answer = self.s3.get_object(
                Bucket=self.bucket, Key=self.key, Range=span, **_pin(self.version_id, self.etag)
            )
        with closing(answer["Body"]) as stream:
            # An event that understates the size, as a hand-written one may, must not cut the layer short.
            total = answer.get("ContentRange", "").rpartition("/")[2]
            if total not in ("", str(self.object_size)):
                raise ObjectChanged(f"{self.uri} has {total} bytes, not {self.object_size}. {_CHANGED}")
            # Read to the empty chunk at the end: only then is the body checked for completeness.
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


class ObjectReader:
    """Opens objects for one invocation, which ends at the `deadline`. `memory` is the function's, in bytes."""

    def __init__(self, s3: S3Client, deadline: Deadline, memory: int) -> None:
        self._s3 = s3
        self.deadline = deadline
        self.memory = memory

    def open(self, target: S3Object) -> ObjectRange:
        """The whole object. S3 is asked only for what `target` does not say."""
        version_id, etag, size = target.version_id, target.etag, target.size
        if size is None or not _pin(version_id, etag):
            head = _look_up(self._s3, target.bucket, target.key, _pin(version_id, etag))
            size = head["ContentLength"]
            etag = head["ETag"].strip('"')
            version_id = head.get("VersionId", version_id)
        return ObjectRange(self._s3, target.bucket, target.key, version_id, etag, size, object_size=size)

    def open_current(self, bucket: str, key: str) -> ObjectRange:
        """The object that the key holds now, whatever an event said. Of documents that set a tag, the latest counts."""
        return self.open(S3Object(bucket, key))


def _look_up(s3: S3Client, bucket: str, key: str, pin: dict[str, Any]) -> HeadObjectOutputTypeDef:
    with translated(f"looking up s3://{bucket}/{key}", _CODES):
        return s3.head_object(Bucket=bucket, Key=key, **pin)


def _pin(version_id: str | None, etag: str | None) -> dict[str, Any]:
    """The request parameters that hold a read to one version of the object."""
    # The version called "null" belongs to a bucket with suspended versioning, and can be overwritten.
    if version_id and version_id != "null":
        return {"VersionId": version_id}
    return {"IfMatch": f'"{etag}"'} if etag else {}
