"""Reading blobs: a range of bytes of one S3 object, pinned so that it cannot change underway."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

from s3_to_ecr.aws import Codes, translated
from s3_to_ecr.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    RequestRefused,
    ServiceUnavailable,
)
from s3_to_ecr.events import ObjectCreated

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# botocore retries a request, but not a body that breaks off while it is read.
_BODY_ATTEMPTS = 3

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

    def read(self, first: int, length: int) -> bytes:
        """Exactly `length` bytes from byte `first` of the blob on.

        Raises `ObjectMissing`, `ObjectChanged`, `ObjectArchived`, `AccessDenied`, `RequestRefused` or
        `ServiceUnavailable`.
        """
        start = self.offset + first
        span = f"bytes={start}-{start + length - 1}"
        broken: Exception | None = None
        with translated(f"reading {self.uri}", _CODES):
            for _ in range(_BODY_ATTEMPTS):
                answer = self.s3.get_object(
                    Bucket=self.bucket, Key=self.key, Range=span, **_pin(self.version_id, self.etag)
                )
                with closing(answer["Body"]) as stream:
                    # An event that understates the size, as hand-written ones do, must not cut the layer short.
                    total = answer.get("ContentRange", "").rpartition("/")[2]
                    if total not in ("", str(self.object_size)):
                        raise ObjectChanged(f"{self.uri} has {total} bytes, not {self.object_size}. {_CHANGED}")
                    try:
                        body = stream.read()
                    except (HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
                        broken = error
                        continue
                if len(body) == length:
                    return body
                # S3 cuts a range at the object's end: the event has told another size than the object's.
                raise ObjectChanged(f"{self.uri} has no {length} bytes from byte {start} on. {_CHANGED}")
        raise ServiceUnavailable(f"reading {self.uri} broke off {_BODY_ATTEMPTS} times: {broken}") from broken


class DigestReader:
    """Reads a blob's ranges and knows the blob's digest in the end.

    A digest known before is taken as it is, for ECR to verify. Otherwise it is the SHA-256 of the bytes read, each
    counted once: ranges may be read again, but not ahead of `furthest`, the number of bytes read so far.
    """

    def __init__(self, blob: Blob, digest: str | None) -> None:
        self._blob = blob
        self._digest = digest
        self._sha256 = hashlib.sha256()
        self.furthest = 0

    def read(self, first: int, length: int) -> bytes:
        """As `Blob.read`."""
        body = self._blob.read(first, length)
        fresh = body[self.furthest - first :] if first < self.furthest else body
        if self._digest is None:
            self._sha256.update(fresh)
        self.furthest += len(fresh)
        return body

    @property
    def is_known(self) -> bool:
        """Whether the digest was given rather than computed."""
        return self._digest is not None

    @property
    def digest(self) -> str:
        """The digest, as `sha256:<hex>`; a computed one is the blob's after its last byte was read."""
        return self._digest or f"sha256:{self._sha256.hexdigest()}"


def open_blob(s3: S3Client, created: ObjectCreated) -> Blob:
    """The whole object as a blob. Asks S3 only for what the event does not say. Raises as `Blob.read`."""
    version_id, etag, size = created.version_id, created.etag, created.size
    if size is None or not _pin(version_id, etag):
        with translated(f"looking up {created.uri}", _CODES):
            head = s3.head_object(Bucket=created.bucket, Key=created.key, **_pin(version_id, etag))
        size = head["ContentLength"]
        etag = head["ETag"].strip('"')
    return Blob(s3, created.bucket, created.key, version_id, etag, size, object_size=size)


def _pin(version_id: str | None, etag: str | None) -> dict[str, Any]:
    """The request parameters that hold a read to one version of the object."""
    # The version called "null" belongs to a bucket whose versioning is suspended, and can be overwritten.
    if version_id and version_id != "null":
        return {"VersionId": version_id}
    return {"IfMatch": f'"{etag}"'} if etag else {}
