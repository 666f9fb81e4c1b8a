"""An image's configs and layers: those that ECR lacks, found first, then uploaded, several at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

from s3_to_ecr.aws.ecr import Registry
from s3_to_ecr.aws.ecr_part import base64_bytes
from s3_to_ecr.aws.s3 import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import (
    BlobsMissing,
    ObjectChanged,
    ObjectMissing,
    OutOfTime,
    Rejected,
    RetryLater,
    S3ToEcrError,
    UnsupportedManifest,
    UploadInProgress,
    combined,
)
from s3_to_ecr.images.manifests import Manifest
from s3_to_ecr.images.model import Images
from s3_to_ecr.push.layer import LayerMirror
from s3_to_ecr.push.layer_upload import FEWEST_PARTS, PARTS_SHARE
from s3_to_ecr.telemetry.logs import log_with, record_result

# Layers at a time, if there is memory for the parts of so many. More would not be faster: one of large layers fills
# the function's network, and of small ones these many make as many calls as ECR's quotas have room for.
_MOST_AT_ONCE = 4
_USUAL_PART_BYTES = 10 * 1024 * 1024

# Of a whole image. Docker allows 127 layers; who has more than these means no good.
_MOST_BLOBS = 10_000

# A layer that will never work is the end of its image, whatever becomes of the others.
_RANKING = (Rejected, OutOfTime, RetryLater)


class ImageLayers:
    """Uploads an image's blobs by way of `layers`, in `memory` bytes."""

    def __init__(self, registry: Registry, layers: LayerMirror, deadline: Deadline, memory: int) -> None:
        self._registry = registry
        self._layers = layers
        self._deadline = deadline
        self._memory = memory

    def upload_missing(self, manifests: Iterable[Manifest], images: Images, repository: str) -> bool:
        """Uploads what the manifests name and ECR lacks, if all of it is there to be uploaded; `False` if nothing was.

        Raises `BlobsMissing`, `UnsupportedManifest`, and as `LayerMirror.upload_missing`.
        """
        digests = dict.fromkeys(digest for manifest in manifests for digest in manifest.blobs)
        if len(digests) > _MOST_BLOBS:
            raise UnsupportedManifest(f"the image has {len(digests):,} blobs, and {_MOST_BLOBS:,} are the most.")
        availability = self._registry.layer_availability(repository, digests)
        blobs: dict[str, Blob] = {}
        for digest in digests:
            if availability[digest] != "AVAILABLE":
                self._deadline.require("the image's blobs")
                blobs[digest] = images.source.blob(digest)
        if blobs:
            self._upload_several(blobs, images.document, repository)
        return bool(blobs)

    def _upload_several(self, blobs: dict[str, Blob], document: Blob, repository: str) -> None:
        """Uploads layers at the same time, as many as the memory has room for.

        One that will never work stops those that have not begun; one that may work later stops no other.
        """
        at_once = max(1, min(_MOST_AT_ONCE, len(blobs), room_for_layers(self._memory)))
        failures: list[S3ToEcrError] = []
        with ThreadPoolExecutor(at_once, thread_name_prefix="layer") as threads:
            share = self._memory // at_once
            uploads = {
                digest: threads.submit(copy_context().run, self._upload, blob, document, repository, digest, share)
                for digest, blob in blobs.items()
            }
            for digest, upload in uploads.items():
                if error := _failure(upload, digest):
                    failures.append(error)
                if isinstance(error, Rejected):
                    threads.shutdown(wait=False, cancel_futures=True)
                    break
        if failures:
            failure = combined(failures, _RANKING)
            if isinstance(failure, OutOfTime):
                got_on = any(isinstance(error, OutOfTime) and error.got_on for error in failures)
                failure.got_on = got_on or len(failures) < len(blobs)
            raise failure

    def _upload(self, blob: Blob, document: Blob, repository: str, digest: str, memory: int) -> None:
        log_with(digest=digest)
        started = time.monotonic()
        try:
            result = self._layers.upload_missing(blob, repository, digest, memory)
        except (ObjectChanged, ObjectMissing) as error:
            if blob.key == document.key:
                raise
            # Of the image's own object a newer event is coming; of another one that only its own blob needs.
            raise BlobsMissing(error.reason, blob.key) from error
        except UploadInProgress as error:
            error.awaited = () if blob.key == document.key else (blob.key,)
            raise
        record_result(result, time.monotonic() - started)


def room_for_layers(memory: int) -> int:
    """For how many layers at a time the share of the `memory`, in bytes, that parts may take has room."""
    return memory // PARTS_SHARE // (FEWEST_PARTS * base64_bytes(_USUAL_PART_BYTES))


def _failure(upload: Future[None], digest: str) -> S3ToEcrError | None:
    """What went wrong with a layer, as far as it is an error of ours; others are raised."""
    try:
        upload.result()
    except S3ToEcrError as error:
        error.reason = f"layer {digest}: {error.reason}"
        return error
    return None
