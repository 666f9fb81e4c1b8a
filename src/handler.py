"""Lambda's entry, `handler.lambda_handler`: what was put into S3, on its way into ECR.

    an event ─► its records ─► one object each ─► a job, by its key ─► a layer, or images, in ECR
    event_sources  dispatcher                     layouts              push, images, state, ecr, aws

S3 and EventBridge events are answered with the results, and fail if any record failed. SQS events are answered with the
messages to deliver again, S3 Batch Operations with what became of each task. A record's failure never stops the others.
"""

# ruff: noqa: E402 (the collector is off before anything large is imported)
from __future__ import annotations

import gc

# This runs once, while the function starts, when Lambda lends it a whole core. The modules and service models that are
# loaded here stay for good. Looking among them for garbage while they grow would take a tenth of the start.
gc.disable()

# isort: split
import os
from typing import TYPE_CHECKING, Any

from s3_to_ecr.app import App
from s3_to_ecr.aws.clients import Clients
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.metrics import metrics

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

settings = Settings.from_environment(os.environ)
clients = Clients()
app = App(clients, settings)
if settings.outcome_bus:
    clients.events  # noqa: B018 (made now, while Lambda lends a whole core)
if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    gc.freeze()  # for a process that imports this once, as Lambda's does
gc.enable()


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers an S3 notification, an EventBridge event, an SQS batch of either, or an S3 Batch Operations job."""
    return app.answer(event, context)
