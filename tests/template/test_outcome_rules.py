"""docs/events.md: its example is an event as the function sends it, and its rules are valid and find what they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import yaml

from s3_to_ecr.results import Attempt, PushedImage, Result
from s3_to_ecr.s3_objects import S3Object
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry.outcome_events import MIRRORED, REJECTED, OutcomeEvents
from tests.conftest import ROOT
from tests.documents import blocks
from tests.doubles.eventbridge import EventBridgeDouble
from tests.template.conftest import Lint
from tests.template.rendering import CloudFormationLoader, of_type

PAGE = (ROOT / "docs/events.md").read_text()
[EXAMPLE] = [json.loads(block) for block in blocks(PAGE, "json")]
RULES = [yaml.load(block, CloudFormationLoader) for block in blocks(PAGE, "yaml")]  # noqa: S506 (a SafeLoader)


def test_the_example_is_what_the_function_sends() -> None:
    detail = EXAMPLE["detail"]
    target = S3Object(detail["bucket"], detail["key"], detail["version-id"], detail["etag"], detail["size"])
    image = PushedImage(repository="team/app", digest=detail["digest"], tags=["1.0"])
    result = Result(
        bucket=target.bucket, key=target.key, action="pushed", repository="team/app", digest=detail["digest"],
        size=detail["size"], reason=None, images=[image],
    )  # fmt: skip
    bridge = EventBridgeDouble()
    clients: Any = SimpleNamespace(events=boto3.client("events"))
    bridge.attach(clients.events)
    function = f"arn:aws:lambda:{EXAMPLE['region']}:{EXAMPLE['account']}:function:s3-to-ecr"

    OutcomeEvents(clients, Settings("state", outcome_bus="default"), function).announce(
        [Attempt(target, result, detail["seconds"])]
    )

    [sent] = bridge.events
    assert list(sent["Detail"].items()) == list(detail.items())
    assert [sent["Source"], sent["DetailType"], sent["Resources"]] == [
        EXAMPLE["source"], EXAMPLE["detail-type"], EXAMPLE["resources"],
    ]  # fmt: skip


def test_the_table_names_every_field() -> None:
    table = PAGE.partition("| field |")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])]

    assert sorted(named) == sorted([*EXAMPLE["detail"], "images-left-out"])


@pytest.mark.parametrize("template", RULES, ids=["mail", "chat", "workflow"])
def test_a_rule_is_valid_and_names_what_events_have(template: dict[str, Any], lint: Lint) -> None:
    assert lint(template) == []
    for rule in of_type(template["Resources"], "AWS::Events::Rule"):
        pattern = rule["EventPattern"]
        assert pattern["source"] == [EXAMPLE["source"]]
        assert set(pattern["detail-type"]) <= {MIRRORED, REJECTED}
        assert pattern.get("detail", {}).keys() <= EXAMPLE["detail"].keys()
        for transformer in transformers(rule):
            for path in transformer["InputPathsMap"].values():
                assert path.removeprefix("$.detail.") in EXAMPLE["detail"]
            named = set(re.findall("<([a-z]+)>", transformer["InputTemplate"]))
            assert named == transformer["InputPathsMap"].keys()


def transformers(rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (target["InputTransformer"] for target in rule["Targets"] if "InputTransformer" in target)
