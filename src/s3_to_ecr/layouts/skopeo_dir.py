"""skopeo's `dir:` layout, of one image in a folder: `manifest.json`, `version`, and blobs called by their digests.

`skopeo sync --dest dir` names the folder by the image's reference. The manifests of an image of several platforms are
`<hex>.manifest.json`. Source: containers/image, directory/directory_transport.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import HEX, MAX_MANIFEST_BYTES, digest_of, parse_document
from s3_to_ecr.images.model import Image, PushRequest
from s3_to_ecr.images.object_source import ObjectSource, read_manifest
from s3_to_ecr.images.references import Reference, parse_reference
from s3_to_ecr.layouts.jobs import Ignore, Match
from s3_to_ecr.s3_objects import S3Object

_MANIFEST = "manifest.json"
_PATH = re.compile(
    rf"(?:(?P<folder>.+)/)?"
    rf"(?:(?P<hex>{HEX})|(?P<child>{HEX}\.manifest\.json)|(?P<signature>(?:{HEX}\.)?signature-\d+)"
    r"|(?P<name>manifest\.json|version))",
    re.DOTALL,
)

# What `version` holds: this, and a number.
_VERSION_TEXT = b"Directory Transport Version: "
_LONGEST_VERSION = 64


def match(key: str) -> Match | Ignore | None:
    """`<repo>[:<tag>]/manifest.json` and what is beside it, where `<repo>[:<tag>]/` is optional."""
    found = _PATH.fullmatch(key)
    if not found:
        return None
    reference = parse_reference(found["folder"] or "")
    if found["hex"]:
        return Match(reference.name, f"sha256:{found['hex']}", part_of_image=True)
    if found["child"]:
        return Ignore("a manifest: it is pushed with the manifest.json that names it", part_of_image=True)
    if found["signature"]:
        return Ignore("a signature of skopeo's dir: layout, which ECR does not take")
    if found["name"] == _MANIFEST:
        return Match(reference.name, image_layout=DirLayout(reference, is_sure=reference.name != found["folder"]))
    return Match(reference.name, image_layout=DirVersion())


@dataclass(frozen=True)
class DirLayout:
    """The image of a `manifest.json`, in a folder that is called by its `reference`.

    Unless the folder's name makes that sure, it may be something else, and then a blob like any other.
    """

    reference: Reference
    is_sure: bool

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | None:
        """The manifest as it is now. Its blobs may arrive later."""
        document = reader.open_current(target.bucket, target.key)
        if not self.is_sure and not 0 < document.size <= MAX_MANIFEST_BYTES:
            return None
        content = read_manifest(document)
        if not self.is_sure and not _is_manifest(content):
            return None
        folder = target.key.removesuffix(_MANIFEST)
        digest = digest_of(content)
        source = ObjectSource(
            reader,
            target.bucket,
            lambda digest: (folder + _hex(digest),),
            lambda digest: (f"{folder}{_hex(digest)}.{_MANIFEST}",),
            read={digest: content},
        )
        # In a bundle, where the folder has the reference, what comes before it only says that this is one.
        name = (self.reference.name or "").rpartition("_/")[2] or None
        return PushRequest(document, source, (Image(digest, (Reference(self.reference.tag, name),)),))


@dataclass(frozen=True)
class DirVersion:
    """The file that says in which version of skopeo's layout the others are. Anything else of that name is a blob."""

    def find(self, reader: ObjectReader, target: S3Object) -> Ignore | None:
        """Reads no more than such a file has."""
        blob = reader.open(target)
        if 0 < blob.size <= _LONGEST_VERSION and blob.read_all().startswith(_VERSION_TEXT):
            return Ignore("the version of skopeo's dir: layout")
        return None


def _is_manifest(content: bytes) -> bool:
    """Whether it is a manifest of any kind, supported or not, rather than an application's own `manifest.json`."""
    try:
        return "schemaVersion" in parse_document(content, _MANIFEST)
    except BrokenManifest:
        return False


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
