"""Manifests and indexes, OCI's and Docker's: which blobs and which other manifests they name.

Sources: the OCI image spec 1.1 (manifest, index, descriptor) and Docker's image manifest version 2, schema 2. Only what
it takes to push an image is looked at, and nothing is ever rewritten, because a digest is over the exact bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from s3_to_ecr.errors import BrokenManifest, UnsupportedManifest
from s3_to_ecr.images.ecr_rules import doubts, refusal
from s3_to_ecr.media_types import DOCKER_MANIFEST, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST

# ECR's PutImage: the maximum length of `imageManifest`, in characters. No text has fewer bytes than characters.
MAX_MANIFEST_BYTES = 4_194_304

# The objects and lists of one document, and its commas. In memory an object is thirty times as large as its two bytes,
# and a short text fifteen times. A manifest of 500 layers with annotations has 1,000 objects and 5,000 commas.
_MOST_VALUES, _MOST_COMMAS = 50_000, 200_000

# An index of indexes of indexes is the deepest ever seen in practice.
MOST_LEVELS = 16

# What the manifests of one object have in all, and how many others they name: see `Allowance`. Indexes that share
# children ask ECR for each of them again and again, so the sum of what they name has a bound, too.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_NAMED = 5_000
_MOST_NAMINGS = 4 * _MOST_NAMED

# Docker's annotation for an attestation in an index, which nothing runs.
ATTESTATION = ("vnd.docker.reference.type", "attestation-manifest")

# RFC 6838: two names of up to 127 characters. No platform is longer.
_MEDIA_TYPE_LENGTH = 255

# OCI image spec, descriptor: a sha256 digest is 64 lower-case hex digits.
HEX = r"[0-9a-f]{64}"
_DIGEST = re.compile(rf"sha256:{HEX}")

_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

# Layers that must not be distributed. They are not pushed; clients that pull the image get them elsewhere.
_FOREIGN = re.compile(r"application/vnd\.(?:docker\.image\.rootfs\.foreign\.|oci\.image\.layer\.nondistributable\.)")

_SPLIT = "Split it into several."
_CONVERT = "Convert the image with `skopeo copy --format oci`, and drop the result."


@dataclass(frozen=True)
class Descriptor:
    """What one document says about another, or about a blob. Media type and platform are empty if they are left out."""

    digest: str
    media_type: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict, hash=False)
    platform: str = ""


@dataclass(frozen=True)
class Manifest:
    """A manifest or index: its exact bytes, and what has to be in the registry before it.

    `blobs` are the digests of config and layers, without those that are not distributed. `children` are what an index
    names. The `subject` is what an artifact is about; it may be missing from the registry. `refusal` says why ECR is
    known to refuse the manifest, and `doubts` why it may.
    """

    digest: str
    media_type: str
    content: bytes = field(repr=False)
    blobs: tuple[str, ...]
    children: tuple[Descriptor, ...]
    subject: Descriptor | None
    refusal: str | None
    doubts: tuple[str, ...]


class Allowance:
    """How much of the function's time and memory, and of ECR's quotas, the manifests of one object may take.

    300 images of four platforms, each with an attestation, name 2,400 manifests.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._read: set[str] = set()
        self._named: set[str] = set()
        self._namings = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the object has asked for more."""
        return self._bytes > _MOST_BYTES or self._names_too_many

    @property
    def _names_too_many(self) -> bool:
        return len(self._named) > _MOST_NAMED or self._namings > _MOST_NAMINGS

    def take(self, name: str, size: int) -> None:
        """Takes the `size` in bytes of the manifest or config of this name, once however often it is read.

        Raises `UnsupportedManifest` if that is more than one object may have.
        """
        if name not in self._read:
            self._read.add(name)
            self._bytes += size
        if self._bytes > _MOST_BYTES:
            raise UnsupportedManifest(f"the object's manifests have more than {_MOST_BYTES:,} bytes in all. {_SPLIT}")

    def parsed(self, content: bytes, expected: Descriptor) -> Manifest:
        """Reads a manifest, as `parse_manifest` does. Raises `UnsupportedManifest` if there is no allowance for it."""
        self.take(expected.digest, len(content))
        manifest = parse_manifest(content, expected)
        self._named.update(child.digest for child in manifest.children)
        self._namings += len(manifest.children)
        if self._names_too_many:
            raise UnsupportedManifest(f"the object's indexes name more than {_MOST_NAMED:,} manifests in all. {_SPLIT}")
        return manifest


def digest_of(content: bytes) -> str:
    """The digest that names these bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_digest(text: object) -> bool:
    """Whether this is a digest that ECR accepts."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def parse_manifest(content: bytes, expected: Descriptor) -> Manifest:
    """Reads the manifest or index that `expected` describes.

    Raises `BrokenManifest` if it does not have that digest or is not a manifest, and `UnsupportedManifest` for a kind
    that ECR does not accept.
    """
    found = digest_of(content)
    if found != expected.digest:
        raise BrokenManifest(f"the manifest {expected.digest} has the digest {found}. Copy the image again.")
    document = parse_document(content, f"the manifest {expected.digest}")
    media_type = document.get("mediaType") or expected.media_type or _guess_media_type(document)
    if not isinstance(media_type, str):
        raise BrokenManifest(f"the manifest {found} has a media type that is not a text.")
    if len(media_type) > _MEDIA_TYPE_LENGTH:
        raise BrokenManifest(f"the manifest {found} has a media type of {len(media_type):,} characters.")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise UnsupportedManifest(
            f"the manifest {found} is of Docker's schema 1, which ECR does not accept. {_CONVERT}"
        )
    if not {"manifests", "config", "layers", "blobs"} & document.keys():
        raise BrokenManifest(f"{found} is neither an image's manifest nor an index. Copy the image again.")
    config = [document["config"]] if document.get("config") else []
    subject = document.get("subject")
    layers = config + _list(document, "layers") + _list(document, "blobs")
    blobs = tuple(_descriptor(layer).digest for layer in layers if not _is_foreign(layer))
    children = tuple(map(_bare, descriptors(document)))
    return Manifest(
        digest=found,
        media_type=media_type,
        content=content,
        blobs=blobs,
        children=children,
        subject=_bare(_descriptor(subject)) if subject else None,
        refusal=refusal(document, media_type),
        doubts=doubts(document, media_type),
    )


def descriptors(index: Mapping[str, Any]) -> tuple[Descriptor, ...]:
    """What an index names, in its order."""
    return tuple(_descriptor(entry) for entry in _list(index, "manifests"))


def parse_json(content: bytes, name: str) -> Any:
    """What a document says. Raises `BrokenManifest` if it is not JSON or is too large, calling it by this `name`."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise BrokenManifest(f"{name} has more than the {MAX_MANIFEST_BYTES:,} bytes that ECR accepts.")
    if content.count(b"{") + content.count(b"[") > _MOST_VALUES:
        raise BrokenManifest(f"{name} has more than {_MOST_VALUES:,} objects and lists.")
    if content.count(b",") > _MOST_COMMAS:
        raise BrokenManifest(f"{name} has more than {_MOST_COMMAS:,} values.")
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        raise BrokenManifest(f"{name} is not JSON. Copy the image again.") from None


