"""Lambda's entry: what was put into S3, on its way into ECR.

    an event ─► its records ─► one object each ─► a job by its key ─► a layer, or images, in ECR

S3 and EventBridge events are answered with the results and fail if any record failed; SQS events with the messages to
deliver again; S3 Batch Operations with what became of each task. A record's failure never stops the others. Runs as
`handler.lambda_handler`.
"""

from __future__ import annotations

import functools
import gc
import os
from typing import TYPE_CHECKING, Any

import boto3

from s3_to_ecr.aws.clients import CLIENT_CONFIG, S3_CONFIG
from s3_to_ecr.aws.ecr import Registry
from s3_to_ecr.carriers import batch_operations
from s3_to_ecr.carriers import notifications as events
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.dispatcher import Mirror
from s3_to_ecr.errors import MalformedEvent, S3ToEcrError, Unexpected
from s3_to_ecr.layouts.jobs import Failure, Outcome, Result
from s3_to_ecr.push.image import ImageMirror
from s3_to_ecr.push.layer import LayerMirror
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.completed_writes import Once
from s3_to_ecr.state.leases import Ledger
from s3_to_ecr.state.tag_writes import Tags
from s3_to_ecr.state.waiting_images import Waiting
from s3_to_ecr.telemetry.logs import count, logger, metrics, object_context, report

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from s3_to_ecr.carriers.sqs import WorkQueue

# Made once, while the function starts, when Lambda lends it a whole core. The service models that botocore loads here
# are there to stay: to look among them for garbage, as they grow, would take a tenth of the start.
settings = Settings.from_environment(os.environ)
gc.disable()
s3 = boto3.client("s3", config=S3_CONFIG)
ecr = boto3.client("ecr", config=CLIENT_CONFIG)
dynamodb = boto3.client("dynamodb", config=CLIENT_CONFIG)
sqs = functools.cache(lambda: boto3.client("sqs", config=CLIENT_CONFIG))  # only for messages that fail
registry = Registry(ecr, settings.registry_id)
ledger = Ledger(dynamodb, settings.state_table)
once = Once(dynamodb, settings.state_table)
deadline = Deadline()
layers = LayerMirror(registry, ledger, once, deadline, settings)
tags = Tags(dynamodb, settings.state_table, settings.registry_id)
images = ImageMirror(registry, layers, ledger, tags, deadline, settings)
mirror = Mirror(s3, layers, images, Waiting(dynamodb, settings.state_table), deadline, settings)
gc.freeze()
gc.enable()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers an S3 notification, an EventBridge event, an SQS batch of either, or an S3 Batch Operations job."""
    deadline.begin(context)
    try:
        if events.is_sqs(event):
            return dict(work_queue().process(event))
        if events.is_batch_operations(event):
            return batch_operations.answer(event, attempt)
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
    count("Records", len(records))
    for record in records:
        match attempt(record):
            case Failure() as failure:
                outcome.failures.append(failure)
            case result:
                outcome.results.append(result)
    return outcome


def attempt(record: dict[str, Any]) -> Result | Failure:
    """Mirrors one record, and whatever comes of it, lets the others go on."""
    with object_context():
        try:
            return mirror.mirror(events.object_created(record))
        except S3ToEcrError as error:
            failed = error
        except Exception as error:  # noqa: BLE001 (the boundary between objects)
            failed = Unexpected(error)
        report(failed)
        return Failure(record, failed)


@functools.cache
def work_queue() -> WorkQueue:
    """The SQS side. Its imports take longer than all others of ours, and without a queue are for nothing."""
    from s3_to_ecr.carriers.sqs import WorkQueue  # noqa: PLC0415 (see above)

    return WorkQueue(sqs, settings, mirror_all)


if settings.queue_url:
    work_queue()
