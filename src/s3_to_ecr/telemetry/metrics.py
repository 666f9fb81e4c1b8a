"""The function's metrics, in CloudWatch's embedded format. Each one is on the dashboard in `template.yaml`."""

from __future__ import annotations

import os
import threading

from aws_lambda_powertools import Metrics

from s3_to_ecr.telemetry.logs import SERVICE

metrics = Metrics(service=SERVICE, namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "S3ToEcr"))

_lock = threading.Lock()


def count(name: str, value: float = 1, unit: str = "Count") -> None:
    """Adds to a metric, from any thread."""
    with _lock:
        metrics.add_metric(name, unit, value)
