"""A self-hosted registry's bucket, as the storage driver of CNCF distribution writes it. Harbor, GitLab: the same.

Blobs, manifests among them, are under `blobs/` and shared by all repositories. Which repository has which blob is in
*links*: small files that hold a digest. The last file that a push writes is the tag's `current/link`.
Source: distribution's registry/storage/paths.go. GitLab's registry may keep a database instead of the links. Then it
leaves a lock file beside them, once (its registry/storage/locker.go).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import HEX, is_digest
from s3_to_ecr.images.model import Image, PushRequest
from s3_to_ecr.images.object_source import ObjectSource
from s3_to_ecr.images.references import Reference
from s3_to_ecr.layouts.jobs import Ignore, Match
from s3_to_ecr.s3_objects import S3Object

_STORAGE = re.compile(r"(?P<root>(?:.*?/)?docker/registry/v2/)(?P<path>.*)", re.DOTALL)
_LOCK = re.compile(r"(?:.*/)?docker/registry/lockfiles/(?P<name>[^/]+)", re.DOTALL)
_DATABASE = "database-in-use"
_BLOB = re.compile(rf"blobs/sha256/[0-9a-f]{{2}}/{HEX}/data")
_LAYER = re.compile(rf"repositories/(?P<repository>.+)/_layers/sha256/(?P<hex>{HEX})/link", re.DOTALL)
_REVISION = re.compile(rf"repositories/(?P<repository>.+)/_manifests/revisions/sha256/(?P<hex>{HEX})/link", re.DOTALL)
_TAG = re.compile(r"repositories/(?P<repository>.+)/_manifests/tags/(?P<tag>[^/]+)/current/link", re.DOTALL)

# A digest, and the line break that an editor may have added.
_LONGEST_LINK = 256


def match(key: str) -> Match | Ignore | None:
    """The three kinds of links, under any root directory. A registry's other files are ignored."""
    if lock := _LOCK.fullmatch(key):
        return _locked(lock["name"])
    storage = _STORAGE.fullmatch(key)
    if not storage:
        return None
    root, path = storage["root"], storage["path"]
    if found := _LAYER.fullmatch(path):
        digest = f"sha256:{found['hex']}"
        return Match(found["repository"], digest, blob_key=root + _blob_path(digest), part_of_image=True)
    if found := _REVISION.fullmatch(path):
        return Match(found["repository"], image_layout=RegistryLink(path, digest=f"sha256:{found['hex']}"))
    if found := _TAG.fullmatch(path):
        return Match(found["repository"], image_layout=RegistryLink(path, tag=found["tag"]))
    return Ignore("a registry's own file that names no image", part_of_image=bool(_BLOB.fullmatch(path)))


def _locked(name: str) -> Ignore:
    if name != _DATABASE:
        return Ignore("a registry's lock file")
    return Ignore(
        "this GitLab registry keeps its repositories and tags in a database, and nothing in the bucket names them. "
        "Copy its images with skopeo sync, which reads the registry itself",
        trouble=True,
    )


@dataclass(frozen=True)
class RegistryLink:
    """The image that a link names: that of a tag, or that of a revision, whose digest is in its `path`, too."""

    path: str
    digest: str | None = None
    tag: str | None = None

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest:
        """The link as it is now. Raises `BrokenManifest` if it holds no digest, or another one than its path."""
        document = reader.open_current(target.bucket, target.key)
        content = document.read_all().decode(errors="replace").strip() if document.size <= _LONGEST_LINK else ""
        if not is_digest(content) or self.digest not in (None, content):
            raise BrokenManifest(
                f"the registry's link {document.uri} holds {content[:80]!r}, not the digest of a manifest."
            )
        root = target.key.removesuffix(self.path)
        source = ObjectSource(reader, target.bucket, lambda digest: (root + _blob_path(digest),))
        references = (Reference(self.tag),) if self.tag else ()
        return PushRequest(document, source, (Image(content, references),))


def _blob_path(digest: str) -> str:
    hex_digits = digest.removeprefix("sha256:")
    return f"blobs/sha256/{hex_digits[:2]}/{hex_digits}/data"
