"""Layouts whose keys are parts of images. This version pushes layers only, so it must not take these for bare blobs:
a manifest uploaded as a layer is of no use, and would pass for success.
"""

from __future__ import annotations

import re

from s3_to_ecr.errors import UnsupportedLayout
from s3_to_ecr.jobs import Ignore
from s3_to_ecr.layouts.match import HEX

# A self-hosted registry's bucket: distribution's storage layout, under any root directory.
_REGISTRY_STORAGE = re.compile(r"(?:.*/)?docker/registry/v2/(?P<path>.*)", re.DOTALL)
_REGISTRY_LINK = re.compile(
    rf"repositories/.+/(?:_layers/sha256/{HEX}|_manifests/revisions/sha256/{HEX}|_manifests/tags/[^/]+/current)/link",
    re.DOTALL,
)
_IMAGE_PART = re.compile(rf"(?:.+/)?(?:index\.json|blobs/sha256/{HEX})|.+/manifests/[^/]+", re.DOTALL)
_INSTEAD = "drop the layers as <repository>/<file>."
_OCI_LAYOUT_MARKER = re.compile(r"(?:.+/)?oci-layout", re.DOTALL)


def match(key: str) -> Ignore | None:
    """Ignores the files that no image needs; raises `UnsupportedLayout` for those that ask for an image."""
    if storage := _REGISTRY_STORAGE.fullmatch(key):
        if not _REGISTRY_LINK.fullmatch(storage["path"]):
            return Ignore("a registry's own file that no image is named by")
        raise UnsupportedLayout(f"this version does not mirror a registry's storage; {_INSTEAD}")
    if _OCI_LAYOUT_MARKER.fullmatch(key):
        return Ignore("the marker file of an OCI image layout")
    if _IMAGE_PART.fullmatch(key):
        raise UnsupportedLayout(f"this version does not push images; {_INSTEAD}")
    return None
