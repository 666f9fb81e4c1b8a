"""The handler's arguments for invocations on this machine: an event, and a Lambda context."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from local.event import notification
from local.stack import BUCKET


@dataclass
class Invocation:
    """A Lambda context that has `seconds` left when it is created."""

    seconds: float = 900
    function_name: str = "s3-to-ecr-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 1024
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:s3-to-ecr-local"
    aws_request_id: str = "00000000-0000-4000-8000-000000000000"
    started: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.seconds - (time.monotonic() - self.started)) * 1000)


def put_event(key: str, size: int, etag: str, **more: Any) -> dict[str, Any]:
    """S3's notification of an object that was put into the local bucket; `more` goes into its `object`."""
    return notification(BUCKET, key, size=size, eTag=etag, **more)
