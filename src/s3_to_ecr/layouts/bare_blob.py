"""A blob on its own whose file name is its digest. The name is believed, because ECR verifies it."""

from __future__ import annotations

import re

from s3_to_ecr.images.manifests import HEX
from s3_to_ecr.layouts.jobs import Match

_PATH = re.compile(rf"(?:(?P<folder>.+)/)?(?:sha256:)?(?P<hex>{HEX})", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/sha256:<hex>` and `<repo>/<64 hex>`, where `<repo>/` is optional."""
    found = _PATH.fullmatch(key)
    return Match(found["folder"], f"sha256:{found['hex']}") if found else None
