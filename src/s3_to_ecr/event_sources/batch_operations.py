"""S3 Batch Operations: every task of a job is answered as succeeded, to be retried, or failed for good.

Source of the schemas 1.0 and 2.0: the S3 user guide, "Invoke AWS Lambda function". They differ in how they name the
bucket. The answer is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

from s3_to_ecr.errors import MalformedEvent, Rejected, S3ToEcrError
from s3_to_ecr.event_sources.notifications import is_unicode
from s3_to_ecr.results import Attempt, Result
from s3_to_ecr.telemetry.metrics import count
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents
from s3_to_ecr.text import readable

_SCHEMA_VERSIONS = ("1.0", "2.0")

# S3 sends one task at a time. The answers to all of them must fit into Lambda's 6 MB.
_MOST_TASKS = 1_000


class TaskResult(TypedDict):
    """What became of one task. The `resultString` is for people, who read it in the job's report."""

    taskId: str
    resultCode: Literal["Succeeded", "TemporaryFailure", "PermanentFailure"]
    resultString: str


def answer(
    event: dict[str, Any], run_record: Callable[[dict[str, Any]], Attempt], events: OutcomeEvents
) -> dict[str, Any]:
    """Runs every task of the event, and answers in the event's own schema version.

    Raises `MalformedEvent` if no valid answer is possible: for an unknown version, too many tasks, or an id that cannot
    be repeated.
    """
    version, tasks, invocation_id = event["invocationSchemaVersion"], event.get("tasks"), event.get("invocationId")
    if version not in _SCHEMA_VERSIONS:
        raise MalformedEvent(f"S3 Batch Operations' schema version is not one of {_SCHEMA_VERSIONS}.")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and _is_id(task.get("taskId")) for task in tasks):
        raise MalformedEvent("expected the tasks of an S3 Batch Operations job, each with its taskId.")
    if len(tasks) > _MOST_TASKS:
        raise MalformedEvent(f"the job has {len(tasks):,} tasks at once, more than {_MOST_TASKS:,}.")
    if invocation_id is not None and not _is_id(invocation_id):
        raise MalformedEvent("the invocationId of the S3 Batch Operations job is not a text.")
    count("Records", len(tasks))
    attempts = events.announce([run_record(task) for task in tasks])
    return {
        "invocationSchemaVersion": version,
        "treatMissingKeysAs": "TemporaryFailure",  # never applies: every task is answered
        "invocationId": invocation_id,
        "results": [_answered(task["taskId"], attempt.outcome) for task, attempt in zip(tasks, attempts, strict=True)],
    }


def _answered(task_id: str, outcome: Result | S3ToEcrError) -> TaskResult:
    if not isinstance(outcome, S3ToEcrError):
        summary = ", ".join(
            str(outcome[name]) for name in ("action", "repository", "digest", "reason") if outcome[name]
        )
        return TaskResult(taskId=task_id, resultCode="Succeeded", resultString=readable(summary))
    return TaskResult(
        taskId=task_id,
        resultCode="PermanentFailure" if isinstance(outcome, Rejected) else "TemporaryFailure",
        resultString=readable(f"{type(outcome).__name__}: {outcome.reason}"),
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and is_unicode(value)
