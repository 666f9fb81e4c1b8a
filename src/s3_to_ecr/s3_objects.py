"""The S3 objects that the program works on, however they were announced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class S3Object:
    """An object in a bucket, as far as it is known: only `bucket` and `key` always are.

    `key` is decoded, `etag` unquoted, `size` in bytes. `sequencer` orders the writes to one key. Without a version or
    ETag this means whatever the key holds now.
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
