"""What a key means, one module for each layout of a bucket. What an image is made of belongs in `images`.

A layout's `match(key)` takes the key without KEY_PREFIX. It returns a `Match`, an `Ignore`, or `None` for a key that is
not of its layout. `route` asks the layouts in order; the first match wins.
"""

from __future__ import annotations

from s3_to_ecr.images.destination import destination, is_bundle
from s3_to_ecr.layouts import (
    bare_blob,
    helm_chart,
    image_archive,
    oci_layout,
    registry_storage,
    skopeo_dir,
    static_registry,
)
from s3_to_ecr.layouts.jobs import Ignore, Job, PushImages, UploadLayer
from s3_to_ecr.settings import Settings

_LAYOUTS = (registry_storage, oci_layout, static_registry, skopeo_dir, bare_blob, helm_chart, image_archive)


def route(key: str, settings: Settings) -> Job:
    """The job that a decoded key asks for.

    Raises `RepositoryNotNamed`, `InvalidRepositoryName` or `InvalidPath`, before any call to AWS.
    """
    if not key.startswith(settings.key_prefix):
        return Ignore(f"the key does not begin with KEY_PREFIX {settings.key_prefix!r}")
    path = key.removeprefix(settings.key_prefix)
    if not path or path.endswith("/"):
        return Ignore("a folder marker")
    match = next(filter(None, (layout.match(path) for layout in _LAYOUTS)))
    if isinstance(match, Ignore):
        return match
    in_bundle = is_bundle(settings, match.folder) and (match.folder is not None or match.may_be_bundle)
    if in_bundle:
        if match.part_of_image and not match.image_layout:
            return Ignore("a blob of a bundle: it is uploaded with the images that name it", part_of_image=True)
    else:
        destination(settings, match.folder)
    if match.image_layout and (in_bundle or not match.recognised):
        return PushImages(match.folder, match.image_layout, part_of_image=match.part_of_image)
    return UploadLayer(
        destination(settings, match.folder).repository,
        match.digest,
        blob_key=settings.key_prefix + match.blob_key if match.blob_key else None,
        part_of_image=match.part_of_image,
        may_be_manifest=match.may_be_manifest,
        recognised=match.recognised,
        folder=match.folder if match.recognised else None,
    )
