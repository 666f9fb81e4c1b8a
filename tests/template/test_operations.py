"""The dashboard and the alarms."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.documents import anchors
from tests.template.rendering import REGISTRY, TOPIC, Template, deployed, of_type, properties

# Each alarm's namespace, metric, dimension, statistic, seconds of a period, number of periods, and threshold.
ALARMS: dict[str, tuple[object, ...]] = {
    "DeadLettersAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue", "Maximum", 300, 1, 0),
    "OldDeadLettersAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "DeadLetterQueue", "Maximum", 86400, 7, 0),
    "OldestMessageAlarm": ("AWS/SQS", "ApproximateAgeOfOldestMessage", "WorkQueue", "Maximum", 300, 3, 3600),
    "RetriesAlarm": ("S3ToEcr", "Deliveries", "AWS::StackName", "Maximum", 900, 1, 10),
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Function", "Sum", 300, 1, 0),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Function", "Sum", 300, 3, 0),
    "UndeliveredEventsAlarm": ("AWS/Events", "FailedInvocations", "ExistingBucketEvents", "Sum", 300, 1, 0),
}
RUNBOOK = "https://git.example.com/team/s3-to-ecr/blob/HEAD/docs/operations.md"


@pytest.fixture(scope="module")
def existing(source: Template) -> dict[str, Any]:
    """The resources of a stack for an existing bucket, which has all alarms."""
    return deployed(source, ExistingBucket=REGISTRY)


def dashboard(source: Template, **parameters: str) -> dict[str, Any]:
    """The dashboard's body, with every reference replaced by its name or, for a parameter, by its value."""
    body, values = properties(deployed(source, **parameters), "Dashboard")["DashboardBody"]["Fn::Sub"]
    known = {name: str(parameters.get(name, entry["Default"])) for name, entry in source["Parameters"].items()}
    known |= {name: substituted(value, known) for name, value in values.items()}
    found: dict[str, Any] = json.loads(substituted({"Fn::Sub": body}, known))
    return found


def substituted(value: Any, known: dict[str, str]) -> str:
    """The text of a `Ref` or an `Fn::Sub`."""
    if not isinstance(value, dict):
        return str(value)
    text = value.get("Fn::Sub") or f"${{{value['Ref']}}}"
    return re.sub(r"\$\{(.+?)\}", lambda found: known.get(found[1], found[1]), text)


def described(resources: dict[str, Any], alarm: str) -> str:
    """An alarm's description."""
    text, values = properties(resources, alarm)["AlarmDescription"]["Fn::Sub"]
    return substituted({"Fn::Sub": text}, {"Runbook": substituted(values["Runbook"], {"RunbookUrl": RUNBOOK})})


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
def test_an_alarm_watches_its_metric_and_is_quiet_without_data(existing: dict[str, Any], name: str) -> None:
    alarm = properties(existing, name)

    [dimension] = alarm["Dimensions"]
    reference = dimension["Value"].get("Ref") or dimension["Value"]["Fn::GetAtt"][0]
    takes = (alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"], alarm["Threshold"])
    assert (alarm["Namespace"], alarm["MetricName"], reference, *takes) == ALARMS[name]
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    assert alarm["TreatMissingData"] == "notBreaching"


def test_every_alarm_notifies_the_topic_if_there_is_one(source: Template, existing: dict[str, Any]) -> None:
    notifying = list(of_type(deployed(source, AlarmTopic=TOPIC, ExistingBucket=REGISTRY), "AWS::CloudWatch::Alarm"))

    assert len(notifying) == len(ALARMS)
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}] for alarm in notifying)
    assert not [alarm for alarm in of_type(existing, "AWS::CloudWatch::Alarm") if "AlarmActions" in alarm]


def test_only_a_stack_with_eventbridge_watches_it(source: Template, resources: dict[str, Any]) -> None:
    assert "UndeliveredEventsAlarm" not in resources

    [alarms] = [widget for widget in dashboard(source)["widgets"] if widget["type"] == "alarm"]
    assert alarms["properties"]["alarms"] == [f"{name}.Arn" for name in ALARMS if name != "UndeliveredEventsAlarm"]
    [alarms] = [widget for widget in dashboard(source, ExistingBucket=REGISTRY)["widgets"] if widget["type"] == "alarm"]
    assert alarms["properties"]["alarms"] == [f"{name}.Arn" for name in ALARMS]


