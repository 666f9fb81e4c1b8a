"""What a key asks for, and what the function answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from s3_to_ecr.errors import S3ToEcrError


@dataclass(frozen=True)
class UploadLayer:
    """Upload the object to `repository` as a layer. `digest` is `None` when the key does not tell it."""

    repository: str
    digest: str | None


@dataclass(frozen=True)
class Ignore:
    """Do nothing, for a `reason` worth a line in the log."""

    reason: str


class Result(TypedDict):
    """One object's entry in the answer, and in its idempotency record. `size` is in bytes."""

    bucket: str
    key: str
    action: Literal["uploaded", "skipped", "pushed", "ignored"]
    repository: str | None
    digest: str | None
    size: int | None
    reason: str | None


@dataclass(frozen=True)
class Failure:
    """A record that did not get a result, and why."""

    record: dict[str, Any]
    error: S3ToEcrError


@dataclass(frozen=True)
class Outcome:
    """What became of a notification's records. Results keep the records' order."""

    results: list[Result]
    failures: list[Failure]
