"""The function's log lines, and what is left of them behind Lambda's filter at every level that the template offers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from local.invocation import put_event
from s3_to_ecr.telemetry.logs import logger
from tests.conftest import ROOT
from tests.template.rendering import properties, read_template

TEMPLATE = read_template()
LEVELS = TEMPLATE["Parameters"]["LogLevel"]["AllowedValues"]

# Lambda's levels, "Log-level filtering" in its developer guide.
RANKS = {name: rank for rank, name in enumerate(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"])}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

# Invokes the function with the event from stdin. Lambda reports an exception itself.
INVOKE = """
import contextlib, json, sys
import handler
from local.invocation import Invocation
with contextlib.suppress(Exception):
    handler.lambda_handler(json.load(sys.stdin), Invocation())
"""


def rank(line: str) -> int:
    """The level that Lambda takes a line for: INFO, unless it has a valid level and a valid timestamp."""
    try:
        document = json.loads(line)
    except ValueError:
        return RANKS["INFO"]
    is_valid = RFC_3339.fullmatch(str(document.get("timestamp")))
    return RANKS.get(str(document.get("level")).upper(), RANKS["INFO"]) if is_valid else RANKS["INFO"]


def deployed_with(level: str) -> tuple[dict[str, str], str]:
    """The function's environment in a stack with this LogLevel, and the level at which Lambda filters."""
    values = {"LogLevel": level}
    function = properties(TEMPLATE["Resources"], "Function")

    def value(entry: Any) -> str:
        return str(values.get(entry["Ref"], "") if isinstance(entry, dict) else entry)

    filtered_at = value(function["LoggingConfig"]["ApplicationLogLevel"])
    variables = {name: value(entry) for name, entry in function["Environment"]["Variables"].items()}
    required = {"STATE_TABLE": "state", "AWS_LAMBDA_LOG_LEVEL": filtered_at, "POWERTOOLS_SERVICE_NAME": "stack"}
    return {**{name: text for name, text in variables.items() if text}, **required}, filtered_at


def lines_in_cloudwatch(level: str) -> list[dict[str, Any]]:
    """What reaches CloudWatch of an invocation with one object that is ignored and one that is rejected."""
    environment, filtered_at = deployed_with(level)
    ignored = put_event("app/folder/", 0, "etag")
    event = {"Records": [*ignored["Records"], {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}]}
    done = subprocess.run(
        [sys.executable, "-c", INVOKE],
        input=json.dumps(event),
        env={**os.environ, **environment, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = done.stdout.splitlines()
    assert len(printed) > 1
    return [json.loads(line) for line in printed if rank(line) >= RANKS[filtered_at]]


@pytest.mark.parametrize("level", LEVELS)
def test_rejections_and_metrics_reach_cloudwatch_at_every_level(level: str) -> None:
    lines = lines_in_cloudwatch(level)

    assert [line["error_type"] for line in lines if line.get("message") == "Rejected"] == ["MalformedEvent"]
    assert [line["Rejected"] for line in lines if "_aws" in line] == [[1.0]]
    assert ("Ignored" in [line.get("message") for line in lines]) is (level == "INFO")
    assert all(RFC_3339.fullmatch(line["timestamp"]) for line in lines if "level" in line)


Logs = Callable[[], list[dict[str, Any]]]

MEGABYTE = "x" * 1024 * 1024


def test_no_field_of_a_line_is_longer_than_the_longest_key(logs: Logs) -> None:
    logger.info("Image pushed", key="k" * 1024, reason=MEGABYTE, tags=["latest"] * 100_000, few=["1.0", "2.0"])

    [line] = logs()
    assert line["key"] == "k" * 1024
    assert line["few"] == ["1.0", "2.0"]
    assert len(line["reason"]) == len(line["tags"]) == 1024
    assert len(json.dumps(line)) < 4096


def test_a_stack_trace_may_be_longer(logs: Logs) -> None:
    try:
        raise ValueError(MEGABYTE)
    except ValueError:
        logger.exception("Unexpected error, will be retried")

    [line] = logs()
    assert line["exception"].startswith("Traceback")
    assert len(line["exception"]) == 16 * 1024
    assert len(json.dumps(line)) < 40_000


def test_half_a_character_is_logged_as_json_escapes_it(logs: Logs) -> None:
    logger.info("Ignored", reason="half \ud83d", key="Käse ✨")

    [line] = logs()
    assert (line["reason"], line["key"]) == ("half \ud83d", "Käse ✨")
