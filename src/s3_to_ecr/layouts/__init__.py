"""What a key means. One module a layout, each with a `match`; `route` asks them in order and the first answer counts.

A layout's `match(key)` takes the key without KEY_PREFIX and returns a `Match`, an `Ignore`, or `None` for a key that is
not of its layout; it raises a `Rejected` for a key that is, but cannot be served. Folders become repositories here.
"""

from __future__ import annotations

from s3_to_ecr.jobs import Ignore, UploadLayer
from s3_to_ecr.layouts import bare_blob, image_layouts, static_registry
from s3_to_ecr.settings import Settings


def route(key: str, settings: Settings) -> UploadLayer | Ignore:
    """The job that a decoded key asks for.

    Raises `UnsupportedLayout`, `RepositoryNotNamed` or `InvalidRepositoryName`, all before any call to AWS.
    """
    if not key.startswith(settings.key_prefix):
        return Ignore(f"the key does not begin with KEY_PREFIX {settings.key_prefix!r}")
    path = key.removeprefix(settings.key_prefix)
    if not path or path.endswith("/"):
        return Ignore("a folder marker")
    found = image_layouts.match(path) or static_registry.match(path) or bare_blob.match(path)
    if isinstance(found, Ignore):
        return found
    return UploadLayer(settings.target_repository(found.folder), found.digest)
