"""The images in an image archive: those of an OCI layout, or those that `docker save` describes in its own way.

The layout may be in a folder: the only one of the archive, or `images/` in a package of Zarf.

Source of the latter: moby's image/spec/v1.2.md. `manifest.json` lists, for each image, its config, its tags and its
layers, from the lowest up; the config's `rootfs.diff_ids` are the digests of the uncompressed layers in that order.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import BlobRange, digest_by_reading
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenArchive, BrokenManifest, UnsupportedManifest
from s3_to_ecr.images.compression import GZIP, ZSTD
from s3_to_ecr.images.manifests import HEX, Allowance, digest_of, is_digest, parse_document, parse_json
from s3_to_ecr.images.model import MOST_IMAGES, Image, PushRequest, each_once
from s3_to_ecr.images.object_source import read_manifest
from s3_to_ecr.images.oci_index import INDEX, MARKER, blob_path, images_of
from s3_to_ecr.images.platforms import SAVE_AGAIN, what_is_there
from s3_to_ecr.images.references import parse_reference
from s3_to_ecr.images.tar import Archive
from s3_to_ecr.media_types import OCI_MANIFEST

_DESCRIPTION = "manifest.json"
_OF_AN_ENTRY = ("Config", "Layers", "RepoTags")
_BLOB = re.compile(rf"blobs/sha256/{HEX}")
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

_ZARF_PACKAGE = "zarf.yaml"
_ZARF_IMAGES = "images/"

_MOST_KEPT_BYTES = 16 * 1024 * 1024

# The layers of all images of an archive, which are kept in memory. A thousand images have fifty each on average.
_MOST_LAYERS = 50_000

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
        named = images_of(_read(archive, folder + INDEX))
        images = what_is_there([*named, *_left_out(archive, deadline)], source, deadline)
    else:
        entries = _entries(archive)
        if entries is None:
            return None
        archive.check()
        described = _Described(archive, deadline)
        images = each_once(described.all(entries))
        source = _ArchiveSource(archive, "", described.manifests, described.blobs)
    if not images:
        raise BrokenArchive("there are no images in the archive. Save the image again.")
    return PushRequest(
        blob, source, images, archive_name=name, is_stream=not archive.seekable, held_bytes=archive.held_bytes
    )


def _layout_folder(archive: Archive) -> str | None:
    """The path before an OCI layout's files in the archive, empty at its root; `None` if there is no layout."""
    top = {path.partition("/")[0] for path in archive}
    folders = ["", f"{next(iter(top))}/" if len(top) == 1 else "", _ZARF_IMAGES if _ZARF_PACKAGE in top else ""]
    return next((folder for folder in folders if folder + INDEX in archive and folder + MARKER in archive), None)


def _left_out(archive: Archive, deadline: Deadline) -> list[Image]:
    """The untagged images that the archive of a layout describes in `manifest.json`.

    Docker without the containerd store, from 25 to 28, leaves them out of `index.json`, all but one. It writes their
    manifests, though. Those have the same bytes as the ones made here, so their digests tell that they are there.
    """
    try:
        entries = _entries(archive) or []
        untagged = [each for each in entries if not each["RepoTags"] and _BLOB.fullmatch(str(each["Config"]))]
        return [image for image in _Described(archive, deadline).all(untagged) if blob_path(image.digest) in archive]
    except (BrokenArchive, BrokenManifest, UnsupportedManifest):
        return []  # the layout itself says what is in the archive


class _ArchiveSource:
    """The archive's members: those of an OCI layout in a `folder` by their paths.

    For images of `manifest.json` there are the manifests `made` for them, and the paths of their `blobs`, by digest.
    Manifests are kept, up to a limit, since they are asked for more than once.
    """

    def __init__(
        self,
        archive: Archive,
        folder: str = "",
        made: Mapping[str, bytes] | None = None,
        blobs: Mapping[str, str] | None = None,
    ) -> None:
        self._archive = archive
        self._folder = folder
        self._room = _MOST_KEPT_BYTES
        self._made = dict(made or {})
        self._blobs = blobs or {}

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
        found = self._archive.file(self._blobs.get(digest) or self._folder + blob_path(digest))
        if found is None:
            raise BrokenArchive(f"the archive does not have {digest}, which its manifests name. {SAVE_AGAIN}")
        return found


