"""Sample images in every layout that the function knows. Their bytes are reproducible."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Files = dict[str, bytes]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF_NAME = "org.opencontainers.image.ref.name"


def digest_of(content: bytes) -> str:
    """The digest of these bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob_path(digest: str) -> str:
    """A blob's place in an OCI layout."""
    return f"blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True)
class Built:
    """A manifest or index, with the blobs and manifests below it by digest, in the order in which they are named."""

    manifest: bytes
    media_type: str = OCI_MANIFEST
    blobs: Files = field(default_factory=dict)
    children: tuple[Built, ...] = ()
    platform: Mapping[str, str] | None = None

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def descriptor(self) -> dict[str, Any]:
        """Its entry in an index."""
        platform = {"platform": self.platform} if self.platform else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest), **platform}

    @property
    def manifests(self) -> Files:
        """Its own manifest and those below it, by digest, children first."""
        below = {digest: content for child in self.children for digest, content in child.manifests.items()}
        return below | {self.digest: self.manifest}

    @property
    def all_blobs(self) -> Files:
        """Its own configs and layers and those below it, by digest."""
        return {digest: blob for child in self.children for digest, blob in child.all_blobs.items()} | self.blobs


def image(layers: list[bytes], *, architecture: str = "amd64", layer_type: str = OCI_LAYER, **more: Any) -> Built:
    """An OCI image of these layers, gzip-compressed or not; `more` goes into its manifest."""
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(_uncompressed(layer)) for layer in layers]},
            "history": [{"created_by": "s3-to-ecr"} for _ in layers],
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob_descriptor(config, OCI_CONFIG),
        "layers": [blob_descriptor(layer, layer_type) for layer in layers],
        **more,
    }
    blobs = {digest_of(blob): blob for blob in [config, *layers]}
    return Built(_json(manifest), blobs=blobs, platform={"architecture": architecture, "os": "linux"})


def index(*children: Built, **more: Any) -> Built:
    """An OCI index of these images; `more` goes into it."""
    entries = [child.descriptor for child in children]
    manifest = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}
    return Built(_json(manifest), OCI_INDEX, children=children)


def blob_descriptor(blob: bytes, media_type: str) -> dict[str, Any]:
    """A blob's descriptor in a manifest."""
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def oci_layout(images: Mapping[str, Built]) -> Files:
    """An OCI layout of images by tag, "" for none. `index.json` comes first, which is the worst order."""
    entries = [built.descriptor | ({"annotations": {_REF_NAME: tag}} if tag else {}) for tag, built in images.items()]
    contents = {
        digest: blob for built in images.values() for digest, blob in (built.manifests | built.all_blobs).items()
    }
    return {
        "index.json": _json({"schemaVersion": 2, "manifests": entries}),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        **{blob_path(digest): blob for digest, blob in contents.items()},
    }


def static_registry(tag: str, built: Built) -> Files:
    """The registry API's paths below a repository's name, the tag's manifest first."""
    return {
        f"manifests/{tag}": built.manifest,
        **{f"manifests/{digest}": manifest for digest, manifest in built.manifests.items()},
        **{f"blobs/{digest}": blob for digest, blob in built.all_blobs.items()},
    }


def skopeo_dir(built: Built) -> Files:
    """Skopeo's `dir:` layout, the manifest first."""
    children = {digest: content for digest, content in built.manifests.items() if digest != built.digest}
    return {
        "manifest.json": built.manifest,
        "version": b"Directory Transport Version: 1.1\n",
        **{f"{digest.removeprefix('sha256:')}.manifest.json": content for digest, content in children.items()},
        **{digest.removeprefix("sha256:"): blob for digest, blob in built.all_blobs.items()},
    }


