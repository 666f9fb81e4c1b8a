"""The `index.json` of an OCI image layout, as objects or within an archive: which images it names, and by what names.

Sources: the OCI image spec 1.1, "Image Layout Specification", by which a tag is in an annotation of the index's entry;
and what the tools write. containerd and Docker add the full reference, Zarf has it as the base image's name, cosign and
Hauler give a signature the reference of its image and tell it by its kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import HEX, Descriptor, descriptors, parse_document
from s3_to_ecr.images.model import Image, each_once
from s3_to_ecr.images.references import Reference, parse_reference

INDEX = "index.json"
MARKER = "oci-layout"

_TAG_OR_REFERENCE = "org.opencontainers.image.ref.name"
_BASE_IMAGE = "org.opencontainers.image.base.name"
# Annotations with a full reference, the most reliable first.
_FULL_REFERENCES = ("io.containerd.image.name", _TAG_OR_REFERENCE, _BASE_IMAGE)

# The annotation `kind` of cosign's pkg/oci/layout and of Hauler's pkg/consts, which may add the image's digest.
_ACCESSORY = re.compile(
    rf"dev\.(?:cosignproject\.cosign|hauler)/(?P<kind>sigs|atts|sboms|referrers)(?:/(?P<hex>{HEX}))?"
)
# How cosign tags what belongs to the image of this digest. A referrer needs no tag: its manifest names its subject.
_ACCESSORY_TAGS = {"sigs": "sha256-{}.sig", "atts": "sha256-{}.att", "sboms": "sha256-{}.sbom"}
_ACCESSORY_TAG = re.compile(rf"sha256-{HEX}\.(?:sig|att|sbom)")


def blob_path(digest: str) -> str:
    """A blob's place in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def images_of(index: bytes) -> tuple[Image, ...]:
    """The images that an `index.json` names, each once, with all of its references. Raises `BrokenManifest`."""
    document = parse_document(index, INDEX)
    if "manifests" not in document:
        raise BrokenManifest(f"{INDEX} is not the index of an OCI image layout: it has no manifests.")
    entries = [(entry, _references(entry), _accessory(entry)) for entry in descriptors(document)]
    images = [Image(entry.digest, names, entry.media_type) for entry, names, accessory in entries if not accessory]
    named: dict[tuple[Reference, ...], set[str]] = {}
    for image in images:
        named.setdefault(image.references, set()).add(image.digest)
    accessories = [
        Image(entry.digest, _accessory_references(names, accessory, named), entry.media_type, accessory=True)
        for entry, names, accessory in entries
        if accessory
    ]
    return each_once([*images, *accessories])


def _references(entry: Descriptor) -> tuple[Reference, ...]:
    """What the entry calls its image: the first full reference, or in its repository the tag that is beside it."""
    texts = {name: text for name in _FULL_REFERENCES if isinstance(text := entry.annotations.get(name), str) and text}
    own = texts.get(_TAG_OR_REFERENCE, "")
    tag = None
    if own and not re.search("[:/@]", own):
        tag = texts.pop(_TAG_OR_REFERENCE)
    elif "@" in own or _ACCESSORY_TAG.fullmatch(parse_reference(own).tag or ""):
        return (parse_reference(own),)  # Hauler's: containerd's annotation names the image that this belongs to
    source = next(iter(texts), None)
    if source is None:
        return (Reference(tag),) if tag else ()
    full = parse_reference(texts[source])
    if tag is None:
        return (full,)
    # Beside a tag, the base image's name only tells the repository.
    other_tag = (full,) if full.tag not in (None, tag) and source != _BASE_IMAGE else ()
    return (Reference(tag, full.name), *other_tag)


def _accessory(entry: Descriptor) -> re.Match[str] | None:
    kind = entry.annotations.get("kind")
    return _ACCESSORY.fullmatch(kind) if isinstance(kind, str) else None


def _accessory_references(
    names: tuple[Reference, ...], found: re.Match[str], named: Mapping[tuple[Reference, ...], set[str]]
) -> tuple[Reference, ...]:
    """What an accessory is called: the tag under which cosign looks for it, in the repository of its image.

    Unless its kind tells the image, that is the only one that is `named` as it is.
    """
    if any(_ACCESSORY_TAG.fullmatch(name.tag or "") for name in names):
        return names
    repository = next((name.name for name in names), None)
    digests = named.get(names, set())
    subject = found["hex"] or (next(iter(digests)).removeprefix("sha256:") if len(digests) == 1 else None)
    if subject and (tag := _ACCESSORY_TAGS.get(found["kind"])):
        return (Reference(tag.format(subject), repository),)
    return (Reference(None, repository),) if repository else ()