def parse_document(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises `BrokenManifest` for anything else, calling it by this `name`."""
    document = parse_json(content, name)
    if not isinstance(document, dict):
        raise BrokenManifest(f"{name} is not a JSON object.")
    return document


def is_manifest(content: bytes) -> bool:
    """Whether a blob is a manifest or index: by its media type, or without one by its members."""
    try:
        document = parse_document(content, "a blob")
    except BrokenManifest:
        return False
    if media_type := document.get("mediaType"):
        return isinstance(media_type, str) and media_type in MANIFEST_TYPES
    return document.get("schemaVersion") == 2 and ("manifests" in document or {"config", "layers"} <= document.keys())


def _guess_media_type(document: Mapping[str, Any]) -> str:
    """OCI's spec lets a manifest leave out its own media type. Docker's manifests never do."""
    if "manifests" in document:
        return OCI_INDEX
    config = document.get("config")
    is_docker = isinstance(config, dict) and config.get("mediaType") == _DOCKER_CONFIG
    return DOCKER_MANIFEST if is_docker else OCI_MANIFEST


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name) or []
    if not isinstance(found, list):
        raise BrokenManifest(f"the manifest's {name!r} is not a list.")
    return found


def _descriptor(entry: object) -> Descriptor:
    digest = entry.get("digest") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(digest, str):
        raise BrokenManifest("the manifest names something without a digest.")
    if not is_digest(digest):
        if re.fullmatch(r"[a-z0-9+._-]+:[0-9a-f]{32,}", digest) and not digest.startswith("sha256:"):
            raise UnsupportedManifest(f"the manifest names {digest}, and ECR accepts sha256 digests only.")
        raise BrokenManifest(f"the manifest names {digest!r}, which is not a digest.")
    media_type, annotations = entry.get("mediaType"), entry.get("annotations")
    return Descriptor(
        digest,
        media_type if isinstance(media_type, str) and len(media_type) <= _MEDIA_TYPE_LENGTH else "",
        annotations if isinstance(annotations, dict) else {},
        _platform(entry.get("platform")),
    )


def _bare(named: Descriptor) -> Descriptor:
    """What is needed of a manifest that another one names. Its annotations could take most of the memory."""
    name, value = ATTESTATION
    return replace(named, annotations={name: value} if named.annotations.get(name) == value else {})


def _platform(platform: object) -> str:
    """A platform as Docker's command line writes it, such as `linux/arm64/v8`."""
    if not isinstance(platform, dict):
        return ""
    parts = [platform.get(name) for name in ("os", "architecture", "variant")]
    text = "/".join(part for part in parts if part and isinstance(part, str))
    return text if len(text) <= _MEDIA_TYPE_LENGTH else ""


def _is_foreign(layer: object) -> bool:
    if not isinstance(layer, dict):
        return False
    media_type = layer.get("mediaType")
    return bool(layer.get("urls") or (isinstance(media_type, str) and _FOREIGN.match(media_type)))
