"""Lambda's entry: what was put into S3, on its way into ECR.

    an event ─► its records ─► one object each ─► a job by its key ─► a layer in ECR

S3 and EventBridge events are answered with the results and fail if any record failed; SQS events with the messages to
deliver again. A record's failure never stops the others. Runs as `handler.lambda_handler`.
"""

from __future__ import annotations

import functools
import gc
import os
import time
from typing import TYPE_CHECKING, Any

import boto3

from s3_to_ecr import events
from s3_to_ecr.aws import CLIENT_CONFIG, S3_CONFIG
from s3_to_ecr.content import Blob, open_blob
from s3_to_ecr.ecr import LayerAvailability, Registry
from s3_to_ecr.errors import MalformedEvent, RepositoryMissing, ServiceUnavailable, concerning
from s3_to_ecr.events import ObjectCreated, OtherEvent
from s3_to_ecr.jobs import Failure, Ignore, Outcome, Result, UploadLayer
from s3_to_ecr.layer_upload import upload_layer
from s3_to_ecr.layouts import route
from s3_to_ecr.once import Once
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry import logger, metrics, object_context, record_result, report

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from s3_to_ecr.work_queue import WorkQueue

# Made once, while the function starts, when Lambda lends it a whole core. The service models that botocore loads here
# are there to stay: to look among them for garbage, as they grow, would take a tenth of the start.
settings = Settings.from_environment(os.environ)
gc.disable()
s3 = boto3.client("s3", config=S3_CONFIG)
ecr = boto3.client("ecr", config=CLIENT_CONFIG)
dynamodb = boto3.client("dynamodb", config=CLIENT_CONFIG)
sqs = functools.cache(lambda: boto3.client("sqs", config=CLIENT_CONFIG))  # only for messages that fail
registry = Registry(ecr, settings.registry_id)
once = Once(dynamodb, settings.state_table)
gc.freeze()
gc.enable()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers an S3 notification, an EventBridge event, or an SQS batch of either, as the contract says."""
    once.begin(context)
    if events.is_sqs(event):
        return dict(work_queue().process(event))
    try:
        outcome = mirror_all(event)
    except MalformedEvent as error:
        report(error)
        raise
    match [failure.error for failure in outcome.failures]:
        case []:
            return {"results": outcome.results}
        case [only]:
            raise only
        case several:
            raise ExceptionGroup(f"{len(several)} objects failed: " + "; ".join(map(str, several)), several)


def mirror_all(notification: object) -> Outcome:
    """Mirrors every record of a notification; raises `MalformedEvent` if it is none."""
    outcome = Outcome([], [])
    records = events.records(notification)
    metrics.add_metric("Records", "Count", len(records))
    for record in records:
        with object_context():
            try:
                outcome.results.append(mirror(record))
            except Exception as error:  # noqa: BLE001 (the boundary between objects: told now, raised last)
                report(error)
                outcome.failures.append(Failure(record, error))
    return outcome


def mirror(record: dict[str, Any]) -> Result:
    """Does what the key of one record's object asks for."""
    created = events.object_created(record)
    logger.append_keys(bucket=created.bucket, key=created.key)
    with concerning(created.bucket, created.key):
        if isinstance(created, OtherEvent):
            return ignored(created, f"{created.name} announces no new object")
        match route(created.key, settings):
            case Ignore(reason):
                return ignored(created, reason)
            case UploadLayer() as job:
                return upload(created, job)


def ignored(created: ObjectCreated | OtherEvent, reason: str) -> Result:
    """Says so in the log and in the answer."""
    logger.info("Ignored", reason=reason)
    return Result(
        bucket=created.bucket, key=created.key, action="ignored", repository=None, digest=None, size=None, reason=reason
    )


def upload(created: ObjectCreated, job: UploadLayer) -> Result:
    """Uploads the object as a layer, once for every write to S3, unless ECR has it already."""
    logger.append_keys(repository=job.repository)
    if job.digest:
        logger.append_keys(digest=job.digest)
    started = time.monotonic()
    blob = open_blob(s3, created)
    if job.digest and is_available(job.repository, job.digest):
        # A repeat, or a layer that came another way: known with one call, and none to the state table.
        result = layer_result(blob, job, job.digest, skipped_because="ECR has the layer")
    else:
        identity = {
            "bucket": blob.bucket,
            "key": blob.key,
            "version_id": blob.version_id,
            "etag": blob.etag,
            "sequencer": created.sequencer,
            "registry": settings.registry_id,
            "repository": job.repository,
        }
        result = once.run(identity, lambda: upload_blob(blob, job), is_in_ecr)
    record_result(result, time.monotonic() - started)
    return result


def upload_blob(blob: Blob, job: UploadLayer) -> Result:
    """Uploads the blob, into a repository made for it if need be and allowed."""
    try:
        digest = upload_layer(registry, blob, job.repository, job.digest, settings.memory)
    except RepositoryMissing:
        if not settings.create_repositories:
            raise
        logger.info("Creating the repository")
        registry.create_repository(job.repository)
        try:
            digest = upload_layer(registry, blob, job.repository, job.digest, settings.memory)
        except RepositoryMissing as error:
            raise ServiceUnavailable(f"ECR has just made the repository and does not know it yet: {error}") from error
    return layer_result(blob, job, digest)


def layer_result(blob: Blob, job: UploadLayer, digest: str, skipped_because: str | None = None) -> Result:
    """The answer for a layer that was uploaded; or skipped, for a reason."""
    return Result(
        bucket=blob.bucket,
        key=blob.key,
        action="skipped" if skipped_because else "uploaded",
        repository=job.repository,
        digest=digest,
        size=blob.size,
        reason=skipped_because,
    )


def is_available(repository: str, digest: str) -> bool:
    """Whether ECR has the layer to be pulled, so that nothing is to be done."""
    availability = layer_availability(repository, digest)
    if availability == "ARCHIVED":
        logger.warning("ECR has the layer archived; if uploading it is not enough, restore an image that uses it")
    return availability == "AVAILABLE"


def is_in_ecr(result: Result) -> bool:
    """Whether the layer of an earlier result is still where it was put."""
    return layer_availability(str(result["repository"]), str(result["digest"])) != "UNAVAILABLE"


def layer_availability(repository: str, digest: str) -> LayerAvailability:
    """What ECR has of a layer: nothing, where the repository itself is missing."""
    try:
        return registry.layer_availability(repository, digest)
    except RepositoryMissing:
        return "UNAVAILABLE"


@functools.cache
def work_queue() -> WorkQueue:
    """The SQS side. Its imports take longer than all others of ours, and without a queue are for nothing."""
    from s3_to_ecr.work_queue import WorkQueue  # noqa: PLC0415 (see above)

    return WorkQueue(sqs, settings, mirror_all)


if settings.queue_url:
    work_queue()
