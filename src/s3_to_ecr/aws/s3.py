"""Reading blobs: a range of bytes of one S3 object, pinned so that it cannot change underway."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

from s3_to_ecr.aws.clients import Codes, translated
from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RequestRefused,
    ServiceUnavailable,
    TransferCorrupted,
)

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

# botocore retries a request, but not a body that breaks off while it is read.
_BODY_ATTEMPTS = 3

# What is read at a time: large enough that a call's cost does not count, small enough that the allocator keeps its
# memory at hand, and even in base64. Of all between 96 KiB and 3 MiB, this took the least CPU time in the bench.
_CHUNK_BYTES = 1536 * 1024

_DENIED = "Allow s3:GetObject and s3:GetObjectVersion (without s3:ListBucket this may also be a missing object)."
_GONE = "It was deleted since the event, or the event names another object."
_CHANGED = "The object is not the one of the event any more; its newer version has an event of its own."
_ODD = "The event's bucket, key or version is not one that S3 can have."
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
class Blob:
    """`size` bytes of an S3 object from `offset` on, read through `s3`; pinned by version, else by etag.

    `object_size` is that of the whole object.
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
    def is_one_version(self) -> bool:
        """Whether S3 keeps the object under a version's id, which no other write to the key will have."""
        return "VersionId" in _pin(self.version_id, self.etag)

    @property
    def identity(self) -> str:
        """What tells the object's bytes from all others, whoever announced them."""
        [(kind, value)] = _pin(self.version_id, self.etag).items()
        within = "" if self.size == self.object_size else f"{self.size} bytes from byte {self.offset} on, "
        return f"{within}{kind} {value} of {self.uri}"

    def within(self, offset: int, size: int) -> Blob:
        """The `size` bytes of the blob from `offset` on, as a blob. They must be there."""
        return replace(self, offset=self.offset + offset, size=size)

    def written_if_current(self) -> datetime | None:
        """When the object was written; `None` if its key names another one by now, or none. Raises as `open_blob`."""
        try:
            head = _look_up(self.s3, self.bucket, self.key, {})
        except ObjectMissing:
            return None
        if self.is_one_version and "VersionId" in head:
            return head["LastModified"] if head["VersionId"] == self.version_id else None
        return head["LastModified"] if head["ETag"].strip('"') == self.etag else None

    def read_all(self) -> bytes:
        """The whole blob, of which the caller knows that it is small. Raises as `read`."""
        return b"".join(self.read(0, self.size)) if self.size else b""

    def read(self, first: int, length: int) -> Generator[bytes]:
        """Exactly `length` bytes from byte `first` of the blob on, in chunks of any size.

        A body that breaks off is read on from there, after an empty chunk: for who would rather stop.
        Raises `ObjectMissing`, `ObjectChanged`, `ObjectArchived`, `AccessDenied`, `RequestRefused`, `TransferCorrupted`
        or `ServiceUnavailable`.
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
                    # S3 cuts a range at the object's end: the event has told another size than the object's.
                    start = self.offset + first
                    raise ObjectChanged(f"{self.uri} has no {length} bytes from byte {start} on. {_CHANGED}")
            if position == end:
                return
            yield b""
        raise ServiceUnavailable(f"reading {self.uri} broke off {_BODY_ATTEMPTS} times: {broken}") from broken

    def _body(self, first: int, end: int) -> Generator[bytes]:
        """What one request gives of the bytes from `first` to before `end`."""
        span = f"bytes={self.offset + first}-{self.offset + end - 1}"
        with translated(f"reading {self.uri}", _CODES):
            answer = self.s3.get_object(
                Bucket=self.bucket, Key=self.key, Range=span, **_pin(self.version_id, self.etag)
            )
        with closing(answer["Body"]) as stream:
            # An event that understates the size, as hand-written ones do, must not cut the layer short.
            total = answer.get("ContentRange", "").rpartition("/")[2]
            if total not in ("", str(self.object_size)):
                raise ObjectChanged(f"{self.uri} has {total} bytes, not {self.object_size}. {_CHANGED}")
            # To the empty read at the end: only that one tells that nothing was missing.
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


def open_blob(s3: S3Client, created: ObjectCreated) -> Blob:
    """The whole object as a blob. Asks S3 only for what the event does not say. Raises as `Blob.read`."""
    version_id, etag, size = created.version_id, created.etag, created.size
    if size is None or not _pin(version_id, etag):
        head = _look_up(s3, created.bucket, created.key, _pin(version_id, etag))
        size = head["ContentLength"]
        etag = head["ETag"].strip('"')
        version_id = head.get("VersionId", version_id)
    return Blob(s3, created.bucket, created.key, version_id, etag, size, object_size=size)


def _look_up(s3: S3Client, bucket: str, key: str, pin: dict[str, Any]) -> HeadObjectOutputTypeDef:
    with translated(f"looking up s3://{bucket}/{key}", _CODES):
        return s3.head_object(Bucket=bucket, Key=key, **pin)


def _pin(version_id: str | None, etag: str | None) -> dict[str, Any]:
    """The request parameters that hold a read to one version of the object."""
    # The version called "null" belongs to a bucket whose versioning is suspended, and can be overwritten.
    if version_id and version_id != "null":
        return {"VersionId": version_id}
    return {"IfMatch": f'"{etag}"'} if etag else {}
