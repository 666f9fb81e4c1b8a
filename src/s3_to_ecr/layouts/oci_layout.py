"""OCI image layout: `index.json`, `oci-layout`, `blobs/sha256/<hex>`.

Sources: the OCI image spec 1.1, "Image Layout Specification"; and for what the registry zot has beside its layouts, its
pkg/storage/constants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.errors import InvalidPath
from s3_to_ecr.images.manifests import HEX
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.images.object_source import ObjectSource, read_manifest
from s3_to_ecr.images.oci_index import INDEX, MARKER, blob_path, images_of
from s3_to_ecr.layouts.jobs import Ignore, Match
from s3_to_ecr.s3_objects import S3Object

# In a layout's folder of blobs, whose name nobody gives to a repository.
_AMONG_BLOBS = re.compile(r"(?:.+/)?blobs/(?:sha256|sha384|sha512|blake3)/.+", re.DOTALL)

_PATH = re.compile(rf"(?:(?P<folder>.+)/)?(?:(?P<name>index\.json|oci-layout)|blobs/sha256/(?P<hex>{HEX}))", re.DOTALL)

# zot's unfinished uploads, the newest zot's blobs of all repositories, and what that writes once, when it first starts.
_ZOT = re.compile(
    r"(?:.*/)?(?:(?P<upload>\.uploads/.*)|(?P<blob>_blobstore/.*)|(?P<marker>_global_blobstore_migrated))", re.DOTALL
)


def match(key: str) -> Match | Ignore | None:
    """`<repo>/index.json`, `<repo>/oci-layout` and `<repo>/blobs/sha256/<hex>`, where `<repo>/` is optional.

    Raises `InvalidPath` for anything else among the blobs.
    """
    if zot := _ZOT.fullmatch(key):
        return _ignored(zot)
    found = _PATH.fullmatch(key)
    if not found:
        if _AMONG_BLOBS.fullmatch(key):
            raise InvalidPath(
                f"{key!r} is among the blobs of an OCI layout, and is not blobs/sha256/<64 lower-case hex digits>. "
                "Rename the object. For a registry's storage, end KEY_PREFIX before docker/registry/v2/."
            )
        return None
    if found["name"] == MARKER:
        return Ignore("the marker file of an OCI image layout")
    if found["name"] == INDEX:
        return Match(found["folder"], image_layout=OciLayout())
    return Match(found["folder"], f"sha256:{found['hex']}", part_of_image=True, may_be_manifest=True)


@dataclass(frozen=True)
class OciLayout:
    """The images of an `index.json`."""

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest:
        """The index as it is now. Its blobs may arrive later."""
        document = reader.open_current(target.bucket, target.key)
        folder = target.key.removesuffix(INDEX)
        source = ObjectSource(reader, target.bucket, lambda digest: (folder + blob_path(digest),))
        return PushRequest(document, source, images_of(read_manifest(document)))


def _ignored(zot: re.Match[str]) -> Ignore:
    if zot["upload"]:
        return Ignore("an upload to zot that is not finished")
    if zot["blob"]:
        return Ignore("a blob that zot keeps for all of its repositories")
    return Ignore(
        "this zot keeps the blobs of all repositories in one place, so its layouts lack theirs. "
        "Copy its images with skopeo sync, which reads zot itself",
        trouble=True,
    )
