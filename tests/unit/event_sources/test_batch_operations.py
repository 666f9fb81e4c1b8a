from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from s3_to_ecr.errors import EmptyBlob, EventNotSent, MalformedEvent, OutOfTime, S3ToEcrError, Unexpected
from s3_to_ecr.event_sources.batch_operations import answer
from s3_to_ecr.results import Attempt, Result
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents

DONE = Result(
    bucket="bucket", key="app/x", action="skipped", repository="app", digest="sha256:d", size=7, reason="ECR has it"
)

NO_BUS = OutcomeEvents(cast("Any", None), Settings("state"), "arn:aws:lambda:eu-central-1:123456789012:function:f")


def event(*keys: str, version: str = "1.0") -> dict[str, Any]:
    tasks = [{"taskId": f"task {key}", "s3Key": key, "s3BucketArn": "arn:aws:s3:::bucket"} for key in keys]
    return {"invocationSchemaVersion": version, "invocationId": "one", "job": {"id": "job"}, "tasks": tasks}


def attempt(task: dict[str, Any]) -> Attempt:
    errors: dict[str, S3ToEcrError] = {
        "empty": EmptyBlob("no bytes"),
        "slow": OutOfTime("later"),
        "bug": Unexpected.from_error(KeyError("x")),
    }
    error = errors.get(task["s3Key"])
    return Attempt(None, error or DONE, 0)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_task_is_answered_in_the_schema_of_its_job(version: str) -> None:
    assert answer(event("good", "slow", "empty", "bug", version=version), attempt, NO_BUS) == {
        "invocationSchemaVersion": version,
        "treatMissingKeysAs": "TemporaryFailure",
        "invocationId": "one",
        "results": [
            {
                "taskId": "task good",
                "resultCode": "Succeeded",
                "resultString": "skipped, app, sha256:d, ECR has it",
            },
            {"taskId": "task slow", "resultCode": "TemporaryFailure", "resultString": "OutOfTime: later"},
            {"taskId": "task empty", "resultCode": "PermanentFailure", "resultString": "EmptyBlob: no bytes"},
            {
                "taskId": "task bug",
                "resultCode": "TemporaryFailure",
                "resultString": "Unexpected: unexpected error, this is a bug: KeyError: 'x'",
            },
        ],
    }


def test_the_report_on_an_ignored_object_has_no_repository_or_digest() -> None:
    ignored = cast("Any", DONE | {"action": "ignored", "repository": None, "digest": None, "reason": "a folder marker"})

    [result] = answer(event("folder/"), lambda _: Attempt(None, ignored, 0), NO_BUS)["results"]
    assert result["resultString"] == "ignored, a folder marker"


@pytest.mark.parametrize(
    "change",
    [
        {"invocationSchemaVersion": "3.0"},
        {"tasks": None},
        {"tasks": ["app/x"]},
        {"tasks": [{"s3Key": "app/x"}]},
        {"tasks": [{"taskId": "half \ud83d"}]},
        {"tasks": [{"taskId": "1"}] * 1001},
        {"invocationId": "half \ud83d"},
    ],
)
def test_a_job_that_cannot_be_answered_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        answer(event("good") | change, attempt, NO_BUS)


def test_a_task_whose_event_cannot_be_sent_is_tried_again() -> None:
    class Down:
        def announce(self, attempts: list[Attempt]) -> list[Attempt]:
            return [replace(each, outcome=EventNotSent("bus")) for each in attempts]

    [result] = answer(event("empty"), attempt, cast("OutcomeEvents", Down()))["results"]

    assert (result["resultCode"], result["resultString"]) == ("TemporaryFailure", "EventNotSent: bus")


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_is_short_enough_for_a_report(fails: bool) -> None:
    reason = "half \udcff" + "x" * 1_000_000
    outcome = EmptyBlob(reason) if fails else cast("Any", DONE | {"reason": reason})

    [result] = answer(event("any"), lambda record: replace(attempt(record), outcome=outcome), NO_BUS)["results"]

    assert len(result["resultString"]) == 1024
    assert r"half \udcff" in result["resultString"]
