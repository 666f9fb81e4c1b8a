"""Static registry paths: the registry API's own names, as a registry served from plain files has them.

Source: the OCI distribution spec, endpoints `/v2/<name>/manifests/<reference>` and `/v2/<name>/blobs/<digest>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.images.manifests import HEX, digest_of, is_digest
from s3_to_ecr.images.model import Image, Images, ObjectSource, open_current, read_manifest
from s3_to_ecr.layouts.match import Match

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_BLOB = re.compile(rf"(?P<folder>.+)/blobs/(?P<digest>sha256:{HEX})", re.DOTALL)
_MANIFEST = re.compile(r"(?P<folder>.+)/manifests/(?P<reference>[^/]+)", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/manifests/<tag or digest>` and `<repo>/blobs/sha256:<hex>`."""
    if found := _MANIFEST.fullmatch(key):
        reference = found["reference"]
        return Match(found["folder"], layout=StaticManifest(reference), part_of_image=is_digest(reference))
    if found := _BLOB.fullmatch(key):
        return Match(found["folder"], found["digest"], part_of_image=True)
    return None


@dataclass(frozen=True)
class StaticManifest:
    """The image that a tag or digest names."""

    reference: str

    def open(self, s3: S3Client, created: ObjectCreated, _: Deadline) -> Images:
        """The manifest as it is now; its blobs may come later. Raises `BrokenManifest`, and as `open_current`."""
        document = open_current(s3, created.bucket, created.key)
        folder = created.key.removesuffix(f"/manifests/{self.reference}")
        content = read_manifest(document)
        image = Image(self.reference) if is_digest(self.reference) else Image(digest_of(content), (self.reference,))
        return Images(document, _StaticSource(s3, created.bucket, folder, {image.digest: content}), (image,))


class _StaticSource(ObjectSource):
    """A static registry's files; some keep an index's children under `blobs/` only."""

    def __init__(self, s3: S3Client, bucket: str, folder: str, read: dict[str, bytes]) -> None:
        super().__init__(
            s3,
            bucket,
            lambda digest: (f"{folder}/blobs/{digest}",),
            lambda digest: (f"{folder}/manifests/{digest}", f"{folder}/blobs/{digest}"),
        )
        self._read = read

    def manifest(self, digest: str) -> bytes:
        return self._read[digest] if digest in self._read else super().manifest(digest)
