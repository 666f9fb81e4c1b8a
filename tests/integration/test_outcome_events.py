"""Every object that is done or given up has at least one event, and no other object has any, whatever fails."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local import images
from local.invocation import Invocation
from local.stack import BUCKET, Stack
from s3_to_ecr.errors import EventNotSent
from s3_to_ecr.state.leases import LEASE_SECONDS
from s3_to_ecr.telemetry import outcome_events
from tests.conftest import Load, sqs_message
from tests.doubles.ecr import EcrDouble
from tests.doubles.eventbridge import EventBridgeDouble
from tests.doubles.function import Function
from tests.doubles.layouts import AMD64, put, put_all
from tests.doubles.s3 import S3Double
from tests.doubles.server import Fault
from tests.doubles.worker import Worker
from tests.integration.test_backfill import job
from tests.integration.test_chaos import Layer

pytestmark = pytest.mark.usefixtures("no_backoff")

MIRRORED, REJECTED = "Object Mirrored", "Object Rejected"
FOREVER = 10_000

OUTAGES = {
    "unreachable": Fault(),
    "answers lost": Fault(after=True),
    "down": Fault("InternalException", status=500),
    "throttled": Fault("ThrottlingException"),
    "denied": Fault("AccessDeniedException"),
}


@pytest.fixture
def bridge() -> Iterator[EventBridgeDouble]:
    with EventBridgeDouble().running() as double:
        yield double


@pytest.fixture
def environment(doubled: dict[str, str], bridge: EventBridgeDouble) -> dict[str, str]:
    return doubled | {"OUTCOME_BUS": "outcomes", "AWS_ENDPOINT_URL_EVENTBRIDGE": bridge.url}


@pytest.fixture
def handler(environment: dict[str, str], load_handler: Load, monkeypatch: pytest.MonkeyPatch) -> Function:
    monkeypatch.setattr(outcome_events, "_WAITS_SECONDS", (0, 0))
    return load_handler(environment)


@pytest.fixture
def dead_letters(stack: Stack) -> Callable[[], list[tuple[str, str]]]:
    """Takes the dead letters: their keys and types."""

    def take() -> list[tuple[str, str]]:
        queue = stack.environment["DEAD_LETTER_QUEUE_URL"]
        received = stack.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
        found = []
        for letter in received.get("Messages", []):
            stack.sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter["ReceiptHandle"])
            attributes = letter["MessageAttributes"]
            found.append((attributes["Key"]["StringValue"], attributes["ErrorType"]["StringValue"]))
        return found

    while take():
        pass
    return take


def message(notification: dict[str, Any], received: int = 1) -> dict[str, Any]:
    return {"Records": [sqs_message(json.dumps(notification), received=received)]}


def succeeds(handler: Function, notification: dict[str, Any], received: int = 1) -> bool:
    """Delivers a message about the notification. Says whether it is off the queue."""
    answer = handler.lambda_handler(message(notification, received), Invocation())
    return not answer["batchItemFailures"]


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_an_outage_of_the_bus_brings_the_message_back_until_its_event_is_sent(
    outage: str, known: bool, handler: Function, bridge: EventBridgeDouble, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    layer = Layer(s3_double, "layer", known=known)
    bridge.faults.add("PutEvents", OUTAGES[outage], times=FOREVER)

    for _ in range(2):
        assert not succeeds(handler, layer.notification)
    bridge.faults.rest()
    sent = bridge.told.total()
    assert (sent > 0) == (outage == "answers lost")
    assert succeeds(handler, layer.notification)

    assert bridge.told == {(MIRRORED, layer.key): sent + 1}
    assert bridge.events[-1]["Detail"]["action"] == "skipped"
    assert len(strict_ecr.calls_of("CompleteLayerUpload")) == 1


def test_a_rejected_object_is_announced_and_then_reported_once(
    handler: Function,
    bridge: EventBridgeDouble,
    s3_double: S3Double,
    dead_letters: Callable[[], list[tuple[str, str]]],
) -> None:
    empty = put(s3_double, "app/empty", b"")
    bridge.faults.add("PutEvents", OUTAGES["denied"])

    assert not succeeds(handler, empty)
    assert dead_letters() == []
    assert succeeds(handler, empty)

    assert dead_letters() == [("app/empty", "EmptyBlob")]
    assert bridge.told == {(REJECTED, "app/empty"): 1}
    assert bridge.events[0]["Detail"]["error-type"] == "EmptyBlob"


def test_an_object_is_announced_as_rejected_when_it_is_given_up(
    handler: Function,
    bridge: EventBridgeDouble,
    s3_double: S3Double,
    dead_letters: Callable[[], list[tuple[str, str]]],
) -> None:
    index, *_ = put_all(s3_double, images.oci_layout({"1.0": AMD64}))
    for key in [key for key in s3_double.objects if "/blobs/" in key]:
        del s3_double.objects[key]

    assert not succeeds(handler, index)
    assert bridge.events == []
    assert succeeds(handler, index, received=FOREVER)

    assert bridge.told == {(REJECTED, "app/index.json"): 1}
    assert bridge.events[0]["Detail"]["reason"].startswith("given up after ")
    assert dead_letters() == [("app/index.json", "BlobsMissing")]


def test_the_last_delivery_during_an_outage_leaves_a_dead_letter_that_sends_the_event_when_it_is_redriven(
    handler: Function,
    bridge: EventBridgeDouble,
    s3_double: S3Double,
    dead_letters: Callable[[], list[tuple[str, str]]],
) -> None:
    layer = Layer(s3_double, "layer", known=True)
    bridge.faults.add("PutEvents", OUTAGES["denied"], times=FOREVER)

    assert succeeds(handler, layer.notification, received=FOREVER)
    assert dead_letters() == [(layer.key, "EventNotSent")]

    bridge.faults.rest()
    assert succeeds(handler, layer.notification)
    assert bridge.told == {(MIRRORED, layer.key): 1}


def test_an_image_that_waited_is_announced_by_whoever_completes_it(
    handler: Function, bridge: EventBridgeDouble, s3_double: S3Double
) -> None:
    """Its own message never comes back here, as if S3 had invoked the function directly."""
    files = images.oci_layout({"1.0": AMD64})
    assert not succeeds(handler, put(s3_double, "app/index.json", files.pop("index.json")))
    *others, last = [path for path in files if path.startswith("blobs/")]
    for path in ["oci-layout", *others]:
        assert succeeds(handler, put(s3_double, f"app/{path}", files[path]))
    assert (MIRRORED, "app/index.json") not in bridge.told
    notification = put(s3_double, f"app/{last}", files[last])
    bridge.faults.add("PutEvents", OUTAGES["denied"], times=2)

    for _ in range(2):
        assert not succeeds(handler, notification)
    assert succeeds(handler, notification)

    assert bridge.told == {
        (MIRRORED, "app/index.json"): 1,
        **{(MIRRORED, f"app/blobs/{digest.replace(':', '/')}"): 1 for digest in AMD64.blobs},
    }
    [event] = [event for event in bridge.events if event["Detail"]["key"] == "app/index.json"]
    assert event["Detail"]["images"] == [{"repository": "app", "digest": AMD64.digest, "tags": ["1.0"]}]


def test_s3_and_batch_operations_are_asked_to_try_again(
    handler: Function, bridge: EventBridgeDouble, s3_double: S3Double
) -> None:
    layer = Layer(s3_double, "layer", known=True)
    bridge.faults.add("PutEvents", OUTAGES["denied"], times=2)
    task = job("2.0", layer.key)

    with pytest.raises(EventNotSent, match=f"s3://{BUCKET}/{layer.key}: the object is done, but its event could not"):
        handler.lambda_handler(layer.notification, Invocation())
    [result] = handler.lambda_handler(task, Invocation())["results"]
    assert result["resultCode"] == "TemporaryFailure"
    assert bridge.events == []

    handler.lambda_handler(layer.notification, Invocation())
    [result] = handler.lambda_handler(task, Invocation())["results"]
    assert result["resultCode"] == "Succeeded"
    assert bridge.told == {(MIRRORED, layer.key): 2}


@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_a_process_that_is_killed_at_any_call_leaves_no_layer_without_an_event(
    known: bool, environment: dict[str, str], bridge: EventBridgeDouble, s3_double: S3Double
) -> None:
    worker = Worker(environment)
    kills = 0

    def kill(nth: int, when: str) -> bool:
        """Delivers the message of a new layer until it succeeds. Says whether the first invocation was killed."""
        nonlocal kills
        layer = Layer(s3_double, f"{nth} {when}", known=known, size=9)
        bridge.events.clear()
        killed: bool = worker.invoke(layer.message, (nth, when), clock=kills * (LEASE_SECONDS + 1)) == "killed"
        kills += killed
        if killed:
            assert worker.invoke(layer.message, clock=kills * (LEASE_SECONDS + 1)) == {"batchItemFailures": []}
        assert bridge.told.keys() == {(MIRRORED, layer.key)}
        return killed

    calls = next(nth for nth in itertools.count(1) if not kill(nth, "before")) - 1
    assert calls > 6
    assert kill(calls, "after")
    assert bridge.told.total() == 2  # the last call is that of the event
    worker.close()


class Killed(BaseException):
    """Ends an invocation: nothing catches it."""


@contextmanager
def killed_at(function: Function, nth: int) -> Iterator[None]:
    """Kills the invocation at its n-th call to the state table or the bus. It makes no more, not even to clean up."""
    sent = 0

    def kill(**_: object) -> None:
        nonlocal sent
        sent += 1
        if sent >= nth:
            raise Killed

    hooks = [client.meta.events for client in (function.clients.dynamodb, function.clients.events)]
    for hook in hooks:
        hook.register("before-send", kill)
    yield
    for hook in hooks:
        hook.unregister("before-send", kill)


def test_an_invocation_that_is_killed_at_any_call_leaves_no_image_that_waited_without_an_event(
    handler: Function, bridge: EventBridgeDouble, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for nth in itertools.count(1):
        built = images.image([f"{nth}".encode()])
        files = images.oci_layout({"1.0": built})
        *others, last = [path for path in files if path.startswith("blobs/")]
        for path in ("index.json", *others):
            succeeds(handler, put(s3_double, f"app/{path}", files[path]))
        bridge.events.clear()
        completing = put(s3_double, f"app/{last}", files[last])
        killed = False
        with killed_at(handler, nth):
            try:
                succeeds(handler, completing)
            except Killed:
                killed = True
        handler.let_leases_end()
        if killed:
            assert succeeds(handler, completing)
        assert bridge.told.keys() == {(MIRRORED, "app/index.json"), (MIRRORED, f"app/{last}")}
        assert strict_ecr.repositories["app"].tags["1.0"] == built.digest
        if not killed:
            break

    assert nth > 8


def test_of_many_objects_each_that_ends_is_announced_and_no_other(
    handler: Function, bridge: EventBridgeDouble, s3_double: S3Double
) -> None:
    """Half of all calls to the bus fail, some of them after the events were taken."""
    chance = random.Random(19)  # noqa: S311 (not a secret)
    for nth in range(1, 200, 2):
        bridge.faults.add("PutEvents", chance.choice([Fault(after=True), OUTAGES["denied"]]), nth=nth)
    layers = [Layer(s3_double, f"layer {number}", known=number % 2 == 0, size=99) for number in range(20)]
    notifications = [layer.notification for layer in layers]
    notifications += [put(s3_double, f"app/empty-{number}", b"") for number in range(5)]
    notifications += [put(s3_double, f"app/folder-{number}/", b"") for number in range(5)]
    waiting = [notification for notification in notifications for _ in range(chance.randint(1, 2))]
    while waiting:
        notification = waiting.pop(chance.randrange(len(waiting)))
        if not succeeds(handler, notification):
            waiting.append(notification)

    assert bridge.told.keys() == {(MIRRORED, layer.key) for layer in layers} | {
        (REJECTED, f"app/empty-{number}") for number in range(5)
    }