def test_dead_letters_ring_again_while_there_is_time_to_act(resources: dict[str, Any]) -> None:
    alarm = properties(resources, "OldDeadLettersAlarm")
    rings = alarm["Period"] * alarm["EvaluationPeriods"]

    # CloudWatch takes no more than seven days. A message that SQS moved has spent a day on the work queue already.
    assert rings <= 7 * 86400
    assert properties(resources, "DeadLetterQueue")["MessageRetentionPeriod"] - rings >= 6 * 86400


def test_every_alarm_links_to_its_section_of_the_runbook(source: Template, existing: dict[str, Any]) -> None:
    pages = anchors(ROOT / "docs/operations.md")
    linked = deployed(source, ExistingBucket=REGISTRY, RunbookUrl=RUNBOOK)

    for name in ALARMS:
        [anchor] = re.findall(rf" See {re.escape(RUNBOOK)}#(\S+)$", described(linked, name))
        assert anchor in pages
        assert described(existing, name).endswith(f" See docs/operations.md#{anchor}")


def test_every_alarm_is_as_urgent_as_the_runbook_says(existing: dict[str, Any]) -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("## Alarms")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| \[.+?\]\(#(\S+)\) \| (.+?) \|", section, re.MULTILINE))

    for name in ALARMS:
        urgency, anchor = re.findall(r"Look (now|today|within \w+ days?).*#(\S+)$", described(existing, name))[0]
        assert rows.pop(anchor).lower().startswith(urgency)
    assert not rows


def test_the_dashboard_links_to_the_runbook(source: Template) -> None:
    def text(**parameters: str) -> str:
        [widget] = [widget for widget in dashboard(source, **parameters)["widgets"] if widget["type"] == "text"]
        return str(widget["properties"]["markdown"])

    assert f"[the runbook]({RUNBOOK})" in text(RunbookUrl=RUNBOOK)
    assert "docs/operations.md" in text()
    assert "make dead-letters STACK=AWS::StackName" in text()


def test_the_dashboard_lists_the_last_rejections_with_their_reasons(source: Template) -> None:
    [log] = [widget["properties"] for widget in dashboard(source)["widgets"] if widget["type"] == "log"]

    first, *rest = log["query"].split(" | ")
    assert first == "SOURCE 'FunctionLogs'"
    assert rest == [
        'filter message in ["Rejected", "Given up"]',
        "fields @timestamp, error_type, key, reason",
        "sort @timestamp desc",
        "limit 20",
    ]
    # The same as the runbook's query, whose words are compared with the source.
    assert rest[0] in (ROOT / "docs/operations.md").read_text()
    assert (log["view"], log["region"]) == ("table", "AWS::Region")


@pytest.mark.parametrize("parameters", [{}, {"ReservedConcurrency": "15"}])
def test_the_dashboard_shows_metrics_of_the_function_and_of_aws(source: Template, parameters: dict[str, str]) -> None:
    widgets = dashboard(source, **parameters)["widgets"]
    metrics = {metric for widget in widgets if widget["type"] == "metric" for metric in shown(widget)}

    assert {name for space, name in metrics if space == "S3ToEcr"} <= emitted()
    assert metrics >= {("S3ToEcr", name) for name in emitted() - {"Records"}} | {
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
            assert widget["width"] >= 8


def test_metrics_are_shown_against_their_limits(source: Template, resources: dict[str, Any]) -> None:
    lines = {
        widget["properties"]["title"]: [line["value"] for line in widget["properties"]["annotations"]["horizontal"]]
        for widget in dashboard(source, ReservedConcurrency="15")["widgets"]
        if "annotations" in widget["properties"]
    }

    assert lines["Duration, milliseconds"] == [properties(resources, "Function")["Timeout"] * 1000]
    assert lines["Concurrency"] == [15]
    assert lines["Age of the oldest message, seconds"] == [properties(resources, "OldestMessageAlarm")["Threshold"]]
    assert lines["Deliveries of a message that is put back"] == [properties(resources, "RetriesAlarm")["Threshold"]]


def test_the_runbook_names_every_metric() -> None:
    listed = (ROOT / "docs/operations.md").read_text().partition("Metrics, in the namespace `S3ToEcr`")[2]

    assert set(re.findall(r"`([A-Z]\w+)`", listed)) == emitted()
