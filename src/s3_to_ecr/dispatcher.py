"""Runs the job for one object, then pushes images that waited for it."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from s3_to_ecr.aws.s3 import ObjectRange, ObjectReader
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import (
    BlobsMissing,
    EventNotSent,
    ObjectMissing,
    OutOfTime,
    RequestRefused,
    RetryLater,
    S3ToEcrError,
    Unexpected,
    combined,
    concerning,
    forget_locals,
)
from s3_to_ecr.event_sources.notifications import read_record
from s3_to_ecr.images.destination import check_one_repository, destination, is_bundle
from s3_to_ecr.images.manifests import MAX_MANIFEST_BYTES, is_manifest
from s3_to_ecr.images.object_source import blob_missing
from s3_to_ecr.layouts import route
from s3_to_ecr.layouts.jobs import Ignore, Job, PushImages, UploadLayer
from s3_to_ecr.memory import give_back
from s3_to_ecr.push.image import ImagePusher
from s3_to_ecr.push.layer import LayerPusher, OtherContent
from s3_to_ecr.results import Attempt, Result
from s3_to_ecr.s3_objects import OtherEvent, S3Object
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.waiting_images import WaitingImages
from s3_to_ecr.telemetry.logs import log_with, logger, object_context
from s3_to_ecr.telemetry.outcome_events import MOST_ENTRIES, OutcomeEvents
from s3_to_ecr.telemetry.outcomes import Outcomes
from s3_to_ecr.text import readable

# If several waiting images fail, one that is only out of time says when to try again.
_RANKING = (OutOfTime, RetryLater)


class Dispatcher:
    """Brings the objects of one invocation into ECR, through `layers` and `images`."""

    def __init__(  # noqa: PLR0913 (it is made in one place)
        self,
        *,
        reader: ObjectReader,
        layers: LayerPusher,
        images: ImagePusher,
        waiting: WaitingImages,
        outcomes: Outcomes,
        events: OutcomeEvents,
        deadline: Deadline,
        settings: Settings,
    ) -> None:
        self._reader = reader
        self._layers = layers
        self._images = images
        self._waiting = waiting
        self._outcomes = outcomes
        self._events = events
        self._deadline = deadline
        self._settings = settings

    def run(self, record: dict[str, Any]) -> Attempt:
        """Runs one record of a notification to its end. It never raises, so the other records are run, too."""
        started = time.monotonic()
        with object_context():
            target, outcome = self._attempt_record(record)
            self._outcomes.record(outcome)
        give_back(self._settings.memory)
        return Attempt(target, outcome, time.monotonic() - started)

    def _attempt_record(self, record: dict[str, Any]) -> tuple[S3Object | None, Result | S3ToEcrError]:
        target = None
        try:
            announced = read_record(record)
            log_with(bucket=announced.bucket, key=announced.key)
            with concerning(announced.bucket, announced.key):
                if isinstance(announced, OtherEvent):
                    return None, _ignored(announced, Ignore(f"{announced.name} does not announce a new object"))
                target = announced
                return target, self._run(target)
        except S3ToEcrError as error:
            forget_locals(error)
            return target, error
        except Exception as error:  # noqa: BLE001 (the boundary between objects)
            forget_locals(error)
            return target, Unexpected.from_error(error)

    def _run(self, target: S3Object) -> Result:
        """Runs the job that the object's key asks for, then pushes the images that waited for the object."""
        job = route(target.key, self._settings)
        # If a link names a blob, that blob is what images may have waited for.
        arrived_key = (isinstance(job, UploadLayer) and job.blob_key) or target.key
        try:
            result = self._run_job(job, target)
        except BlobsMissing:
            if job.part_of_image and arrived_key == target.key:
                self._push_images_waiting_for(target.bucket, arrived_key)
            raise
        if job.part_of_image and (completed := self._push_images_waiting_for(target.bucket, arrived_key)):
            return {**result, "completed": completed}
        return result

    def _run_job(self, job: Job, target: S3Object) -> Result:
        """Runs the job. If it has to wait for other objects, leaves a note under their keys and raises `RetryLater`."""
        noted: list[str] = []
        while True:
            try:
                match job:
                    case Ignore():
                        return _ignored(target, job)
                    case UploadLayer():
                        return self._upload_layer(job, target)
                    case PushImages():
                        return self._push_images(job, target)
            except RetryLater as later:
                awaited = [key for key in dict.fromkeys(later.awaited) if key not in noted]
                if not awaited:
                    raise
                for key in awaited:
                    self._deadline.require("the notes of what the image waits for")
                    self._note(target.bucket, key, target.key)
                # Try again: the blob may have arrived before the note existed.
                noted += awaited

    def _note(self, bucket: str, awaited: str, key: str) -> None:
        try:
            self._waiting.note(bucket, awaited, key)
        except RequestRefused as error:
            # The note row is full; this image is retried only by its own message.
            logger.warning("The image waits without a note", awaited=awaited, reason=error.reason)

    def _upload_layer(self, job: UploadLayer, target: S3Object) -> Result:
        """Brings the object, or the blob that it names, into ECR as a layer."""
        log_with(repository=job.repository)
        if job.digest:
            log_with(digest=job.digest)
        self._require_time()
        started = time.monotonic()
        blob = self._open_named(job.blob_key, job, target) if job.blob_key else self._reader.open(target)
        if job.may_be_manifest and blob.size <= MAX_MANIFEST_BYTES and is_manifest(blob.read_all()):
            return _ignored(target, Ignore("a manifest: it is pushed with the index.json that names it"))
        push = partial(self._layers.push, blob, job.repository, job.digest, target.sequencer)
        if job.recognised:
            try:
                result = push(job.recognised.is_likely)
            except OtherContent:
                return self._push_images(PushImages(job.folder, job.recognised), target)
        else:
            result = push()
        self._outcomes.record_layer(result, time.monotonic() - started)
        return {**result, "key": target.key}

    def _push_images(self, job: PushImages, target: S3Object) -> Result:
        """Brings the images that the object asks for into ECR. If it is an ordinary blob after all, uploads that."""
        to = partial(destination, self._settings, job.folder)
        in_bundle = is_bundle(self._settings, job.folder)
        if not in_bundle:
            log_with(repository=to().repository)
        self._require_time()
        request = job.image_layout.find(self._reader, target)
        if isinstance(request, Ignore):
            return _ignored(target, request)
        if request is None:
            return self._upload_layer(UploadLayer(to().repository, None), target)
        if request.archive_name is not None and not in_bundle:
            check_one_repository(self._settings, job.folder, target.key, request.images)
            request = request.with_default_tag()
        result = self._images.push(request, to)
        if request.has_grown and request.has_grown():
            return self._push_images(job, target)
        return {**result, "key": target.key}

    def _push_images_waiting_for(self, bucket: str, arrived_key: str) -> list[Result]:
        """Runs the jobs that waited for an object, and returns the results of those that succeeded.

        Raises what has to be retried once all have been run. A rejected image is reported under its own key: the object
        that has arrived is not to blame.
        """
        completed: list[Result] = []
        retried: list[RetryLater] = []
        ended: list[Attempt] = []
        for key in self._waiting.keys(bucket, arrived_key):
            started = time.monotonic()
            with object_context():
                log_with(key=key)
                outcome = self._attempt_waiting(S3Object(bucket, key))
                give_back(self._settings.memory)
                if isinstance(outcome, RetryLater) and outcome.only_waits:
                    logger.info("The image still waits", reason=outcome.reason)
                    if arrived_key not in outcome.awaited:
                        self._waiting.forget(bucket, arrived_key, key)
                    continue
                self._outcomes.record(outcome)
                if isinstance(outcome, RetryLater):
                    retried.append(outcome)
                    if not self._deadline.seconds_to_spare():
                        break  # the notes of the others stay for the next invocation
                    continue
                if not isinstance(outcome, S3ToEcrError):
                    completed.append(outcome)
                ended.append(Attempt(S3Object(bucket, key), outcome, time.monotonic() - started))
            # As many as one call takes, so that little is left to do at the deadline.
            if len(ended) == MOST_ENTRIES:
                retried += self._announce(ended, bucket, arrived_key)
                ended = []
        retried += self._announce(ended, bucket, arrived_key)
        if retried:
            raise combined(retried, _RANKING)
        return completed

    def _announce(self, ended: list[Attempt], bucket: str, arrived_key: str) -> list[RetryLater]:
        """Sends the events about images that have waited, and removes their notes. Returns what could not be sent."""
        unsent: list[RetryLater] = []
        # A note is removed only after the event is sent: without it, nobody would know what the event is about.
        for attempt in self._events.announce(ended):
            if isinstance(attempt.outcome, EventNotSent):
                unsent.append(attempt.outcome)
            elif attempt.target:
                self._waiting.forget(bucket, arrived_key, attempt.target.key)
        return unsent

    def _attempt_waiting(self, target: S3Object) -> Result | S3ToEcrError:
        try:
            with concerning(target.bucket, target.key):
                return self._run_job(route(target.key, self._settings), target)
        except S3ToEcrError as error:
            forget_locals(error)
            return error

    def _require_time(self) -> None:
        try:
            self._deadline.require("this object")
        except OutOfTime:
            self._outcomes.progressed = True  # the next invocation starts with all of its time, so it gets further
            raise

    def _open_named(self, key: str, job: UploadLayer, target: S3Object) -> ObjectRange:
        """The blob that a link names. It may arrive after the link."""
        try:
            return self._reader.open_current(target.bucket, key)
        except ObjectMissing as missing:
            raise blob_missing(str(job.digest), target.bucket, (key,)) from missing


def _ignored(target: S3Object | OtherEvent, job: Ignore) -> Result:
    """The answer for an object that asks for nothing."""
    if job.trouble:
        logger.warning("This registry cannot be mirrored by its bucket", reason=job.reason)
    return Result(
        bucket=target.bucket,
        key=target.key,
        action="ignored",
        repository=None,
        digest=None,
        size=None,
        reason=readable(job.reason),
    )
