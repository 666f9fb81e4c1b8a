"""One object's way: the job that its key asks for, done; and the images that waited for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from s3_to_ecr.aws.s3 import Blob, open_blob
from s3_to_ecr.carriers.notifications import ObjectCreated, OtherEvent
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import (
    BlobsMissing,
    ObjectMissing,
    OutOfTime,
    Rejected,
    RequestRefused,
    RetryLater,
    concerning,
)
from s3_to_ecr.images.manifests import MAX_MANIFEST_BYTES, is_manifest
from s3_to_ecr.images.model import blob_missing, open_current
from s3_to_ecr.layouts import route
from s3_to_ecr.layouts.jobs import Ignore, Job, PushImage, Result, UploadLayer
from s3_to_ecr.push.image import ImageMirror
from s3_to_ecr.push.layer import LayerMirror
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.waiting_images import Waiting
from s3_to_ecr.telemetry.logs import log_with, logger, object_context, record_result, report

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


class Mirror:
    """Brings objects out of `s3` into ECR, as `layers` and `images`."""

    def __init__(
        self,
        s3: S3Client,
        layers: LayerMirror,
        images: ImageMirror,
        waiting: Waiting,
        deadline: Deadline,
        settings: Settings,
    ) -> None:
        self._s3 = s3
        self._layers = layers
        self._images = images
        self._waiting = waiting
        self._deadline = deadline
        self._settings = settings

    def mirror(self, created: ObjectCreated | OtherEvent) -> Result:
        """Does what the object's key asks for. Raises any `S3ToEcrError`, of it or of an object that waited for it."""
        log_with(bucket=created.bucket, key=created.key)
        with concerning(created.bucket, created.key):
            if isinstance(created, OtherEvent):
                return _ignored(created, f"{created.name} announces no new object")
            job = route(created.key, self._settings)
            # Where a link names a blob, that is what others may have waited for.
            brought = (isinstance(job, UploadLayer) and job.blob_key) or created.key
            try:
                result = self._do(job, created)
            except BlobsMissing:
                if job.part_of_image and brought == created.key:
                    self._push_what_waits_for(created.bucket, brought)
                raise
            if job.part_of_image:
                self._push_what_waits_for(created.bucket, brought)
            return result

    def _do(self, job: Job, created: ObjectCreated) -> Result:
        """Does the job; or notes what it waits for, and raises a `RetryLater`."""
        noted: set[str] = set()
        while True:
            try:
                match job:
                    case Ignore(reason):
                        return _ignored(created, reason)
                    case UploadLayer():
                        return self._upload(job, created)
                    case PushImage():
                        return self._push(job, created)
            except RetryLater as later:
                awaited = set(later.awaited) - noted
                if not awaited:
                    raise
                for key in awaited:
                    self._note(created.bucket, key, created.key)
                # Once more: what came before the note was written was not told by it.
                noted |= awaited

    def _note(self, bucket: str, awaited: str, key: str) -> None:
        try:
            self._waiting.note(bucket, awaited, key)
        except RequestRefused as error:
            # The notes on one object fill a row: hundreds of images wait for it, and this one by its message alone.
            logger.warning("The image waits without a note", awaited=awaited, reason=error.reason)

    def _upload(self, job: UploadLayer, created: ObjectCreated) -> Result:
        """Brings the object, or the one that it names, into ECR as a layer."""
        log_with(repository=job.repository)
        if job.digest:
            log_with(digest=job.digest)
        self._require_time()
        started = time.monotonic()
        blob = self._open_named(job.blob_key, job, created) if job.blob_key else open_blob(self._s3, created)
        if job.may_be_manifest and blob.size <= MAX_MANIFEST_BYTES and is_manifest(blob.read_all()):
            return _ignored(created, "a manifest: pushed with the index.json that names it")
        result = self._layers.upload(blob, job, created.sequencer)
        record_result(result, time.monotonic() - started)
        return {**result, "key": created.key}

    def _push(self, job: PushImage, created: ObjectCreated) -> Result:
        """Brings the images that the object asks for into ECR; if it is an ordinary blob after all, that."""
        log_with(repository=job.repository)
        self._require_time()
        found = job.layout.open(self._s3, created, self._deadline)
        if found is None:
            return self._upload(UploadLayer(job.repository, None), created)
        return self._images.push(found, job.repository)

    def _push_what_waits_for(self, bucket: str, arrived: str) -> None:
        """Does the jobs that waited for an object. Raises, when all are done, what has to be tried again.

        What is wrong with one of them for good is told under its own key: the object that came is not to blame.
        """
        failures: list[RetryLater] = []
        for key in self._waiting.keys(bucket, arrived):
            with object_context():
                log_with(key=key)
                try:
                    with concerning(bucket, key):
                        self._do(route(key, self._settings), ObjectCreated(bucket, key))
                except RetryLater as error:
                    if not error.only_waits:
                        failures.append(error)
                        continue
                    logger.info("Now waiting for another object", reason=error.reason)
                    if arrived in error.awaited:
                        continue
                except Rejected as error:
                    report(error)
                self._waiting.forget(bucket, arrived, key)
        if failures:
            raise failures[0]

    def _require_time(self) -> None:
        try:
            self._deadline.require("this object")
        except OutOfTime as late:
            late.got_on = True  # so will the next invocation, which begins with all of its time
            raise

    def _open_named(self, key: str, job: UploadLayer, created: ObjectCreated) -> Blob:
        """The blob that a link names, which may come after it."""
        try:
            return open_current(self._s3, created.bucket, key)
        except ObjectMissing as missing:
            raise blob_missing(str(job.digest), created.bucket, (key,)) from missing


def _ignored(created: ObjectCreated | OtherEvent, reason: str) -> Result:
    """Says so in the log and in the answer."""
    logger.info("Ignored", reason=reason)
    return Result(
        bucket=created.bucket, key=created.key, action="ignored", repository=None, digest=None, size=None, reason=reason
    )
