"""What becomes of an object: a result, or the error that keeps it from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from s3_to_ecr.errors import RetryLater, S3ToEcrError
from s3_to_ecr.s3_objects import S3Object


class PushedImage(TypedDict):
    """A manifest or index that is in a repository of ECR, and the tags that name it there."""

    repository: str
    digest: str
    tags: list[str]


class Result(TypedDict):
    """One object's entry in the answer, and in its idempotency record. `size` is the object's, in bytes.

    `images` are those that the object asked for. If there is only one, `digest` is its digest; if they are in only one
    repository, that is the `repository`.
    `completed` are the results of images that waited for this object and were pushed when it arrived.
    """

    bucket: str
    key: str
    action: Literal["uploaded", "skipped", "pushed", "ignored"]
    repository: str | None
    digest: str | None
    size: int | None
    reason: str | None
    images: NotRequired[list[PushedImage]]
    completed: NotRequired[list[Result]]


@dataclass(frozen=True)
class Attempt:
    """What one invocation achieved for an object, and the seconds that it took.

    `target` is the object; `None` if the record does not announce a new one. An object that is `given_up` is not tried
    again, although its error may pass.
    """

    target: S3Object | None
    outcome: Result | S3ToEcrError
    seconds: float
    given_up: bool = False

    @property
    def error(self) -> S3ToEcrError | None:
        """The error that stopped it, if one did."""
        return self.outcome if isinstance(self.outcome, S3ToEcrError) else None

    @property
    def has_ended(self) -> bool:
        """Whether the object is not tried again."""
        return self.given_up or not isinstance(self.outcome, RetryLater)
