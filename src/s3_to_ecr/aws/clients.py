"""The SDK's clients, and how they retry."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

# The most layers that are uploaded at a time. Two large ones fill a function's network. A small one takes 0.2 s, so
# sixteen stay below the 100 calls a second that ECR takes of InitiateLayerUpload and CompleteLayerUpload.
LAYERS_AT_ONCE = 16

# One attempt and three retries with botocore's exponential back-off, in its `standard` mode: throttling, 5xx, cut
# connections and timeouts. Whatever outlasts them goes back on the queue as `ServiceUnavailable`. Connections are kept
# for all layers and one image, because a new one over TLS takes as long as a small call or two.
#
# The SDK would make its own user agent again for each call, which takes a tenth of the call's CPU time.
_CONFIG = Config(
    user_agent="s3-to-ecr",
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=LAYERS_AT_ONCE + 1,
)

# S3 starts to answer within milliseconds, so a read that hangs is better started again soon: others may be waiting for
# it. Of each layer two parts may be read.
_S3_CONFIG = _CONFIG.merge(Config(read_timeout=10, max_pool_connections=2 * LAYERS_AT_ONCE + 1))

# Events are sent at an invocation's end, when little time may be left. If that fails, the next invocation tries again.
_EVENTS_CONFIG = _CONFIG.merge(
    Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=2, read_timeout=5)
)


class Clients:
    """One client for each service, made once while the function starts."""

    def __init__(self) -> None:
        self.s3 = boto3.client("s3", config=_S3_CONFIG)
        self.ecr = boto3.client("ecr", config=_CONFIG)
        self.dynamodb = boto3.client("dynamodb", config=_CONFIG)

    @cached_property
    def sqs(self) -> SQSClient:
        """Made when it is first needed: only messages that fail need it."""
        return boto3.client("sqs", config=_CONFIG)

    @cached_property
    def events(self) -> Any:
        """Made when it is first needed: only with `OUTCOME_BUS`."""
        return boto3.client("events", config=_EVENTS_CONFIG)
