"""OCI image layout: `index.json`, `oci-layout`, `blobs/sha256/<hex>`, as objects or within an archive.

Source: the OCI image spec 1.1, "Image Layout Specification". A tag is in an annotation of the index's entry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import HEX, Descriptor, descriptors, parse_document
from s3_to_ecr.images.model import Image, Images, ObjectSource, each_once, open_current, read_manifest, tag_of
from s3_to_ecr.layouts.jobs import Ignore
from s3_to_ecr.layouts.match import Match

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

INDEX = "index.json"
MARKER = "oci-layout"
_PATH = re.compile(rf"(?:(?P<folder>.+)/)?(?:(?P<name>index\.json|oci-layout)|blobs/sha256/(?P<hex>{HEX}))", re.DOTALL)


def match(key: str) -> Match | Ignore | None:
    """`<repo>/index.json`, `<repo>/oci-layout` and `<repo>/blobs/sha256/<hex>`, where `<repo>/` may be left out."""
    found = _PATH.fullmatch(key)
    if not found:
        return None
    if found["name"] == MARKER:
        return Ignore("the marker file of an OCI image layout")
    if found["name"] == INDEX:
        return Match(found["folder"], layout=OciLayout())
    return Match(found["folder"], f"sha256:{found['hex']}", part_of_image=True, may_be_manifest=True)


@dataclass(frozen=True)
class OciLayout:
    """The images of an `index.json`."""

    def open(self, s3: S3Client, created: ObjectCreated, _: Deadline) -> Images:
        """The index as it is now; its blobs may come later. Raises `BrokenManifest`, and as `open_current`."""
        document = open_current(s3, created.bucket, created.key)
        folder = created.key.removesuffix(INDEX)
        source = ObjectSource(s3, created.bucket, lambda digest: (folder + blob_path(digest),))
        return Images(document, source, images_of(read_manifest(document)))


def blob_path(digest: str) -> str:
    """A blob's place in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def images_of(index: bytes) -> tuple[Image, ...]:
    """What an `index.json` names, each image once, with all of its tags. Raises `BrokenManifest`."""
    document = parse_document(index, INDEX)
    if "manifests" not in document:
        raise BrokenManifest(f"{INDEX} is not the index of an OCI image layout: it has no manifests.")
    return each_once(Image(entry.digest, _tags(entry), entry.media_type) for entry in descriptors(document))


def _tags(entry: Descriptor) -> tuple[str, ...]:
    """The entry's tags, in OCI's annotation, which may hold a whole reference or the tag alone, and in containerd's."""
    name = entry.annotations.get("org.opencontainers.image.ref.name")
    reference = entry.annotations.get("io.containerd.image.name")
    tags = []
    if isinstance(name, str) and name:
        tags.append(tag_of(name) if re.search("[:/@]", name) else name)
    if isinstance(reference, str):
        tags.append(tag_of(reference))
    return tuple(tag for tag in tags if tag)
