"""What a key means. One module a layout, each with a `match`; `route` asks them in order and the first answer counts.

A layout's `match(key)` takes the key without KEY_PREFIX and returns a `Match`, an `Ignore`, or `None` for a key that is
not of its layout; it raises a `Rejected` for a key that is, but cannot be served. Folders become repositories here.
"""

from __future__ import annotations

from s3_to_ecr.jobs import Ignore, UploadLayer
from s3_to_ecr.layouts import bare_blob, image_layouts, static_registry
from s3_to_ecr.settings import Settings

_LAYOUTS = (image_layouts, static_registry, bare_blob)


def route(key: str, settings: Settings) -> UploadLayer | Ignore:
    """The job that a decoded key asks for.

    Raises `UnsupportedLayout`, `RepositoryNotNamed` or `InvalidRepositoryName`, all before any call to AWS.
    """
    if not key.startswith(settings.key_prefix):
        return Ignore(f"the key does not begin with KEY_PREFIX {settings.key_prefix!r}")
    path = key.removeprefix(settings.key_prefix)
    if not path or path.endswith("/"):
        return Ignore("a folder marker")
    for layout in _LAYOUTS:
        match layout.match(path):
            case Ignore() as ignore:
                return ignore
            case found if found is not None:
                return UploadLayer(settings.target_repository(found.folder), found.digest)
    raise AssertionError(f"bare_blob takes every key, but not {path!r}")
