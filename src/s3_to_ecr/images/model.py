"""Images as a layout finds them: by digest, with references, and a source for all that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import Blob
from s3_to_ecr.errors import UnsupportedManifest
from s3_to_ecr.images.manifests import Allowance, Descriptor, Manifest
from s3_to_ecr.images.references import Reference

# What one object may ask for. Each is a call of PutImage, of which ECR takes ten a second for the whole account.
MOST_IMAGES = 1_000
_MOST_TAGS = 1_000


@dataclass(frozen=True)
class Image:
    """A root manifest or index, and the references that are to name it. The media type is empty if nobody states it.

    An `accessory` is the signature, attestation or SBOM of another image. The `remark` says what is unusual about what
    is pushed.
    """

    digest: str
    references: tuple[Reference, ...] = ()
    media_type: str = ""
    accessory: bool = False
    remark: str | None = None


def each_once(images: Iterable[Image]) -> tuple[Image, ...]:
    """Images that may be named several times, each once: with all of its references, and its first media type.

    Raises `UnsupportedManifest` for more images or tags than one object may ask for.
    """
    first: dict[str, Image] = {}
    references: dict[str, dict[Reference, None]] = {}
    for image in images:
        first.setdefault(image.digest, image)
        references.setdefault(image.digest, {}).update(dict.fromkeys(image.references))
    tags = sum(map(len, references.values()))
    for found, most, what in (len(first), MOST_IMAGES, "images"), (tags, _MOST_TAGS, "tags"):
        if found > most:
            raise UnsupportedManifest(f"the object names {found:,} {what}, more than {most:,}. Split it into several.")
    return tuple(replace(image, references=tuple(references[digest])) for digest, image in first.items())


class Source(Protocol):
    """Where manifests and blobs are, by digest.

    Raises `BlobsMissing` for what has not arrived yet, and `BrokenArchive` for what can no longer arrive.
    """

    def has(self, digest: str) -> bool:
        """Whether a manifest has arrived."""
        ...

    def manifest(self, digest: str) -> bytes:
        """A manifest's bytes, whether they have that digest or not. Raises `BrokenManifest` if it is too large."""
        ...

    def blob(self, digest: str) -> Blob:
        """A config or layer, not read yet."""
        ...


@dataclass(frozen=True)
class PushRequest:
    """What one object asks to be pushed. The `document` is that object; it sets its tags only while it is current.

    An archive has a name: that of its file, without the ending.
    If it `is_stream`, blobs can only be read in the order of their offsets, or each takes another pass.
    `held_bytes` of memory are in use until everything is pushed.
    `has_grown` says, after the push, whether something has arrived by now that should have been pushed with it.
    The `allowance` is what its manifests may take.
    """

    document: ObjectRange
    source: Source
    images: tuple[Image, ...]
    archive_name: str | None = None
    is_stream: bool = False
    held_bytes: int = 0
    has_grown: Callable[[], bool] | None = None
    allowance: Allowance = field(default_factory=Allowance)

    @property
    def shares_tags(self) -> bool:
        """Whether other objects in the folder may well have the same tags.

        A folder has one `index.json`, but the archives of many builds may each hold the tag `latest`.
        """
        return self.archive_name is not None

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Reads a manifest that the images need. Raises `UnsupportedManifest` if the allowance is exceeded."""
        return self.allowance.parsed(self.source.manifest(descriptor.digest), descriptor)

    def with_default_tag(self) -> PushRequest:
        """The same request. But if an archive's only image has no tag, the archive's name is its tag."""
        match [image for image in self.images if not image.accessory]:
            case [image] if self.archive_name and not any(reference.tag for reference in image.references):
                tagged = replace(image, references=(*image.references, Reference(self.archive_name)))
                return replace(self, images=tuple(tagged if each is image else each for each in self.images))
        return self
