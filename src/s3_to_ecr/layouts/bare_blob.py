"""A blob on its own: any other key. A file name that is a digest is believed, because ECR verifies it."""

from __future__ import annotations

import re

from s3_to_ecr.images.manifests import HEX
from s3_to_ecr.layouts.jobs import Match

_DIGEST = re.compile(rf"(?:sha256:)?(?P<hex>{HEX})")


def match(key: str) -> Match:
    """`<repo>/sha256:<hex>`, `<repo>/<64 hex>` and `<repo>/<anything else>`, where `<repo>/` is optional."""
    folder, slash, name = key.rpartition("/")
    digest = _DIGEST.fullmatch(name)
    return Match(folder if slash else None, f"sha256:{digest['hex']}" if digest else None)
