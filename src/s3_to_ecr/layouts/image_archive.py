"""Image archives: `docker save` of every version, `docker-archive:` and `oci-archive:` of skopeo and podman.

From Docker 25 on such an archive is an OCI layout, whose manifests are pushed as they are. Older ones hold only
`manifest.json`, which names a config and layers but is not an image manifest. In that case one is made, with the config
and the layers exactly as they are in the archive.

Any of these may be compressed, with gzip, zstd, xz or bzip2. What an object is, its content says, whatever its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.errors import InvalidPath
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.layouts.jobs import Match
from s3_to_ecr.s3_objects import S3Object

# The endings that archives have, and those that say how they are compressed.
_ENDINGS = re.compile(
    r"(?:(?:\.(?:tar|oci|image|docker))*(?:\.(?:gz|zst|zstd|xz|bz2))?|\.(?:tgz|tzst|txz|tbz|tbz2))\Z", re.IGNORECASE
)


# A static registry's manifests, of which none has a slash in its tag.
_AMONG_MANIFESTS = re.compile(r".+/manifests/.+/(?P<name>[^/]+)", re.DOTALL)


def match(key: str) -> Match:
    """`<repo>/<any name>`, where `<repo>/` is optional. What is called `.tar` has to be a tar archive.

    Raises `InvalidPath` for what looks like a manifest of a static registry, and is none.
    """
    folder, slash, _ = key.rpartition("/")
    archive = archive_named(key)
    if (found := _AMONG_MANIFESTS.fullmatch(key)) and archive.name == found["name"]:
        raise InvalidPath(
            f"{key!r} is among the manifests of a static registry, and is not manifests/<tag or digest>. Rename the "
            "object. If it is a layer, name it by its digest."
        )
    recognised = None if archive.is_tar else archive
    return Match(folder if slash else None, image_layout=archive, recognised=recognised, may_be_bundle=True)


def archive_named(key: str) -> ImageArchive:
    """The archive at a key, if it is one."""
    name = key.rpartition("/")[2]
    found = _ENDINGS.search(name, 1)
    return ImageArchive(name[: found.start()] if found else name, is_tar=name.lower().endswith(".tar"))


@dataclass(frozen=True)
class ImageArchive:
    """The images in an archive with this `name`, without its endings. What its name calls a tar has to be one."""

    name: str
    is_tar: bool = True

    def is_likely(self, start: bytes) -> bool:
        """Whether an object that begins like this is probably an image archive."""
        # Imported here to start faster: layers with a known digest, and many others, do not need what this imports.
        from s3_to_ecr.images.tar import may_hold_images  # noqa: PLC0415

        return may_hold_images(start)

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | None:
        """The archive's images; `None` for something else."""
        from s3_to_ecr.images.image_archive import images_in  # noqa: PLC0415 (as above)
        from s3_to_ecr.images.tar import read_archive  # noqa: PLC0415

        blob = reader.open(target)
        archive = read_archive(blob, reader.deadline, reader.memory, is_tar=self.is_tar) if blob.size else None
        return images_in(archive, blob, self.name, reader.deadline) if archive else None
