"""What a layout finds in a key."""

from __future__ import annotations

from dataclasses import dataclass

from s3_to_ecr.images.model import ImageLayout


@dataclass(frozen=True)
class Match:
    """A blob, or the images of a `layout`, for the repository that `folder` is (`None` for a key with no folder).

    A blob comes with its digest where the key tells it, and with the key of its bytes, without KEY_PREFIX, if that is
    another one. The last two are as in `jobs`.
    """

    folder: str | None
    digest: str | None = None
    blob_key: str | None = None
    layout: ImageLayout | None = None
    part_of_image: bool = False
    may_be_manifest: bool = False
