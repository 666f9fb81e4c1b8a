"""The `index.json` of an OCI image layout, as objects or within an archive: which images it names, and by which tags.

Source: the OCI image spec 1.1, "Image Layout Specification". A tag is in an annotation of the index's entry.
"""

from __future__ import annotations

import re

from s3_to_ecr.errors import BrokenManifest
from s3_to_ecr.images.manifests import Descriptor, descriptors, parse_document
from s3_to_ecr.images.model import Image, each_once
from s3_to_ecr.images.references import Reference, parse_reference

INDEX = "index.json"
MARKER = "oci-layout"


def blob_path(digest: str) -> str:
    """A blob's place in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def images_of(index: bytes) -> tuple[Image, ...]:
    """The images that an `index.json` names, each once, with all of its references. Raises `BrokenManifest`."""
    document = parse_document(index, INDEX)
    if "manifests" not in document:
        raise BrokenManifest(f"{INDEX} is not the index of an OCI image layout: it has no manifests.")
    return each_once(Image(entry.digest, _references(entry), entry.media_type) for entry in descriptors(document))


def _references(entry: Descriptor) -> tuple[Reference, ...]:
    """The entry's references: from OCI's annotation, which may hold a tag alone, and from containerd's."""
    name = entry.annotations.get("org.opencontainers.image.ref.name")
    full_name = entry.annotations.get("io.containerd.image.name")
    references = []
    if isinstance(name, str) and name:
        references.append(parse_reference(name) if re.search("[:/@]", name) else Reference(name))
    if isinstance(full_name, str):
        references.append(parse_reference(full_name))
    return tuple(reference for reference in references if reference.tag)
