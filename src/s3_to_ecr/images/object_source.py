"""Manifests and blobs that are objects in a bucket, found by their digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from s3_to_ecr.aws.s3 import ObjectRange, ObjectReader
from s3_to_ecr.blobs import BlobRange
from s3_to_ecr.errors import BlobsMissing, BrokenManifest, ObjectChanged, ObjectMissing
from s3_to_ecr.images.manifests import MAX_MANIFEST_BYTES


class ObjectSource:
    """Manifests and blobs that are objects of one bucket. Each is under the first of its keys that holds an object.

    Manifests that have been `read` are not looked for.
    """

    def __init__(
        self,
        reader: ObjectReader,
        bucket: str,
        blob_keys: Callable[[str], tuple[str, ...]],
        manifest_keys: Callable[[str], tuple[str, ...]] | None = None,
        read: Mapping[str, bytes] | None = None,
    ) -> None:
        self._reader = reader
        self._bucket = bucket
        self._blob_keys = blob_keys
        self._manifest_keys = manifest_keys or blob_keys
        self._read = read or {}

    def has(self, digest: str) -> bool:
        if digest in self._read:
            return True
        try:
            self._find(digest, self._manifest_keys(digest))
        except BlobsMissing:
            return False
        return True

    def manifest(self, digest: str) -> bytes:
        if digest in self._read:
            return self._read[digest]
        blob = self._find(digest, self._manifest_keys(digest))
        try:
            return read_manifest(blob)
        except (ObjectChanged, ObjectMissing) as error:
            raise BlobsMissing(error.reason, blob.key) from error

    def blob(self, digest: str) -> ObjectRange:
        return self._find(digest, self._blob_keys(digest))

    def _find(self, digest: str, keys: tuple[str, ...]) -> ObjectRange:
        for key in keys:
            try:
                return self._reader.open_current(self._bucket, key)
            except ObjectMissing:
                continue
        raise blob_missing(digest, self._bucket, keys)


def blob_missing(digest: str, bucket: str, keys: tuple[str, ...]) -> BlobsMissing:
    """The error for a blob or manifest that has not arrived yet under any of its keys."""
    return BlobsMissing(f"{digest} has not arrived yet. It is expected at s3://{bucket}/{keys[0]}.", *keys)


def read_manifest(blob: BlobRange) -> bytes:
    """All of a manifest. Raises `BrokenManifest` rather than read one that is too large."""
    if blob.size > MAX_MANIFEST_BYTES:
        raise BrokenManifest(
            f"{blob.uri} has {blob.size:,} bytes, more than the {MAX_MANIFEST_BYTES:,} that ECR accepts for a manifest."
        )
    return blob.read_all()
