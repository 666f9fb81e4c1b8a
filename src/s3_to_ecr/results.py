"""What the function answers for an object: a result, or the error that kept it from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from s3_to_ecr.errors import S3ToEcrError


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
class Failure:
    """A record without a result, and why."""

    record: dict[str, Any]
    error: S3ToEcrError
