"""What a key means. One module a layout, each with a `match`; `route` asks them in order and the first answer counts.

A layout's `match(key)` takes the key without KEY_PREFIX and returns a `Match`, an `Ignore`, or `None` for a key that is
not of its layout. Folders become repositories here.
"""

from __future__ import annotations

from s3_to_ecr.layouts import bare_blob, image_archive, oci_layout, registry_storage, static_registry
from s3_to_ecr.layouts.jobs import Ignore, Job, PushImage, UploadLayer
from s3_to_ecr.settings import Settings

_LAYOUTS = (registry_storage, oci_layout, static_registry, image_archive, bare_blob)


def route(key: str, settings: Settings) -> Job:
    """The job that a decoded key asks for.

    Raises `RepositoryNotNamed` or `InvalidRepositoryName`, before any call to AWS.
    """
    if not key.startswith(settings.key_prefix):
        return Ignore(f"the key does not begin with KEY_PREFIX {settings.key_prefix!r}")
    path = key.removeprefix(settings.key_prefix)
    if not path or path.endswith("/"):
        return Ignore("a folder marker")
    found = next(filter(None, (layout.match(path) for layout in _LAYOUTS)))
    if isinstance(found, Ignore):
        return found
    repository = settings.target_repository(found.folder)
    if found.layout:
        return PushImage(repository, found.layout, part_of_image=found.part_of_image)
    return UploadLayer(
        repository,
        found.digest,
        blob_key=settings.key_prefix + found.blob_key if found.blob_key else None,
        part_of_image=found.part_of_image,
        may_be_manifest=found.may_be_manifest,
    )
