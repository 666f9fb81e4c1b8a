"""The configs and layers of an image: find those that ECR lacks, then upload several at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

from s3_to_ecr.blobs import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.ecr.layer_part import base64_bytes
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
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.push.layer import LayerPusher
from s3_to_ecr.push.layer_upload import FEWEST_PARTS, PARTS_SHARE
from s3_to_ecr.telemetry.logs import log_with, object_context
from s3_to_ecr.telemetry.outcomes import Outcomes

# How many layers at a time, if there is memory for their parts. More would not be faster: one of several large layers
# fills the function's network, and with small ones so many make as many calls as ECR's quotas have room for.
_MOST_AT_ONCE = 4
_USUAL_PART_BYTES = 10 * 1024 * 1024

# The blobs of a whole image. Docker allows 127 layers; more than this limit is treated as abuse.
_MOST_BLOBS = 10_000

# A layer that will never work ends its image, whatever becomes of the others.
_RANKING = (Rejected, OutOfTime, RetryLater)


class ImageLayers:
    """Uploads the blobs of an image, through `layers`. `memory` is the function's, in bytes."""

    def __init__(
        self, registry: Registry, layers: LayerPusher, deadline: Deadline, outcomes: Outcomes, memory: int
    ) -> None:
        self._registry = registry
        self._layers = layers
        self._deadline = deadline
        self._outcomes = outcomes
        self._memory = memory

    def missing(self, manifests: Iterable[Manifest], request: PushRequest, repository: str) -> dict[str, Blob]:
        """What the manifests name and ECR lacks, by digest, provided that all of it has arrived.

        Raises `BlobsMissing` for what has not arrived, and `UnsupportedManifest` for too many blobs.
        """
        digests = dict.fromkeys(digest for manifest in manifests for digest in manifest.blobs)
        if len(digests) > _MOST_BLOBS:
            raise UnsupportedManifest(f"the image has {len(digests):,} blobs, more than the limit of {_MOST_BLOBS:,}.")
        availability = self._registry.layer_availability(repository, digests)
        blobs: dict[str, Blob] = {}
        for digest in digests:
            if availability[digest] != "AVAILABLE":
                self._deadline.require("the image's blobs")
                blobs[digest] = request.source.blob(digest)
        return blobs

    def push_in_order(
        self, blobs: Mapping[tuple[str, str], Blob], document_key: str
    ) -> dict[tuple[str, str], S3ToEcrError]:
        """Uploads blobs of one stream, each by repository and digest, in one pass. Returns what has failed.

        If the stream cannot be read as far as a blob, neither can the blobs that come after it.
        """
        failures: dict[tuple[str, str], S3ToEcrError] = {}
        stopped: S3ToEcrError | None = None
        for (repository, digest), blob in sorted(blobs.items(), key=lambda item: item[1].offset):
            with object_context():
                log_with(repository=repository)
                try:
                    if not stopped:
                        stopped = _go_to(blob)
                    if stopped:
                        failures[repository, digest] = stopped
                        continue
                    self._push(blob, document_key, repository, digest, self._memory)
                except S3ToEcrError as error:
                    failures[repository, digest] = error
        return failures

    def push_missing(
        self,
        manifests: Iterable[Manifest],
        request: PushRequest,
        repository: str,
        failed: Mapping[tuple[str, str], S3ToEcrError],
    ) -> None:
        """Uploads what the manifests name and ECR lacks. Raises what `missing` does, and what has `failed` before."""
        blobs = self.missing(manifests, request, repository)
        if failures := [
            failed[repository, digest].within(f"layer {digest}") for digest in blobs if (repository, digest) in failed
        ]:
            raise combined(failures, _RANKING)
        if blobs:
            self._push_several(blobs, request.document.key, repository)

    def _push_several(self, blobs: dict[str, Blob], document_key: str, repository: str) -> None:
        """Uploads layers at the same time, as many as the memory has room for.

        A layer that will never work stops those that have not started. One that may work later stops no other.
        """
        at_once = max(1, min(_MOST_AT_ONCE, len(blobs), room_for_layers(self._memory)))
        if not all(blob.seekable for blob in blobs.values()):
            at_once = 1  # a stream can be read by one thread only
        failures: list[S3ToEcrError] = []
        with ThreadPoolExecutor(at_once, thread_name_prefix="layer") as threads:
            share = self._memory // at_once
            uploads = {
                digest: threads.submit(copy_context().run, self._push, blob, document_key, repository, digest, share)
                for digest, blob in blobs.items()
            }
            for digest, upload in uploads.items():
                if error := _failure(upload, digest):
                    failures.append(error)
                if isinstance(error, Rejected):
                    threads.shutdown(wait=False, cancel_futures=True)
                    break
        if failures:
            raise combined(failures, _RANKING)

    def _push(self, blob: Blob, document_key: str, repository: str, digest: str, memory: int) -> None:
        log_with(digest=digest)
        started = time.monotonic()
        is_own_object = blob.key != document_key
        try:
            result = self._layers.push_missing(blob, repository, digest, memory)
        except (ObjectChanged, ObjectMissing) as error:
            if not is_own_object:
                raise  # a newer event about the image's own object is coming
            # Nobody announces another object's change to the image, so the image waits for the blob to arrive again.
            raise BlobsMissing(error.reason, blob.key) from error
        except UploadInProgress as error:
            raise error.awaiting(*([blob.key] if is_own_object else [])) from error
        self._outcomes.record_layer(result, time.monotonic() - started)


def _go_to(blob: Blob) -> S3ToEcrError | None:
    """Goes to the beginning of a blob, before its lease is taken, since it may take long. Says what went wrong."""
    if not blob.seekable:
        try:
            for _ in blob.read(0, 0):
                pass
        except S3ToEcrError as error:
            return error
    return None


def room_for_layers(memory: int) -> int:
    """How many layers at a time have room in the share of the `memory`, in bytes, that parts may take."""
    return memory // PARTS_SHARE // (FEWEST_PARTS * base64_bytes(_USUAL_PART_BYTES))


def _failure(upload: Future[None], digest: str) -> S3ToEcrError | None:
    """What went wrong with a layer, if it is an error of ours. Raises any other error."""
    try:
        upload.result()
    except S3ToEcrError as error:
        return error.within(f"layer {digest}")
    return None
