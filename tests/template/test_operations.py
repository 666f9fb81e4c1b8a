"""The dashboard and the alarms."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.documents import anchors
from tests.template.rendering import TOPIC, Template, deployed, of_type, properties

# Each alarm's namespace, metric, dimension, statistic, seconds of a period, number of periods, and threshold.
ALARMS: dict[str, tuple[object, ...]] = {
    "DeadLettersAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue", "Maximum", 300, 1, 0),
    "OldestMessageAlarm": ("AWS/SQS", "ApproximateAgeOfOldestMessage", "WorkQueue", "Maximum", 300, 3, 3600),
    "RetriesAlarm": ("S3ToEcr", "Deliveries", "AWS::StackName", "Maximum", 900, 1, 10),
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Function", "Sum", 300, 1, 0),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Function", "Sum", 300, 3, 0),
}


def dashboard(source: Template, **parameters: str) -> dict[str, Any]:
    """The dashboard's body, with every reference replaced by its name."""
    body, values = properties(deployed(source, **parameters), "Dashboard")["DashboardBody"]["Fn::Sub"]
    limit = values["ConcurrencyLimit"]
    if isinstance(limit, dict):
        limit = source["Parameters"][limit["Ref"]]["Default"]
    text = body.replace("${ConcurrencyLimit}", str(limit))
    found: dict[str, Any] = json.loads(re.sub(r"\$\{(.+?)\}", r"\1", text))
    return found


def shown(widget: dict[str, Any]) -> set[tuple[str, str]]:
    """Namespace and name of each metric, with the dots of CloudWatch's short form expanded."""
    found = set()
    before: list[str] = []
    for metric in widget["properties"]["metrics"]:
        words = [word for word in metric if isinstance(word, str)]
        if words != ["..."]:
            before = [old if word == "." else word for word, old in zip(words, before or words, strict=True)]
        found.add((before[0], before[1]))
    return found


def emitted() -> set[str]:
    """The names of all metrics that the function counts."""
    calls = [
        node
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"count", "telemetry.count"}
    ]
    return {
        part.value
        for call in calls
        for part in ast.walk(call.args[0])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_its_metric_and_is_quiet_without_data(resources: dict[str, Any], name: str) -> None:
    alarm = properties(resources, name)

    [dimension] = alarm["Dimensions"]
    reference = dimension["Value"].get("Ref") or dimension["Value"]["Fn::GetAtt"][0]
    takes = (alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"], alarm["Threshold"])
    assert (alarm["Namespace"], alarm["MetricName"], reference, *takes) == ALARMS[name]
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"


def test_every_alarm_notifies_the_topic_if_there_is_one(source: Template, resources: dict[str, Any]) -> None:
    notifying = list(of_type(deployed(source, AlarmTopic=TOPIC), "AWS::CloudWatch::Alarm"))

    assert len(notifying) == len(ALARMS)
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}] for alarm in notifying)
    assert not [alarm for alarm in of_type(resources, "AWS::CloudWatch::Alarm") if "AlarmActions" in alarm]


def test_every_alarm_links_to_its_section_of_the_runbook(resources: dict[str, Any]) -> None:
    pages = anchors(ROOT / "docs/operations.md")

    for name in ALARMS:
        [anchor] = re.findall(r"docs/operations\.md#(\S+)$", properties(resources, name)["AlarmDescription"])
        assert anchor in pages


@pytest.mark.parametrize("parameters", [{}, {"ReservedConcurrency": "0"}])
def test_the_dashboard_shows_metrics_of_the_function_and_of_aws(source: Template, parameters: dict[str, str]) -> None:
    widgets = dashboard(source, **parameters)["widgets"]
    metrics = {metric for widget in widgets if widget["type"] == "metric" for metric in shown(widget)}

    assert {name for space, name in metrics if space == "S3ToEcr"} <= emitted()
    assert metrics >= {
        ("S3ToEcr", name)
        for name in ("BytesUploaded", "LayersUploaded", "UploadSeconds", "PartsResent", "Rejected", "GivenUp")
    } | {
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage"),
        ("AWS/Lambda", "Errors"),
        ("AWS/Lambda", "Throttles"),
        ("AWS/Lambda", "Duration"),
        ("AWS/Lambda", "ConcurrentExecutions"),
    }


def test_the_dashboards_widgets_fit_the_grid_and_name_the_region(source: Template) -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard(source)["widgets"]:
        area = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not area & taken
        assert max(x for x, _ in area) < 24
        taken |= area
        if widget["type"] == "metric":
            assert widget["properties"]["region"] == "AWS::Region"


def test_duration_and_concurrency_are_shown_against_their_limits(source: Template, resources: dict[str, Any]) -> None:
    lines = {
        widget["properties"]["title"]: [line["value"] for line in widget["properties"]["annotations"]["horizontal"]]
        for widget in dashboard(source)["widgets"]
        if "annotations" in widget["properties"]
    }

    assert lines["Duration, milliseconds"] == [properties(resources, "Function")["Timeout"] * 1000]
    assert lines["Concurrency"] == [source["Parameters"]["ReservedConcurrency"]["Default"]]
    assert lines["Age of the oldest message, seconds"] == [properties(resources, "OldestMessageAlarm")["Threshold"]]


def test_the_runbook_names_every_metric() -> None:
    listed = (ROOT / "docs/operations.md").read_text().partition("Metrics, in the namespace `S3ToEcr`")[2]

    assert set(re.findall(r"`([A-Z]\w+)`", listed)) == emitted()
