"""Image archives: `docker save` of all generations, `docker-archive:` and `oci-archive:` of skopeo and podman.

From Docker 25 on such an archive is an OCI layout, whose manifests are pushed as they are. Before, there is only
`manifest.json`, which names a config and layers but is no image manifest: then one is made, with the config and the
layers as they are in the archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_to_ecr.aws.s3 import open_blob
from s3_to_ecr.carriers.notifications import ObjectCreated
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.images.model import Images
from s3_to_ecr.layouts.match import Match

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_KEY = re.compile(r"(?:(?P<folder>.+)/)?(?P<name>[^/]+)(?P<kind>\.tar|\.tar\.gz|\.tgz)", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/<name>.tar`, where `<repo>/` may be left out; and compressed ones, to refuse what is an image archive."""
    found = _KEY.fullmatch(key)
    if not found:
        return None
    layout = ImageArchive(found["name"]) if found["kind"] == ".tar" else CompressedArchive()
    return Match(found["folder"], layout=layout)


@dataclass(frozen=True)
class ImageArchive:
    """The images in a tar archive. The archive's `name` is the tag of a single image that has no other."""

    name: str

    def open(self, s3: S3Client, created: ObjectCreated, deadline: Deadline) -> Images | None:
        """The archive's images; `None` for another tar. Raises as `read_archive` and `images_in`, and `open_blob`."""
        # Only archives need what these import.
        from s3_to_ecr.images.image_archive import images_in  # noqa: PLC0415
        from s3_to_ecr.images.tar import read_archive  # noqa: PLC0415

        blob = open_blob(s3, created)
        archive = read_archive(blob, deadline) if blob.size else None
        return images_in(archive, blob, self.name, deadline) if archive else None


@dataclass(frozen=True)
class CompressedArchive:
    """A layer, as a rule. An image archive, compressed, cannot be read in pieces."""

    def open(self, s3: S3Client, created: ObjectCreated, _: Deadline) -> None:
        """Raises `UnsupportedArchive` for an image archive, and as `open_blob`."""
        from s3_to_ecr.images.tar import WINDOW_BYTES, refuse_compressed  # noqa: PLC0415

        blob = open_blob(s3, created)
        if blob.size:
            refuse_compressed(b"".join(blob.read(0, min(blob.size, WINDOW_BYTES))))