def _entries(archive: Archive) -> list[dict[str, Any]] | None:
    """The entries of `manifest.json`, one for each image; `None` if there is no such file, or it is something else."""
    if _DESCRIPTION not in archive:
        return None
    try:
        entries = parse_json(_read(archive, _DESCRIPTION), f"the archive's {_DESCRIPTION}")
        if isinstance(entries, list) and entries and all(map(_is_entry, entries)):
            return [{name: entry.get(name) for name in _OF_AN_ENTRY} for entry in entries]
        what = f"the archive's {_DESCRIPTION} does not list images."
    except (BrokenArchive, BrokenManifest) as error:
        what = error.reason
    if archive.is_of_images:
        raise BrokenManifest(f"{what} Save the image again.")
    return None


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and {"Config", "Layers"} <= entry.keys()


@dataclass(frozen=True)
class _Config:
    """What is needed of an image's config."""

    digest: str
    size: int
    diff_ids: list[str]


class _Described:
    """The images that the entries of `manifest.json` describe, with the `manifests` made for them, by digest.

    `blobs` are the paths of their configs and layers, by digest. Nothing is read twice.
    """

    def __init__(self, archive: Archive, deadline: Deadline) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, str] = {}
        self._archive = archive
        self._deadline = deadline
        self._allowance = Allowance()
        self._layers = 0
        self._configs: dict[str, _Config] = {}
        self._digests: dict[str, str] = {}

    def all(self, entries: list[dict[str, Any]]) -> list[Image]:
        """An image for each entry, even if several are the same."""
        if len(entries) > MOST_IMAGES:
            raise BrokenArchive(f"the archive has more than {MOST_IMAGES:,} images. Save them apart.")
        found = []
        for entry in entries:
            self._deadline.require("the archive's images")
            found.append(self._describe(entry))
        return found

    def _describe(self, entry: Mapping[str, Any]) -> Image:
        config_path, layer_paths, repo_tags = entry["Config"], entry["Layers"] or [], entry["RepoTags"] or []
        texts = [[config_path], layer_paths, repo_tags]
        if not all(isinstance(found, list) and all(isinstance(text, str) for text in found) for found in texts):
            raise BrokenManifest(f"the archive's {_DESCRIPTION} has values that are not paths or tags.")
        config = self._config(config_path)
        if len(config.diff_ids) != len(layer_paths):
            raise BrokenManifest(
                f"the image's config {config_path} does not have a diff_id for each of its {len(layer_paths)} layers."
            )
        self._layers += len(layer_paths)
        if self._layers > _MOST_LAYERS:
            raise BrokenArchive(f"the archive's images have more than {_MOST_LAYERS:,} layers in all. Save them apart.")
        layers = []
        for path, diff_id in zip(layer_paths, config.diff_ids, strict=True):
            blob = _file(self._archive, path)
            magic = self._archive.magic(path)
            compression = next((kind for start, kind in _COMPRESSIONS.items() if magic.startswith(start)), "")
            digest = self._digest(path, blob) if compression else diff_id
            self.blobs[digest] = path
            layers.append({"mediaType": _LAYER_TYPE + compression, "digest": digest, "size": blob.size})
        manifest = _manifest({"mediaType": _CONFIG_TYPE, "digest": config.digest, "size": config.size}, layers)
        digest = digest_of(manifest)
        self._allowance.take(digest, len(manifest))
        self.manifests[digest] = manifest
        return Image(digest, tuple(map(parse_reference, repo_tags)))

    def _config(self, path: str) -> _Config:
        if path not in self._configs:
            content = _read(self._archive, path)
            self._allowance.take(path, len(content))
            rootfs = parse_document(content, f"the image's config {path}").get("rootfs")
            diff_ids = (rootfs.get("diff_ids") or []) if isinstance(rootfs, dict) else []
            if not isinstance(diff_ids, list) or not all(map(is_digest, diff_ids)):
                raise BrokenManifest(f"the image's config {path} has no diff_ids that are digests.")
            self._configs[path] = _Config(digest_of(content), len(content), diff_ids)
            self.blobs[self._configs[path].digest] = path
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
