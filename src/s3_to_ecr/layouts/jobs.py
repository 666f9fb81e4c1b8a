"""What a key asks for, and what the function answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from s3_to_ecr.errors import S3ToEcrError

if TYPE_CHECKING:
    from s3_to_ecr.images.model import ImageLayout


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all jobs say: whether an image may have been waiting for the object."""

    part_of_image: bool = False


@dataclass(frozen=True)
class UploadLayer(_Job):
    """Upload a blob to `repository` as a layer. `digest` is `None` when the key does not tell it.

    The blob is the object, or the one under the `blob_key`. Where the layout keeps manifests among its blobs, it
    `may_be_manifest`: that waits for what names it.
    """

    repository: str
    digest: str | None
    blob_key: str | None = None
    may_be_manifest: bool = False


@dataclass(frozen=True)
class PushImage(_Job):
    """Push the images that the `layout` finds in the object to `repository`."""

    repository: str
    layout: ImageLayout


@dataclass(frozen=True)
class Ignore(_Job):
    """Do nothing, for a `reason` worth a line in the log."""

    reason: str


Job = UploadLayer | PushImage | Ignore


class PushedImage(TypedDict):
    """A manifest or index that is in ECR, and the tags that name it there."""

    digest: str
    tags: list[str]


class Result(TypedDict):
    """One object's entry in the answer, and in its idempotency record. `size` is the object's, in bytes.

    Where the object asked for images, these are they; the `digest` is then that of the only one, if it is.
    """

    bucket: str
    key: str
    action: Literal["uploaded", "skipped", "pushed", "ignored"]
    repository: str | None
    digest: str | None
    size: int | None
    reason: str | None
    images: NotRequired[list[PushedImage]]


@dataclass(frozen=True)
class Failure:
    """A record that did not get a result, and why."""

    record: dict[str, Any]
    error: S3ToEcrError


@dataclass(frozen=True)
class Outcome:
    """What became of a notification's records. Results keep the records' order."""

    results: list[Result]
    failures: list[Failure]
