"""The images in an image archive: those of an OCI layout, or those that `docker save` describes in its own way.

The layout may be in a folder: the only one of the archive, or `images/` in a package of Zarf.

Source of the latter: moby's image/spec/v1.2.md. `manifest.json` lists, for each image, its config, its tags and its
layers, from the lowest up; the config's `rootfs.diff_ids` are the digests of the uncompressed layers in that order.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import BlobRange, digest_by_reading
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenArchive, BrokenManifest
from s3_to_ecr.images.compression import GZIP, ZSTD
from s3_to_ecr.images.manifests import HEX, digest_of, is_digest, parse_document
from s3_to_ecr.images.model import Image, PushRequest, each_once
from s3_to_ecr.images.object_source import read_manifest
from s3_to_ecr.images.oci_index import INDEX, MARKER, blob_path, images_of
from s3_to_ecr.images.platforms import SAVE_AGAIN, what_is_there
from s3_to_ecr.images.references import Reference, parse_reference
from s3_to_ecr.images.tar import Archive
from s3_to_ecr.media_types import OCI_MANIFEST

_DESCRIPTION = "manifest.json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

_ZARF_PACKAGE = "zarf.yaml"
_ZARF_IMAGES = "images/"

_MOST_IMAGES = 1_000
_MOST_KEPT_BYTES = 16 * 1024 * 1024

# `docker save` leaves layers uncompressed; crane, kaniko and jib keep them as the registry had them, named by digest.
_COMPRESSIONS = {GZIP: "+gzip", ZSTD: "+zstd"}
_NAMED_BY_DIGEST = re.compile(rf"(?:sha256:)?(?P<hex>{HEX})(?:\.tar\.gz|\.tar\.zst)?")


def images_in(archive: Archive, blob: ObjectRange, name: str, deadline: Deadline) -> PushRequest | None:
    """What the archive in `blob`, which is called `name`, asks to be pushed; `None` if it is not an image archive.

    Raises `BrokenArchive` or `BrokenManifest`.
    """
    folder = _layout_folder(archive)
    if folder is not None:
        archive.check()
        source = _ArchiveSource(archive, folder)
        images = what_is_there(images_of(_read(archive, folder + INDEX)), source, deadline)
    else:
        entries = _entries(archive)
        if entries is None:
            return None
        archive.check()
        described = _Describing(archive, deadline).all(entries)
        source = _ArchiveSource(archive, described=described)
        images = each_once(Image(image.digest, image.references) for image in described)
    if not images:
        raise BrokenArchive("there are no images in the archive. Save the image again.")
    return PushRequest(blob, source, images, archive_name=name, is_stream=not archive.seekable)


def _layout_folder(archive: Archive) -> str | None:
    """The path before an OCI layout's files in the archive, empty at its root; `None` if there is no layout."""
    top = {path.partition("/")[0] for path in archive}
    folders = ["", f"{next(iter(top))}/" if len(top) == 1 else "", _ZARF_IMAGES if _ZARF_PACKAGE in top else ""]
    return next((folder for folder in folders if folder + INDEX in archive and folder + MARKER in archive), None)


class _ArchiveSource:
    """The archive's members: those of an OCI layout in a `folder` by their paths, `described` images as described.

    Manifests are kept, up to a limit, since they are asked for more than once.
    """

    def __init__(self, archive: Archive, folder: str = "", described: Iterable[_Described] = ()) -> None:
        self._archive = archive
        self._folder = folder
        self._room = _MOST_KEPT_BYTES
        self._made = {image.digest: image.manifest for image in described}
        self._blobs = {digest: blob for image in described for digest, blob in image.blobs.items()}

    def has(self, digest: str) -> bool:
        return digest in self._made or digest in self._blobs or self._folder + blob_path(digest) in self._archive

    def manifest(self, digest: str) -> bytes:
        if digest in self._made:
            return self._made[digest]
        content = read_manifest(self.blob(digest))
        if len(content) <= self._room:
            self._room -= len(content)
            self._made[digest] = content
        return content

    def blob(self, digest: str) -> BlobRange:
        found = self._blobs.get(digest) or self._archive.file(self._folder + blob_path(digest))
        if found is None:
            raise BrokenArchive(f"the archive does not have {digest}, which its manifests name. {SAVE_AGAIN}")
        return found


@dataclass(frozen=True)
class _Described:
    """An image of `manifest.json`, with the manifest made for it and where its blobs are."""

    digest: str
    manifest: bytes
    references: tuple[Reference, ...]
    blobs: Mapping[str, BlobRange]


