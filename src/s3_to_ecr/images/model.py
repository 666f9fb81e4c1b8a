"""Images as a layout finds them: by digest, with tags, and a source for all that they are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from s3_to_ecr.aws.s3 import Blob, open_blob
from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BlobsMissing, BrokenManifest, InvalidTag, ObjectChanged, ObjectMissing
from s3_to_ecr.images.manifests import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# OCI distribution spec, "Pulling manifests": what a tag may be.
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@dataclass(frozen=True)
class Image:
    """A root manifest or index, and the tags that are to name it. The media type is empty where nobody tells it."""

    digest: str
    tags: tuple[str, ...] = ()
    media_type: str = ""


def each_once(images: Iterable[Image]) -> tuple[Image, ...]:
    """Images that may be named several times, each once: with all of its tags, and of the first media type."""
    first: dict[str, Image] = {}
    tags: dict[str, dict[str, None]] = {}
    for image in images:
        first.setdefault(image.digest, image)
        tags.setdefault(image.digest, {}).update(dict.fromkeys(image.tags))
    return tuple(replace(image, tags=tuple(tags[digest])) for digest, image in first.items())


class Source(Protocol):
    """Where manifests and blobs are, by digest.

    What is not there yet is `BlobsMissing`; what cannot come any more, such as to an archive, `BrokenArchive`. All
    raise as `open_blob`, too.
    """

    def has(self, digest: str) -> bool:
        """Whether a manifest is there now."""
        ...

    def manifest(self, digest: str) -> bytes:
        """A manifest's bytes, whether they have that digest or not. Raises `BrokenManifest` if it is too large."""
        ...

    def blob(self, digest: str) -> Blob:
        """A config or layer, not read yet."""
        ...


@dataclass(frozen=True)
class Images:
    """What one object asks to be pushed. The `document` is that object; its tags are set while it is current.

    If it `shares_tags`, others beside it may well have the same: a folder has one `latest.tar` or `index.json`, but of
    the archives of many builds each may have the tag `latest` inside.
    """

    document: Blob
    source: Source
    images: tuple[Image, ...]
    shares_tags: bool = False


class ImageLayout(Protocol):
    """One way in which images lie in a bucket."""

    def open(self, s3: S3Client, created: ObjectCreated, deadline: Deadline) -> Images | None:
        """Reads what the object asks for; `None` if it is no image after all, but a blob.

        Raises any `Rejected`, and `OutOfTime`.
        """
        ...


class ObjectSource:
    """Manifests and blobs that are objects of one bucket, each under the first of its `keys` that is there."""

    def __init__(
        self,
        s3: S3Client,
        bucket: str,
        blob_keys: Callable[[str], tuple[str, ...]],
        manifest_keys: Callable[[str], tuple[str, ...]] | None = None,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._blob_keys = blob_keys
        self._manifest_keys = manifest_keys or blob_keys

    def has(self, digest: str) -> bool:
        try:
            self._find(digest, self._manifest_keys(digest))
        except BlobsMissing:
            return False
        return True

    def manifest(self, digest: str) -> bytes:
        blob = self._find(digest, self._manifest_keys(digest))
        try:
            return read_manifest(blob)
        except (ObjectChanged, ObjectMissing) as error:
            raise BlobsMissing(error.reason, blob.key) from error

    def blob(self, digest: str) -> Blob:
        return self._find(digest, self._blob_keys(digest))

    def _find(self, digest: str, keys: tuple[str, ...]) -> Blob:
        for key in keys:
            try:
                return open_current(self._s3, self._bucket, key)
            except ObjectMissing:
                continue
        raise blob_missing(digest, self._bucket, keys)


def blob_missing(digest: str, bucket: str, keys: tuple[str, ...]) -> BlobsMissing:
    """That a blob or manifest has not come yet, under any of the keys."""
    return BlobsMissing(f"{digest} is not there yet, expected at s3://{bucket}/{keys[0]}.", *keys)


def open_current(s3: S3Client, bucket: str, key: str) -> Blob:
    """The object that is under a key now, whatever an event says: of a document that moves a tag, the last one counts.

    Raises as `open_blob`.
    """
    return open_blob(s3, ObjectCreated(bucket, key))


def read_manifest(blob: Blob) -> bytes:
    """All of a manifest; raises `BrokenManifest` rather than read one that is too large."""
    if blob.size > MAX_MANIFEST_BYTES:
        raise BrokenManifest(
            f"{blob.uri} has {blob.size:,} bytes, and a manifest at most the {MAX_MANIFEST_BYTES:,} that ECR takes."
        )
    return blob.read_all()


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str) -> None:
    """Raises `InvalidTag` before ECR has to."""
    if not is_tag(tag):
        raise InvalidTag(
            f"{tag!r} is no tag: up to 128 letters, digits and any of _ . - that does not begin with . or -. "
            "Rename the object, or tag the image anew."
        )


def tag_of(reference: str) -> str | None:
    """The tag in a reference such as `docker.io/team/app:1.0@sha256:…`, which names the repository first."""
    name = reference.partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2] or None
