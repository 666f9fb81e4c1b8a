"""The configs and layers of the images of an object: find those that ECR lacks, and upload several at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from s3_to_ecr.aws.clients import LAYERS_AT_ONCE
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
    UploadInProgress,
    combined,
    forget_locals,
)
from s3_to_ecr.images.manifests import Manifest
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.push.largest_first import LargestFirst
from s3_to_ecr.push.layer import LayerPusher
from s3_to_ecr.push.layer_upload import FEWEST_PARTS
from s3_to_ecr.telemetry.logs import log_with, object_context
from s3_to_ecr.telemetry.outcomes import Outcomes

# All layers together may take a seventh of the function's memory: 153 MB of 1,024 MiB. What a compressed archive keeps
# in memory leaves less of it. A layer of several parts takes 32 MB: two parts of 14 MB in base64, one sent and one
# read, and 4 MB on their way between them. So there are four at a time, which fill a function's network. The rest is
# for Python and the SDK (95 MB), sixteen small blobs of 1.4 MB, what the allocator keeps, the manifests of an image
# (16 MiB), and a document that is being read (50 MB). docs/security.md has what the worst objects take in all.
_IMAGE_SHARE = 7
_ON_THE_WAY_BYTES = 4_000_000
_USUAL_PART_BYTES = 10 * 1024 * 1024
_SMALL_BYTES = 1024 * 1024

# A layer that will never work ends its image, whatever becomes of the others.
_RANKING = (Rejected, OutOfTime, RetryLater)


# What became of layers that were uploaded in the order of a stream, by repository and digest: `None` is success.
Streamed = dict[tuple[str, str], S3ToEcrError | None]


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

        Raises `BlobsMissing` for what has not arrived.
        """
        digests = dict.fromkeys(digest for manifest in manifests for digest in manifest.blobs)
        availability = self._registry.layer_availability(repository, digests)
        blobs: dict[str, Blob] = {}
        for digest in digests:
            if availability[digest] != "AVAILABLE":
                self._deadline.require("the image's blobs")
                blobs[digest] = request.source.blob(digest)
        return blobs

    def push_in_order(self, blobs: Mapping[tuple[str, str], Blob], document_key: str) -> Streamed:
        """Uploads blobs of one stream, each by repository and digest, in one pass. Returns what became of each.

        If the stream cannot be read as far as a blob, neither can the blobs that come after it.
        """
        ended: Streamed = {}
        stopped: S3ToEcrError | None = None
        for (repository, digest), blob in sorted(blobs.items(), key=lambda item: item[1].offset):
            with object_context():
                log_with(repository=repository)
                try:
                    if not stopped:
                        stopped = _go_to(blob)
                    if not stopped:
                        self.push(blob, document_key, repository, digest, self._memory)
                    ended[repository, digest] = stopped
                except S3ToEcrError as error:
                    forget_locals(error)
                    ended[repository, digest] = error
        return ended

    @contextmanager
    def uploads(self, request: PushRequest, streamed: Streamed) -> Iterator[LayerUploads]:
        """The uploads of all images of an object, but for the layers that were `streamed` before."""
        # A stream can be read by one thread only.
        at_once = 1 if request.is_stream else LAYERS_AT_ONCE
        with LargestFirst(at_once, self._memory // _IMAGE_SHARE - request.held_bytes) as threads:
            yield LayerUploads(self, request, streamed, threads)

    def push(self, blob: Blob, document_key: str, repository: str, digest: str, memory: int) -> None:
        """Uploads one layer that ECR did not have a moment ago, in a share of `memory` bytes."""
        log_with(digest=digest)
        self._deadline.require("the layer")
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


class ImageUploads:
    """The layers of one image that are on their way."""

    def __init__(self, waiting_for: int) -> None:
        self.waiting_for = waiting_for
        self.failures: list[S3ToEcrError] = []
        self.unexpected: BaseException | None = None
        self.is_rejected = False

    def check(self) -> None:
        """Raises what has failed, if anything has. If it is not an error of ours, it is raised as it is."""
        if self.unexpected:
            raise self.unexpected
        if self.failures:
            raise combined(self.failures, _RANKING)


class _Layer:
    """A layer on its way, and the images that need it. Once it `has_ended`, it is kept for its `error`, if any.

    There may be tens of thousands of them, so each takes little memory.
    """

    __slots__ = ("digest", "error", "has_ended", "needed_by", "repository", "was_dropped")

    def __init__(self, repository: str, digest: str) -> None:
        self.repository = repository
        self.digest = digest
        self.needed_by: list[ImageUploads] = []
        self.was_dropped = False
        self.has_ended = False
        self.error: BaseException | None = None


class LayerUploads:
    """The layers of all images of an object, each uploaded once to each repository, several at a time.

    A layer that will never work stops those of its image that have not started. One that may work later stops no other.
    """

    def __init__(
        self,
        layers: ImageLayers,
        request: PushRequest,
        streamed: Streamed,
        threads: LargestFirst,
    ) -> None:
        self._image_layers = layers
        self._request = request
        self._streamed = streamed
        self._threads = threads
        self._lock = threading.Lock()
        self._layers: dict[tuple[str, str], _Layer] = {}
        self._ended: SimpleQueue[ImageUploads] = SimpleQueue()

    def begin(self, manifests: Iterable[Manifest], repository: str) -> ImageUploads:
        """Begins to upload what the manifests name and ECR lacks.

        Raises what `ImageLayers.missing` does, and what has failed before.
        """
        missing = self._image_layers.missing(manifests, self._request, repository)
        # ECR may show a layer late. One that was streamed is there all the same, or has failed.
        ended = {
            digest: self._streamed[repository, digest] for digest in missing if (repository, digest) in self._streamed
        }
        if failures := [error.within(f"layer {digest}") for digest, error in ended.items() if error]:
            raise combined(failures, _RANKING)
        blobs = {digest: blob for digest, blob in missing.items() if digest not in ended}
        image = ImageUploads(len(blobs))
        if not blobs:
            self._ended.put(image)
        for digest, blob in blobs.items():
            self._add(image, blob, repository, digest)
        self._threads.start()
        return image

    def next_ended(self, *, wait: bool) -> ImageUploads | None:
        """An image whose layers have ended, well or not, each image once. `None` without a `wait` if there is none."""
        try:
            return self._ended.get(wait)
        except Empty:
            return None

    def _add(self, image: ImageUploads, blob: Blob, repository: str, digest: str) -> None:
        with self._lock:
            layer = self._layers.get((repository, digest))
            if layer and not layer.was_dropped:
                if layer.has_ended:
                    self._tell(image, layer)
                else:
                    layer.needed_by.append(image)
                return
            layer = self._layers[repository, digest] = _Layer(repository, digest)
            layer.needed_by.append(image)
        upload = partial(self._upload, layer, blob)
        room = _room_for(blob.size, unpacked=self._request.held_bytes > 0)
        self._threads.add(blob.size, room, upload, partial(self._end, layer))

    def _upload(self, layer: _Layer, blob: Blob) -> None:
        with self._lock:
            layer.was_dropped = all(image.is_rejected for image in layer.needed_by)
        if not layer.was_dropped:
            # The fewest parts are read ahead, because other layers are on their way, too.
            self._image_layers.push(blob, self._request.document.key, layer.repository, layer.digest, memory=0)

    def _end(self, layer: _Layer, outcome: Future[Any]) -> None:
        error = outcome.exception()
        if error:
            forget_locals(error)
        with self._lock:
            layer.has_ended, layer.error = True, error
            for image in layer.needed_by:
                self._tell(image, layer)
            layer.needed_by.clear()

    def _tell(self, image: ImageUploads, layer: _Layer) -> None:
        """Tells an image what became of its layer. The caller has the lock, and the layer has ended."""
        error = layer.error
        if isinstance(error, S3ToEcrError):
            image.failures.append(error.within(f"layer {layer.digest}"))
            image.is_rejected = image.is_rejected or isinstance(error, Rejected)
        else:
            image.unexpected = image.unexpected or error
        image.waiting_for -= 1
        if not image.waiting_for:
            self._ended.put(image)


def _go_to(blob: Blob) -> S3ToEcrError | None:
    """Goes to the beginning of a blob, before its lease is taken, since it may take long. Says what went wrong."""
    if not blob.seekable:
        try:
            for _ in blob.read(0, 0):
                pass
        except S3ToEcrError as error:
            return error
    return None


def _room_for(size: int, *, unpacked: bool) -> int:
    """The memory that a blob of that size takes while it is uploaded, and perhaps unpacked. Both are in bytes."""
    if size <= _SMALL_BYTES and not unpacked:
        return 0
    return base64_bytes(min(size, FEWEST_PARTS * _USUAL_PART_BYTES)) + _ON_THE_WAY_BYTES
