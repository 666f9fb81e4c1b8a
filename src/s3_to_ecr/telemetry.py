"""The function's logger and metrics. One of each, shared by all modules.

Logs are JSON lines, level and service by Powertools' own variables; metrics are CloudWatch's embedded format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools import Logger, Metrics

from s3_to_ecr.errors import Rejected, S3ToEcrError, Unexpected
from s3_to_ecr.jobs import Result

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "s3-to-ecr")

logger = Logger(service=SERVICE)
metrics = Metrics(service=SERVICE, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "S3ToEcr"))

# What a log line says of the object at hand, as far as it is known by then.
_OBJECT_KEYS = ("bucket", "key", "repository", "digest", "upload_id")


@contextmanager
def object_context() -> Iterator[None]:
    """One object's log context: what is appended to the logger within is forgotten at the end."""
    try:
        yield
    finally:
        logger.remove_keys(_OBJECT_KEYS)


def record_result(result: Result, seconds: float) -> None:
    """Logs and counts what became of a layer in the `seconds` that its object took."""
    uploaded = result["action"] == "uploaded"
    logger.info(
        "Layer uploaded" if uploaded else "Layer skipped",
        digest=result["digest"],
        size=result["size"],
        reason=result["reason"],
        seconds=round(seconds, 3),
    )
    metrics.add_metric("LayersUploaded" if uploaded else "LayersSkipped", "Count", 1)
    if uploaded:
        metrics.add_metric("BytesUploaded", "Bytes", result["size"] or 0)
        metrics.add_metric("UploadSeconds", "Seconds", seconds)


def report_given_up(error: S3ToEcrError, deliveries: int) -> None:
    """Logs and counts an object that is not tried again, after so many deliveries of its message."""
    logger.error(
        "Given up",
        error_type=type(error).__name__,
        reason=error.reason,
        bucket=error.bucket,
        key=error.key,
        deliveries=deliveries,
    )
    metrics.add_metric("GivenUp", "Count", 1)


def report(error: S3ToEcrError) -> None:
    """Logs and counts what stopped an object, once. Only what is nobody's to fix but ours has a stack trace."""
    name = type(error).__name__
    match error:
        case Rejected():
            logger.error("Rejected", error_type=name, reason=error.reason)
        case Unexpected():
            logger.error("Unexpected error, to be retried", exc_info=error.__cause__, reason=error.reason)
        case _:
            logger.warning("To be retried", error_type=name, reason=error.reason)
    metrics.add_metric("Rejected" if isinstance(error, Rejected) else "RetriedLater", "Count", 1)
