"""A static registry: the registry API's own paths, as a registry served from plain files has them.

Source: the OCI distribution spec, endpoints `/v2/<name>/manifests/<reference>` and `/v2/<name>/blobs/<digest>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.errors import InvalidPath
from s3_to_ecr.images.manifests import HEX, digest_of, is_digest
from s3_to_ecr.images.model import Image, PushRequest
from s3_to_ecr.images.object_source import ObjectSource, read_manifest
from s3_to_ecr.images.references import Reference
from s3_to_ecr.layouts.jobs import Match
from s3_to_ecr.s3_objects import S3Object

_BLOB = re.compile(rf"(?P<folder>.+)/blobs/(?P<digest>sha256:{HEX})", re.DOTALL)
_AMONG_BLOBS = re.compile(r".+/blobs/(?:sha256|sha384|sha512|blake3):[^/]*", re.DOTALL)
_TAGS = re.compile(r".+/tags/list", re.DOTALL)
_MANIFEST = re.compile(r"(?P<folder>.+)/manifests/(?P<reference>[^/]+)", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/manifests/<tag or digest>` and `<repo>/blobs/sha256:<hex>`.

    Raises `InvalidPath` for a blob of any other digest, and for the registry's list of tags.
    """
    if found := _MANIFEST.fullmatch(key):
        reference = found["reference"]
        return Match(found["folder"], image_layout=StaticManifest(reference), part_of_image=is_digest(reference))
    if found := _BLOB.fullmatch(key):
        return Match(found["folder"], found["digest"], part_of_image=True)
    if _AMONG_BLOBS.fullmatch(key):
        raise InvalidPath(
            f"{key!r} is among the blobs of a static registry, and is not blobs/sha256:<64 lower-case hex digits>. "
            "Rename the object."
        )
    if _TAGS.fullmatch(key):
        raise InvalidPath(f"{key!r} is a registry's list of tags, which is not pushed. Leave it out, or rename it.")
    return None


@dataclass(frozen=True)
class StaticManifest:
    """The image that a tag or digest names: the `reference` in the registry API's sense."""

    reference: str

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest:
        """The manifest as it is now. Its blobs may arrive later."""
        document = reader.open_current(target.bucket, target.key)
        folder = target.key.removesuffix(f"/manifests/{self.reference}")
        content = read_manifest(document)
        if is_digest(self.reference):
            image = Image(self.reference)
        else:
            image = Image(digest_of(content), (Reference(self.reference),))
        source = ObjectSource(
            reader,
            target.bucket,
            lambda digest: (f"{folder}/blobs/{digest}",),
            # Some registries keep the children of an index under `blobs/` only.
            lambda digest: (f"{folder}/manifests/{digest}", f"{folder}/blobs/{digest}"),
            read={image.digest: content},
        )
        return PushRequest(document, source, (image,))
