"""Images of several platforms of which an archive holds only one.

Docker's containerd store keeps the index of what it has pulled, and the content of one platform. What it saves names
them all (moby#49473, deliberate); so does what `ctr` and `nerdctl` export. `docker push` pushes the one that is there,
and so does this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenArchive, BrokenManifest, UnsupportedManifest
from s3_to_ecr.images.manifests import ATTESTATION, MOST_LEVELS, Allowance, Descriptor, Manifest
from s3_to_ecr.images.model import Image, Source, each_once
from s3_to_ecr.media_types import INDEX_TYPES

SAVE_AGAIN = (
    "Save the image again. Of several platforms, save one: with `docker save --platform` from Docker 28 on (before, "
    "remove the image and pull one platform), `ctr images export --platform` or `nerdctl save --platform`. If "
    "Docker lacks a part, save the image with `skopeo copy --all docker://<image> oci-archive:<file>`."
)

# The platform of an attestation, too.
_UNKNOWN = "unknown/unknown"


def what_is_there(images: Iterable[Image], source: Source, deadline: Deadline) -> tuple[Image, ...]:
    """The images. But an index that is not complete becomes its only platform that is, if there is exactly one.

    Any other incomplete image is left as it is, so that pushing it fails or finds the rest in ECR. So is a broken one.
    Raises `UnsupportedManifest` if the archive's manifests exceed their allowance.
    """
    content = _Content(source, deadline)
    found = []
    for image in images:
        try:
            found.append(content.of(image))
        except (BrokenArchive, BrokenManifest, UnsupportedManifest):
            if content.allowance.is_exceeded:
                raise
            found.append(image)  # pushing it fails for the same reason, and stops no other image
    return each_once(found)


class _Content:
    """What of images is in their archive. Nothing is looked at twice: an index may name a manifest again and again."""

    def __init__(self, source: Source, deadline: Deadline) -> None:
        self.allowance = Allowance()
        self._source = source
        self._deadline = deadline
        self._complete: dict[str, bool] = {}

    def of(self, image: Image) -> Image:
        """The image, or its only complete platform."""
        is_index = not image.media_type or image.media_type in INDEX_TYPES
        if not is_index or not self._source.has(image.digest):
            return image
        index = self._read(Descriptor(image.digest, image.media_type))
        complete = {child.digest for child in index.children if self._is_complete(child)}
        if all(child.digest in complete for child in index.children):
            return image
        runnable = {child.digest: child for child in index.children if _is_runnable(child)}
        match [child for digest, child in runnable.items() if digest in complete]:
            case [child]:
                remark = f"of the index {image.digest} the archive holds only {child.platform or child.digest}"
                return replace(image, digest=child.digest, media_type=child.media_type, remark=remark)
        return image

    def _is_complete(self, descriptor: Descriptor, level: int = 1) -> bool:
        """Whether the manifest and all that it names are there."""
        if descriptor.digest not in self._complete:
            there = self._source.has(descriptor.digest) and level < MOST_LEVELS
            self._complete[descriptor.digest] = there and self._names_what_is_there(descriptor, level)
        return self._complete[descriptor.digest]

    def _names_what_is_there(self, descriptor: Descriptor, level: int) -> bool:
        manifest = self._read(descriptor)
        return all(map(self._source.has, manifest.blobs)) and all(
            self._is_complete(child, level + 1) for child in manifest.children
        )

    def _read(self, descriptor: Descriptor) -> Manifest:
        self._deadline.require("the archive's manifests")
        return self.allowance.parsed(self._source.manifest(descriptor.digest), descriptor)


def _is_runnable(child: Descriptor) -> bool:
    name, value = ATTESTATION
    return child.annotations.get(name) != value and child.platform != _UNKNOWN
