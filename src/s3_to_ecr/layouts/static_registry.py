"""Static registry paths: blobs under the registry API's own names, as a registry served from plain files has them."""

from __future__ import annotations

import re

from s3_to_ecr.layouts.match import HEX, Match

_BLOB = re.compile(rf"(?P<folder>.+)/blobs/(?P<digest>sha256:{HEX})", re.DOTALL)


def match(key: str) -> Match | None:
    """`<repo>/blobs/sha256:<hex>`."""
    found = _BLOB.fullmatch(key)
    return Match(found["folder"], found["digest"]) if found else None
