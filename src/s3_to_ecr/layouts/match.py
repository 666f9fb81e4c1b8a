"""What a layout finds in a key."""

from __future__ import annotations

from dataclasses import dataclass

# OCI image spec, descriptor: a sha256 digest is 64 lower-case hex digits.
HEX = r"[0-9a-f]{64}"


@dataclass(frozen=True)
class Match:
    """A blob in `folder` (`None` for a key with no folder), with its digest where the key tells it."""

    folder: str | None
    digest: str | None = None
