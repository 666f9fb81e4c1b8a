"""What a key asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.s3_objects import S3Object


class ImageLayout(Protocol):
    """One way in which images lie in a bucket."""

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | Ignore | None:
        """Reads which images the object asks for; `None` if it is an ordinary blob after all."""
        ...


class RecognisedLayout(ImageLayout, Protocol):
    """One that is recognised by the object's content."""

    def is_likely(self, start: bytes) -> bool:
        """Whether an object that begins like this is probably of this layout."""
        ...


@dataclass(frozen=True)
class Match:
    """What a layout makes of a key: a blob, or the images of an `image_layout`, in a folder.

    `folder` is `None` for a key without one. A blob comes with its digest if the key names it. `blob_key` is the key of
    its bytes, without KEY_PREFIX, if that is another one. `part_of_image` and `may_be_manifest` are those of the jobs.
    What can be `recognised` by its content is a blob until then, except in a bundle.
    If there is neither a folder nor a default repository, what `may_be_bundle` names its repositories itself.
    """

    folder: str | None
    digest: str | None = None
    blob_key: str | None = None
    image_layout: ImageLayout | None = None
    recognised: RecognisedLayout | None = None
    part_of_image: bool = False
    may_be_manifest: bool = False
    may_be_bundle: bool = False


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all jobs have in common: whether an image may have been waiting for the object."""

    part_of_image: bool = False


@dataclass(frozen=True)
class UploadLayer(_Job):
    """Upload a blob to `repository` as a layer. `digest` is `None` if the key does not name it.

    The blob is the object itself, or the one under the `blob_key`. If the layout keeps manifests among its blobs, the
    object `may_be_manifest`: then whatever names it pushes it. If its first bytes are those of a `recognised` layout,
    the images in it are pushed instead, for the `folder` in which the object lies (`None` for none).
    """

    repository: str
    digest: str | None
    blob_key: str | None = None
    may_be_manifest: bool = False
    recognised: RecognisedLayout | None = None
    folder: str | None = None


@dataclass(frozen=True)
class PushImages(_Job):
    """Push the images that the `image_layout` finds in the object. It lies in `folder`, `None` for none."""

    folder: str | None
    image_layout: ImageLayout


@dataclass(frozen=True)
class Ignore(_Job):
    """Do nothing, for a `reason` worth a line in the log. It may mean `trouble`: that images will be missing."""

    reason: str
    trouble: bool = False


Job = UploadLayer | PushImages | Ignore
