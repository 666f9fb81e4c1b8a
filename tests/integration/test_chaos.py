"""Faults at every call, outages, killed processes, and repeated and reordered events lose nothing.

All of it is seeded: the same calls fail in every run.
"""

from __future__ import annotations

import hashlib
import json
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from local.invocation import Invocation, put_event
from local.stack import Stack
from s3_to_ecr.errors import UploadInProgress
from s3_to_ecr.state.leases import LEASE_SECONDS, Leases
from tests.conftest import SMALL_PART, Load, sqs_message
from tests.doubles.dynamodb import DynamoDBDouble
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import ANY_FAULT, Gremlin
from tests.doubles.s3 import Bytes, Pattern, S3Double, Stored
from tests.doubles.worker import Worker

pytestmark = pytest.mark.usefixtures("no_backoff", "small_parts")

PART = SMALL_PART
SIZE = 3500
T = TypeVar("T")


@pytest.fixture
def other(doubled: dict[str, str], load_handler: Load) -> Function:
    """The handler of another invocation."""
    return load_handler(doubled)


@pytest.fixture(params=[False, True], ids=["digest unknown", "digest known"])
def known(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Layer:
    """A unique layer in the bucket, and the message about it."""

    def __init__(self, s3: S3Double, name: str, *, known: bool, size: int = SIZE) -> None:
        content = Pattern(size, seed=int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
        self.content = content.slice(0, size)
        self.digest = content.digest
        self.key = f"app/{self.digest}" if known else f"app/{name}"
        s3.objects[self.key] = Stored(Bytes(self.content))  # a pattern takes a megabyte
        self.notification = put_event(self.key, size, Stored(content).etag)
        self.message = {"Records": [sqs_message(json.dumps(self.notification))]}


def deliver(handler: Function, layer: Layer, ecr: EcrDouble) -> int:
    """Delivers the message until it succeeds, and returns the number of deliveries. Leases end between them."""
    for delivery in range(1, 6):
        answer = handler.lambda_handler(layer.message, Invocation())
        if answer == {"batchItemFailures": []}:
            assert ecr.content_of("app", layer.digest) == layer.content
            return delivery
        handler.let_leases_end()
    raise AssertionError("the message never succeeds")


@pytest.mark.parametrize("fault", ANY_FAULT)
def test_any_single_fault_at_any_call_costs_at_most_one_part(
    fault: str, known: bool, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    deliver(handler, Layer(s3_double, "undisturbed", known=known), strict_ecr)
    calls = len(gremlin.calls)
    assert calls == (15 if known else 16)

    for nth in range(1, calls + 1):
        gremlin.rest()
        strict_ecr.calls.clear()
        layer = Layer(s3_double, f"{fault} {nth}", known=known)
        gremlin.fail("*", fault, nth=nth)

        assert deliver(handler, layer, strict_ecr) == 1
        assert strict_ecr.bytes_received <= SIZE + PART
        assert len(gremlin.calls) > calls  # there was a fault


@pytest.mark.parametrize("fault", ["error 500", "cut after"])
@pytest.mark.parametrize("service", ["ecr", "s3", "dynamodb", "*"])
def test_an_outage_that_begins_at_any_call_loses_no_progress(
    service: str,
    fault: str,
    known: bool,
    handler: Function,
    gremlin: Gremlin,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
) -> None:
    for nth in range(1, 16):
        strict_ecr.calls.clear()
        layer = Layer(s3_double, f"{service} {fault} {nth}", known=known)
        gremlin.fail(service if service == "*" else f"{service}:*", fault, nth=nth, times=10_000)

        handler.lambda_handler(layer.message, Invocation())
        gremlin.rest()
        handler.let_leases_end()
        deliver(handler, layer, strict_ecr)

        # In an outage, the SDK sends a part four times. The next delivery may send one to learn ECR's position.
        assert strict_ecr.bytes_received <= SIZE + (4 if "after" in fault else 1) * PART, nth


@pytest.mark.parametrize("fault", ANY_FAULT)
def test_a_call_that_fails_after_all_sdk_retries_costs_at_most_one_part(
    fault: str, known: bool, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """Four failures in a row exhaust the SDK's retries. All later calls succeed."""
    for service in ("ecr", "s3", "dynamodb"):
        for nth in range(1, 8):
            gremlin.rest()
            strict_ecr.calls.clear()
            layer = Layer(s3_double, f"{service} {fault} {nth}", known=known)
            gremlin.fail(f"{service}:*", fault, nth=nth, times=4)

            deliver(handler, layer, strict_ecr)
            assert strict_ecr.bytes_received <= SIZE + (4 if "after" in fault else 1) * PART, (service, nth)


def test_a_layer_whose_process_is_killed_fifty_times_is_uploaded(
    known: bool, doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    size = 400 * PART + 1
    chance = random.Random(4)  # noqa: S311 (not a secret)
    layer = Layer(s3_double, "large", known=known, size=size)
    worker = Worker(doubled)
    kills = 0
    answer: Any = "killed"
    while answer == "killed":
        kill = (chance.randrange(1, 40), chance.choice(["before", "after"])) if kills < 60 else None
        # Each time, the lease of the killed process has ended.
        answer = worker.invoke(layer.message, kill, clock=kills * (LEASE_SECONDS + 1))
        kills += answer == "killed"
    worker.close()

    assert kills >= 50
    assert answer == {"batchItemFailures": []}
    assert strict_ecr.content_of("app", layer.digest) == layer.content
    assert strict_ecr.bytes_received <= size + kills * PART
    assert len(strict_ecr.calls_of("CompleteLayerUpload")) <= kills + 1


def test_the_layer_of_a_killed_process_waits_for_its_lease_to_end(
    doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    layer = Layer(s3_double, "waits", known=True)
    worker = Worker(doubled)

    assert worker.invoke(layer.notification, (6, "after")) == "killed"
    assert worker.invoke(layer.notification, clock=LEASE_SECONDS - 10) == "UploadInProgress"
    assert worker.invoke(layer.notification, clock=LEASE_SECONDS + 10)["results"][0]["action"] == "uploaded"
    worker.close()
    assert len(strict_ecr.calls_of("InitiateLayerUpload")) == 1


def test_of_two_invocations_for_one_layer_one_uploads_and_the_other_waits(
    known: bool, handler: Function, gremlin: Gremlin, other: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    layer = Layer(s3_double, "wanted twice", known=known)
    answers: list[Any] = []

    def meanwhile() -> None:
        answers.append(other.lambda_handler(layer.message, Invocation()))

    gremlin.meddle("ecr:UploadLayerPart", meanwhile, times=4)
    assert handler.lambda_handler(layer.message, Invocation()) == {"batchItemFailures": []}

    # During every part, the other invocation found the lease taken, and put its message back.
    assert answers == [{"batchItemFailures": [{"itemIdentifier": "message-1"}]}] * 4
    assert other.lambda_handler(layer.notification, Invocation())["results"][0]["action"] == "skipped"
    assert strict_ecr.spans == [(0, 999), (1000, 1999), (2000, 2999), (3000, 3499)]
    assert len(strict_ecr.calls_of("InitiateLayerUpload")) == 1


def test_a_layer_that_another_invocation_has_just_finished_is_not_sent_again(
    known: bool, handler: Function, other: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """The whole upload happens after the other invocation has looked for the layer, and before it takes the lease."""
    layer = Layer(s3_double, "overtaken", known=known)
    gremlin = Gremlin(other.clients)
    gremlin.meddle("dynamodb:UpdateItem", lambda: handler.lambda_handler(layer.message, Invocation()))
    [result] = other.lambda_handler(layer.notification, Invocation())["results"]

    gremlin.close()
    assert result["action"] == "skipped"
    assert len(strict_ecr.spans) == 4


@pytest.mark.usefixtures("much_memory")
def test_500_objects_with_repeated_and_reordered_events_are_uploaded_once_each(
    doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """Each event is delivered up to three times, in any order, to four processes. Some layers have several keys."""
    chance = random.Random(500)  # noqa: S311 (not a secret)
    layers = [
        Layer(s3_double, f"layer {number}", known=number % 2 == 0, size=chance.choice([99, 999, 1000, 1001, 2500]))
        for number in range(450)
    ]
    messages = [layer.message for layer in layers]
    for repeated in layers[0:100:2]:  # the same content under the key of a static registry
        key = f"app/blobs/{repeated.digest}"
        s3_double.objects[key] = s3_double.objects[repeated.key]
        notification = put_event(key, len(repeated.content), s3_double.objects[key].etag)
        messages.append({"Records": [sqs_message(json.dumps(notification))]})
    assert len(messages) == 500
    waiting = [message for message in messages for _ in range(chance.randint(1, 3))]
    chance.shuffle(waiting)
    run_side_by_side(doubled, waiting, lambda message: message)

    assert strict_ecr.repositories["app"].layers == {layer.digest: layer.content for layer in layers}
    # Every layer was sent once: one upload, one completion, and no byte twice.
    assert len(strict_ecr.calls_of("InitiateLayerUpload")) == len(layers)
    assert len(strict_ecr.calls_of("CompleteLayerUpload")) == len(layers)
    assert strict_ecr.bytes_received == sum(len(layer.content) for layer in layers)


def run_side_by_side(environment: dict[str, str], waiting: list[T], message: Callable[[T], dict[str, Any]]) -> None:
    """Lets four processes handle the messages of the `waiting` items, and put back the items that fail."""
    left: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in waiting:
        left.put(item)

    def work() -> None:
        worker = Worker(environment)
        with suppress(queue.Empty):
            while True:
                item = left.get_nowait()
                if worker.invoke(message(item)) != {"batchItemFailures": []}:
                    left.put(item)
                    time.sleep(0.01)
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left.empty()


def test_an_invocation_that_hangs_past_its_lease_does_not_disturb_the_next_one(
    known: bool, handler: Function, gremlin: Gremlin, other: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    other.let_leases_end()
    layer = Layer(s3_double, "hangs", known=known)

    def hang() -> None:
        assert other.lambda_handler(layer.message, Invocation()) == {"batchItemFailures": []}
        handler.let_leases_end()

    gremlin.meddle("ecr:UploadLayerPart", hang, nth=3)
    handler.lambda_handler(layer.message, Invocation())
    [result] = other.lambda_handler(layer.notification, Invocation())["results"]

    assert (result["action"], result["digest"]) == ("skipped", layer.digest)
    # The other sends the first part to learn ECR's position. The one that hangs sends its part too late.
    assert strict_ecr.bytes_received <= SIZE + 2 * PART
    assert len(strict_ecr.calls_of("InitiateLayerUpload")) == 1


def test_a_finished_layer_leaves_a_row_without_progress(
    state: DynamoDBDouble, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for known in (True, False):
        deliver(handler, Layer(s3_double, "done", known=known), strict_ecr)

    left = [row for key, row in state.tables["state"].items() if key.startswith("upload#")]
    assert [set(row) for row in left] == [{"id", "repository", "layer", "taken", "expiration"}] * 2


def test_only_one_of_several_invocations_gets_a_lease(stack: Stack, fresh: dict[str, str]) -> None:
    """DynamoDB ensures this; here, its stand-in does."""
    leases = Leases(stack.dynamodb, fresh["STATE_TABLE"])
    for number in range(10):
        together, holding = threading.Barrier(8), threading.Barrier(8)
        got: list[bool] = []

        def take(layer: str, together: threading.Barrier, holding: threading.Barrier, got: list[bool]) -> None:
            together.wait(30)
            try:
                with leases.layer((None, "app"), layer):
                    got.append(True)
                    holding.wait(30)
            except UploadInProgress:
                holding.wait(30)

        threads = [threading.Thread(target=take, args=(f"{number}", together, holding, got)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [True]


def test_a_lease_covers_a_layer_in_one_registry(
    doubled: dict[str, str], load_handler: Load, s3_double: S3Double
) -> None:
    handler = load_handler(doubled, ECR_REGISTRY_ID="123456789012")
    layer = Layer(s3_double, "somewhere", known=True)

    with handler.leases.layer(("123456789012", "app"), layer.digest), pytest.raises(UploadInProgress):
        handler.lambda_handler(layer.notification, Invocation())
    with handler.leases.layer((None, "app"), layer.digest):
        assert handler.lambda_handler(layer.notification, Invocation())["results"][0]["action"] == "uploaded"
