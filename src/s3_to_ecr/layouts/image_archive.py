"""Image archives: `docker save` of every version, `docker-archive:` and `oci-archive:` of skopeo and podman.

From Docker 25 on such an archive is an OCI layout, whose manifests are pushed as they are. Older ones hold only
`manifest.json`, which names a config and layers but is not an image manifest. In that case one is made, with the config
and the layers exactly as they are in the archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.layouts.jobs import Match
from s3_to_ecr.s3_objects import S3Object

_KEY = re.compile(r"(?:(?P<folder>.+)/)?(?P<name>[^/]+)(?P<kind>\.tar|\.tar\.gz|\.tgz)", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/<name>.tar`, where `<repo>/` is optional; and compressed ones, to refuse image archives among them."""
    found = _KEY.fullmatch(key)
    if not found:
        return None
    image_layout = ImageArchive(found["name"]) if found["kind"] == ".tar" else CompressedArchive()
    return Match(found["folder"], image_layout=image_layout, may_be_bundle=True)


@dataclass(frozen=True)
class ImageArchive:
    """The images in a tar archive with this `name`, without the ending."""

    name: str

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | None:
        """The archive's images; `None` for a tar of something else."""
        # Imported here to start faster: only archives need what these import.
        from s3_to_ecr.images.image_archive import images_in  # noqa: PLC0415
        from s3_to_ecr.images.tar import read_archive  # noqa: PLC0415

        blob = reader.open(target)
        archive = read_archive(blob, reader.deadline) if blob.size else None
        return images_in(archive, blob, self.name, reader.deadline) if archive else None


@dataclass(frozen=True)
class CompressedArchive:
    """As a rule a layer. A compressed image archive cannot be read in pieces."""

    def find(self, reader: ObjectReader, target: S3Object) -> None:
        """Raises `UnsupportedArchive` for an image archive."""
        from s3_to_ecr.images.tar import WINDOW_BYTES, refuse_compressed  # noqa: PLC0415 (as above)

        blob = reader.open(target)
        if blob.size:
            refuse_compressed(b"".join(blob.read(0, min(blob.size, WINDOW_BYTES))))
