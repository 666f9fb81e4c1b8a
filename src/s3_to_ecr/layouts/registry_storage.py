"""A self-hosted registry's bucket: what CNCF distribution's storage driver writes, Harbor's registry included.

Blobs, manifests among them, are under `blobs/`, shared by all repositories; a repository's *links*, small files that
hold a digest, say which are whose. The last that a push writes is the tag's `current/link`. Source: distribution's
registry/storage/paths.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import HEX, is_digest
from s3_to_ecr.images.model import Image, Images, ObjectSource, open_current
from s3_to_ecr.layouts.jobs import Ignore
from s3_to_ecr.layouts.match import Match

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_STORAGE = re.compile(r"(?P<root>(?:.*?/)?docker/registry/v2/)(?P<path>.*)", re.DOTALL)
_BLOB = re.compile(rf"blobs/sha256/[0-9a-f]{{2}}/{HEX}/data")
_LAYER = re.compile(rf"repositories/(?P<repository>.+)/_layers/sha256/(?P<hex>{HEX})/link", re.DOTALL)
_REVISION = re.compile(rf"repositories/(?P<repository>.+)/_manifests/revisions/sha256/(?P<hex>{HEX})/link", re.DOTALL)
_TAG = re.compile(r"repositories/(?P<repository>.+)/_manifests/tags/(?P<tag>[^/]+)/current/link", re.DOTALL)

# A digest, and the line's end that an editor may have added.
_LONGEST_LINK = 256


def match(key: str) -> Match | Ignore | None:
    """The three kinds of links, under any root directory; all else of a registry is ignored."""
    storage = _STORAGE.fullmatch(key)
    if not storage:
        return None
    root, path = storage["root"], storage["path"]
    if found := _LAYER.fullmatch(path):
        digest = f"sha256:{found['hex']}"
        return Match(found["repository"], digest, blob_key=root + _blob_path(digest), part_of_image=True)
    if found := _REVISION.fullmatch(path):
        return Match(found["repository"], layout=RegistryLink(path, digest=f"sha256:{found['hex']}"))
    if found := _TAG.fullmatch(path):
        return Match(found["repository"], layout=RegistryLink(path, tag=found["tag"]))
    return Ignore("a registry's own file, which no image is named by", part_of_image=bool(_BLOB.fullmatch(path)))


@dataclass(frozen=True)
class RegistryLink:
    """The image that a link names: a tag's, or a revision's, whose digest its `path` tells, too."""

    path: str
    digest: str | None = None
    tag: str | None = None

    def open(self, s3: S3Client, created: ObjectCreated, _: Deadline) -> Images:
        """The link as it is now. Raises `BrokenManifest` when it holds no digest, and as `open_current`."""
        document = open_current(s3, created.bucket, created.key)
        told = document.read_all().decode(errors="replace").strip() if document.size <= _LONGEST_LINK else ""
        if not is_digest(told) or self.digest not in (None, told):
            raise BrokenManifest(
                f"the registry's link {document.uri} holds {told[:80]!r}, not the digest of a manifest."
            )
        root = created.key.removesuffix(self.path)
        source = ObjectSource(s3, created.bucket, lambda digest: (root + _blob_path(digest),))
        return Images(document, source, (Image(told, (self.tag,) if self.tag else ()),))


def _blob_path(digest: str) -> str:
    found = digest.removeprefix("sha256:")
    return f"blobs/sha256/{found[:2]}/{found}/data"