def registry_storage(repository: str, tag: str, built: Built) -> Files:
    """The files that a registry's S3 driver writes for a push, in the same order."""
    root = "docker/registry/v2"
    mine = f"{root}/repositories/{repository}"
    files: Files = {}
    for kind, contents in (("_layers", built.all_blobs), ("_manifests/revisions", built.manifests)):
        for digest, content in contents.items():
            path = digest.removeprefix("sha256:")
            files[f"{root}/blobs/sha256/{path[:2]}/{path}/data"] = content
            files[f"{mine}/{kind}/sha256/{path}/link"] = digest.encode()
    path = built.digest.removeprefix("sha256:")
    files[f"{mine}/_manifests/tags/{tag}/index/sha256/{path}/link"] = built.digest.encode()
    files[f"{mine}/_manifests/tags/{tag}/current/link"] = built.digest.encode()
    return files


def docker_save(references: list[str], built: Built) -> bytes:
    """`docker save` before Docker 25: `manifest.json`, a config, and a folder for each uncompressed layer."""
    return docker_save_several([(references, built)])


def docker_save_several(saved: Iterable[tuple[list[str], Built]]) -> bytes:
    """`docker save` of several images before Docker 25. Podman's `save -m` looks much the same."""
    files: Files = {}
    descriptions = []
    for references, built in saved:
        config, *layers = built.blobs.values()
        name = f"{digest_of(config).removeprefix('sha256:')}.json"
        folders = [hashlib.sha256(layer + b"id").hexdigest() for layer in layers]
        files[name] = config
        for folder, layer in zip(folders, layers, strict=True):
            files |= {f"{folder}/VERSION": b"1.0", f"{folder}/json": b"{}", f"{folder}/layer.tar": layer}
        paths = [f"{folder}/layer.tar" for folder in folders]
        descriptions.append({"Config": name, "RepoTags": references or None, "Layers": paths})
    return tar(files | {"manifest.json": _json(descriptions), "repositories": b"{}"})


def docker_save_25(references: list[str], built: Built) -> bytes:
    """`docker save` from Docker 25 on: an OCI layout, with a `manifest.json` beside it."""
    entries = [
        built.descriptor | {"annotations": {"io.containerd.image.name": name, _REF_NAME: name.rpartition(":")[2]}}
        for name in (f"docker.io/library/{reference}" for reference in references)
    ]
    config, *layers = (blob_path(digest) for digest in built.blobs)
    description = {"Config": config, "RepoTags": references or None, "Layers": layers}
    files = oci_layout({"": built}) | {"manifest.json": _json([description])}
    if entries:
        files["index.json"] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    return tar(dict(sorted(files.items())))


def helm_chart(chart_yaml: str, more: Files | None = None) -> bytes:
    """A chart as `helm package` writes it, with Chart.yaml first, stored."""
    files = {"Chart.yaml": chart_yaml.encode(), "values.yaml": b"replicas: 1\n", **(more or {})}
    return stored(tar({f"chart/{path}": content for path, content in files.items()}))


def tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A tar archive with directories, files and then symbolic links, as the tools write it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        made: set[str] = set()
        for path, content in files.items():
            for folder in _folders(path, made):
                member = tarfile.TarInfo(folder)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def stored(content: bytes) -> bytes:
    """The content as gzip that does not compress: its bytes are the same with every version of zlib."""
    compressor = zlib.compressobj(level=0, wbits=31)
    return compressor.compress(content) + compressor.flush()


def compress(content: bytes, kind: str) -> bytes:
    """The content as the command of that name compresses it: gzip, zstd, xz or bzip2."""
    match kind:
        case "gzip":
            return gzip.compress(content, compresslevel=1, mtime=0)
        case "zstd":
            options: dict[int, int] = {
                zstd.CompressionParameter.compression_level: 1,
                zstd.CompressionParameter.checksum_flag: 1,
            }
            return zstd.compress(content, options=options)
        case "xz":
            return lzma.compress(content, preset=0)
        case _:
            return bz2.compress(content, compresslevel=1)


def _folders(path: str, made: set[str]) -> Iterable[str]:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in made and ".." not in parts:
            made.add(folder)
            yield folder


def _uncompressed(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
