"""The deployed stack: what the proof has to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from operate import stacks
from verify.failures import Stopped

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True)
class Deployment:
    """A stack's outputs and parameters. `key_prefix` and `repository_prefix` may be empty."""

    stack: str
    region: str
    bucket: str
    work_queue_url: str
    dead_letter_queue_url: str
    function: str
    log_group: str
    key_prefix: str
    repository_prefix: str
    registry_id: str | None

    @classmethod
    def find(cls, session: boto3.Session, stack: str) -> Deployment:
        """The stack of this name. Raises `Stopped` if there is none, or it is not one of s3-to-ecr."""
        region = str(session.region_name)
        found = stacks.find(session, stack)
        if found is None:
            raise Stopped(
                f"There is no stack {stack} in {region}. Name one with --stack, or another region with AWS_REGION."
            )
        try:
            return cls(
                stack=stack,
                region=region,
                bucket=found.outputs["BucketName"],
                work_queue_url=found.outputs["WorkQueueUrl"],
                dead_letter_queue_url=found.outputs["DeadLetterQueueUrl"],
                function=found.outputs["FunctionName"],
                log_group=found.outputs["LogGroupName"],
                key_prefix=found.parameters["KeyPrefix"],
                repository_prefix=found.parameters["RepositoryPrefix"],
                registry_id=found.parameters["RegistryId"] or None,
            )
        except KeyError as missing:
            raise Stopped(
                f"The stack {stack} has no {missing.args[0]}. It is not one of s3-to-ecr, is older, or is not complete."
            ) from missing

    @property
    def registry(self) -> dict[str, Any]:
        """The member of ECR's requests that names the registry, unless it is the caller's own."""
        return {"registryId": self.registry_id} if self.registry_id else {}
