"""The events about outcomes: what is in them, which objects have one, and how they are sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest

from s3_to_ecr.errors import EmptyBlob, OutOfTime, S3ToEcrError, ServiceUnavailable
from s3_to_ecr.results import Attempt, PushedImage, Result
from s3_to_ecr.s3_objects import S3Object
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry import outcome_events
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents
from tests.conftest import ONE_ATTEMPT
from tests.doubles.eventbridge import EventBridgeDouble
from tests.doubles.server import Fault

FUNCTION = "arn:aws-cn:lambda:cn-north-1:123456789012:function:s3-to-ecr"
OBJECT = S3Object("bucket", "app/ä.tar", "v1", "e1", 99, "0055")
IMAGE = PushedImage(repository="app", digest="sha256:i", tags=["1.0"])
PUSHED = Result(
    bucket="bucket", key="app/ä.tar", action="pushed", repository="app", digest="sha256:i", size=99, reason=None,
    images=[IMAGE],
)  # fmt: skip
UPLOADED = Result(
    bucket="bucket", key="app/x", action="uploaded", repository="app", digest="sha256:l", size=7, reason=None
)


def attempt(outcome: Result | S3ToEcrError, target: S3Object | None = OBJECT, **more: Any) -> Attempt:
    return Attempt(target, outcome, 1.23456, **more)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_events, "_WAITS_SECONDS", (0, 0))


@pytest.fixture
def bridge() -> EventBridgeDouble:
    return EventBridgeDouble()


@pytest.fixture
def events(bridge: EventBridgeDouble) -> OutcomeEvents:
    return sending_to(bridge)


def sending_to(bridge: EventBridgeDouble, **settings: Any) -> OutcomeEvents:
    client = boto3.client("events", config=ONE_ATTEMPT)
    bridge.attach(client)
    clients = cast("Any", SimpleNamespace(events=client))
    return OutcomeEvents(clients, Settings("state", outcome_bus="outcomes", **settings), FUNCTION)


def test_an_image_that_was_pushed_is_announced_with_all_that_is_known(
    bridge: EventBridgeDouble, events: OutcomeEvents
) -> None:
    assert events.announce([attempt(PUSHED)]) == [attempt(PUSHED)]

    assert bridge.events == [
        {
            "EventBusName": "outcomes",
            "Source": "s3-to-ecr",
            "DetailType": "Object Mirrored",
            "Resources": [
                "arn:aws-cn:s3:::bucket/app/ä.tar",
                "arn:aws-cn:ecr:cn-north-1:123456789012:repository/app",
            ],
            "Detail": {
                "bucket": "bucket",
                "key": "app/ä.tar",
                "version-id": "v1",
                "etag": "e1",
                "action": "pushed",
                "repository": "app",
                "images": [IMAGE],
                "digest": "sha256:i",
                "size": 99,
                "seconds": 1.235,
                "error-type": None,
                "reason": None,
            },
        }
    ]


def test_what_is_not_known_of_a_rejected_object_is_null(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    events.announce([attempt(EmptyBlob("no bytes"), S3Object("bucket", "app/x"))])

    [event] = bridge.events
    assert event["DetailType"] == "Object Rejected"
    assert event["Resources"] == ["arn:aws-cn:s3:::bucket/app/x"]
    assert event["Detail"] == dict.fromkeys(
        ("version-id", "etag", "action", "repository", "images", "digest", "size")
    ) | {"bucket": "bucket", "key": "app/x", "seconds": 1.235, "error-type": "EmptyBlob", "reason": "no bytes"}


def test_a_layer_has_no_images_and_both_kinds_of_event_have_the_same_fields(
    bridge: EventBridgeDouble, events: OutcomeEvents
) -> None:
    events.announce([attempt(UPLOADED), attempt(EmptyBlob("no bytes"))])

    layer, rejected = (event["Detail"] for event in bridge.events)
    assert layer["images"] == []
    assert list(layer) == list(rejected)


def test_repositories_of_another_account_are_named_with_that_account(bridge: EventBridgeDouble) -> None:
    sending_to(bridge, registry_id="another").announce([attempt(PUSHED)])

    assert bridge.events[0]["Resources"][1] == "arn:aws-cn:ecr:cn-north-1:another:repository/app"


def test_only_objects_that_have_ended_are_announced(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    attempts = [
        attempt(PUSHED | {"action": "skipped"}),
        attempt(PUSHED | {"action": "ignored"}),
        attempt(OutOfTime("later")),
        attempt(OutOfTime("given up after 100 deliveries: later"), given_up=True),
        attempt(EmptyBlob("a record that names no object"), None),
    ]

    assert events.announce(attempts) == attempts
    told = [(event["DetailType"], event["Detail"]["reason"]) for event in bridge.events]
    assert told == [("Object Mirrored", None), ("Object Rejected", "given up after 100 deliveries: later")]


def test_without_a_bus_no_client_is_made() -> None:
    attempts = [attempt(PUSHED)]

    assert OutcomeEvents(cast("Any", None), Settings("state"), FUNCTION).announce(attempts) == attempts


def test_without_objects_nothing_is_sent(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    events.announce([attempt(OutOfTime("later"))])

    assert bridge.calls == []


def test_events_are_sent_ten_at_a_time(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    events.announce([attempt(UPLOADED, S3Object("bucket", f"app/{number}")) for number in range(25)])

    assert bridge.calls == [10, 10, 5]
    assert [event["Detail"]["key"] for event in bridge.events] == [f"app/{number}" for number in range(25)]


def test_large_events_share_a_call_only_while_there_is_room(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    large = PUSHED | {"images": [IMAGE | {"tags": ["t" * 100] * 1000}]}

    events.announce([attempt(large) for _ in range(5)])

    assert bridge.calls == [2, 2, 1]
    assert not any("images-left-out" in event["Detail"] for event in bridge.events)


def test_images_that_have_no_room_are_counted(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    images = [
        PushedImage(repository=f"mirror/{number:04}", digest=f"sha256:{'0' * 64}", tags=["ä" * 30])
        for number in range(5000)
    ]

    assert events.announce([attempt(PUSHED | {"images": images})])[0].error is None

    [event] = bridge.events
    kept = event["Detail"]["images"]
    assert 400 < len(kept) < 5000
    assert kept == images[: len(kept)]
    assert event["Detail"]["images-left-out"] == 5000 - len(kept)
    assert len(event["Resources"]) == 1 + len(kept)


def test_a_long_reason_is_cut(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    events.announce([attempt(EmptyBlob("\U0001f433" * 300_000)), attempt(UPLOADED | {"reason": "\udc80" * 300_000})])

    for event in bridge.events:
        assert 1000 < len(event["Detail"]["reason"]) < 3000


def test_only_events_that_were_refused_are_sent_again(bridge: EventBridgeDouble, events: OutcomeEvents) -> None:
    bridge.faults.add("Event", Fault("ThrottlingException"), nth=2)
    bridge.faults.add("Event", Fault("InternalFailure"), nth=4)
    attempts = [attempt(UPLOADED, S3Object("bucket", f"app/{number}")) for number in range(3)]

    assert events.announce(attempts) == attempts

    assert bridge.calls == [3, 1, 1]
    assert [event["Detail"]["key"] for event in bridge.events] == ["app/0", "app/2", "app/1"]


def test_an_object_whose_event_is_always_refused_has_to_be_tried_again(
    bridge: EventBridgeDouble, events: OutcomeEvents
) -> None:
    for nth in (2, 3, 4):
        bridge.faults.add("Event", Fault("NotAuthorizedForSourceException"), nth=nth)
    attempts = [attempt(UPLOADED), attempt(OutOfTime("later"), given_up=True)]

    sent, unsent = events.announce(attempts)

    assert sent == attempts[0]
    assert not unsent.has_ended
    assert str(unsent.error).startswith("s3://bucket/app/ä.tar: the object was rejected, but its event could not be")
    assert "bus outcomes: NotAuthorizedForSourceException: a fault on demand." in str(unsent.error)


def test_a_call_that_fails_leaves_the_events_of_other_calls_alone(
    bridge: EventBridgeDouble, events: OutcomeEvents
) -> None:
    bridge.faults.add("PutEvents", Fault("AccessDeniedException"))

    after = events.announce([attempt(UPLOADED, S3Object("bucket", f"app/{number}")) for number in range(12)])

    assert [type(each.error).__name__ for each in after] == ["EventNotSent"] * 10 + ["NoneType"] * 2
    assert len(bridge.events) == 2


def test_a_retried_object_keeps_its_own_error_when_no_event_can_be_sent(
    bridge: EventBridgeDouble, events: OutcomeEvents
) -> None:
    bridge.faults.add("PutEvents", Fault("InternalException", status=500), times=10)
    waits = attempt(ServiceUnavailable("down"))

    assert events.announce([waits, attempt(UPLOADED)])[0] == waits
