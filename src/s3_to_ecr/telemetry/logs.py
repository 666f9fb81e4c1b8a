"""The function's logger and metrics. One of each, shared by all modules.

Logs are JSON lines, level and service by Powertools' own variables; metrics are CloudWatch's embedded format.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools import Logger, Metrics

from s3_to_ecr.errors import Rejected, S3ToEcrError, Unexpected
from s3_to_ecr.layouts.jobs import Result

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "s3-to-ecr")

logger = Logger(service=SERVICE)
metrics = Metrics(service=SERVICE, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "S3ToEcr"))

_metrics_lock = threading.Lock()


@contextmanager
def object_context() -> Iterator[None]:
    """One object's log context: what `log_with` adds within is forgotten at the end."""
    before = logger.thread_safe_get_current_keys()
    try:
        yield
    finally:
        logger.thread_safe_clear_keys()
        logger.thread_safe_append_keys(**before)


def log_with(**keys: str) -> None:
    """Writes `bucket`, `key`, `repository`, `digest` or `upload_id` into the log lines that follow in this context.

    A thread that runs in a copy of its parent's context begins with the parent's, and keeps its own to itself.
    """
    logger.thread_safe_append_keys(**keys)


def count(name: str, value: float = 1, unit: str = "Count") -> None:
    """Adds to a metric, from any thread."""
    with _metrics_lock:
        metrics.add_metric(name, unit, value)


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
    count("LayersUploaded" if uploaded else "LayersSkipped")
    if uploaded:
        count("BytesUploaded", result["size"] or 0, "Bytes")
        count("UploadSeconds", seconds, "Seconds")


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
    count("GivenUp")


def report(error: S3ToEcrError) -> None:
    """Logs and counts what stopped an object, once. Only what is nobody's to fix but ours has a stack trace."""
    name = type(error).__name__
    match error:
        case Rejected():
            logger.error("Rejected", error_type=name, reason=error.reason)
        case Unexpected():
            logger.error(
                "Unexpected error, to be retried", exc_info=error.__cause__, error_type=name, reason=error.reason
            )
        case _:
            logger.warning("To be retried", error_type=name, reason=error.reason)
    count("Rejected" if isinstance(error, Rejected) else "RetriedLater")
