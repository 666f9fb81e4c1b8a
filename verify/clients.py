"""The SDK's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from botocore.config import Config

if TYPE_CHECKING:
    import boto3

_CONFIG: Final = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10, read_timeout=60)

# An invocation may take as long as the function's timeout, and nobody knows how long ECR takes to complete a layer.
_PATIENT: Final = _CONFIG.merge(Config(read_timeout=900))


class Clients:
    """One client for each service, of the same session."""

    def __init__(self, session: boto3.Session) -> None:
        self.s3 = session.client("s3", config=_CONFIG)
        self.sqs = session.client("sqs", config=_CONFIG)
        self.ecr = session.client("ecr", config=_PATIENT)
        self.functions = session.client("lambda", config=_PATIENT)

    def close(self) -> None:
        """Closes all connections."""
        for client in (self.s3, self.sqs, self.ecr, self.functions):
            client.close()