def _entries(archive: Archive) -> list[dict[str, Any]] | None:
    """The entries of `manifest.json`, one for each image; `None` if there is no such file, or it is something else."""
    if _DESCRIPTION not in archive:
        return None
    try:
        entries = json.loads(_read(archive, _DESCRIPTION))
        if isinstance(entries, list) and entries and all(map(_is_entry, entries)):
            return entries
        what = "does not list images"
    except (BrokenArchive, BrokenManifest) as error:
        what = f"cannot be read: {error.reason}"
    except (ValueError, RecursionError):
        what = "is not JSON"
    if archive.is_of_images:
        raise BrokenManifest(f"the archive's {_DESCRIPTION} {what}. Save the image again.")
    return None


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and {"Config", "Layers"} <= entry.keys()


class _Describing:
    """Makes images of the entries of `manifest.json`. Nothing is read twice."""

    def __init__(self, archive: Archive, deadline: Deadline) -> None:
        self._archive = archive
        self._deadline = deadline
        self._configs: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}

    def all(self, entries: list[dict[str, Any]]) -> list[_Described]:
        """An image for each entry, even if several are the same."""
        if len(entries) > _MOST_IMAGES:
            raise BrokenArchive(f"the archive has more than {_MOST_IMAGES:,} images. Save them apart.")
        found = []
        for entry in entries:
            self._deadline.require("the archive's images")
            found.append(self._describe(entry))
        return found

    def _describe(self, entry: Mapping[str, Any]) -> _Described:
        config_path, layer_paths, repo_tags = entry["Config"], entry.get("Layers") or [], entry.get("RepoTags") or []
        texts = [[config_path], layer_paths, repo_tags]
        if not all(isinstance(found, list) and all(isinstance(text, str) for text in found) for found in texts):
            raise BrokenManifest(f"the archive's {_DESCRIPTION} has values that are not paths or tags.")
        content = self._config(config_path)
        rootfs = parse_document(content, f"the image's config {config_path}").get("rootfs")
        diff_ids = (rootfs.get("diff_ids") or []) if isinstance(rootfs, dict) else []
        if not isinstance(diff_ids, list) or not all(map(is_digest, diff_ids)) or len(diff_ids) != len(layer_paths):
            raise BrokenManifest(
                f"the image's config {config_path} does not have a diff_id for each of its {len(layer_paths)} layers."
            )
        config_digest = digest_of(content)
        config = {"mediaType": _CONFIG_TYPE, "digest": config_digest, "size": len(content)}
        blobs = {config_digest: _file(self._archive, config_path)}
        layers = []
        for path, diff_id in zip(layer_paths, diff_ids, strict=True):
            blob = _file(self._archive, path)
            magic = self._archive.magic(path)
            compression = next((kind for start, kind in _COMPRESSIONS.items() if magic.startswith(start)), "")
            digest = self._digest(path, blob) if compression else diff_id
            blobs[digest] = blob
            layers.append({"mediaType": _LAYER_TYPE + compression, "digest": digest, "size": blob.size})
        manifest = _manifest(config, layers)
        return _Described(digest_of(manifest), manifest, tuple(map(parse_reference, repo_tags)), blobs)

    def _config(self, path: str) -> bytes:
        if path not in self._configs:
            self._configs[path] = _read(self._archive, path)
        return self._configs[path]

    def _digest(self, path: str, blob: BlobRange) -> str:
        """A compressed layer's digest: from its name, which ECR will verify, or else from its bytes."""
        if named := _NAMED_BY_DIGEST.fullmatch(posixpath.basename(path)):
            return f"sha256:{named['hex']}"
        if path not in self._digests:
            self._digests[path] = digest_by_reading(blob, self._deadline, "the digests of the archive's layers")
        return self._digests[path]


def _manifest(config: Mapping[str, Any], layers: list[dict[str, Any]]) -> bytes:
    """An OCI manifest. The bytes must be the same whenever it is made, or a repeat would be another image."""
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(manifest, separators=(",", ":")).encode()


def _file(archive: Archive, path: str) -> BlobRange:
    found = archive.file(path)
    if found is None:
        raise BrokenArchive(
            f"the archive does not have {path!r}, which its {_DESCRIPTION} names. Save the image again."
        )
    return found


def _read(archive: Archive, path: str) -> bytes:
    return read_manifest(_file(archive, path))
