"""Faults at every call, killed processes, and files in any order and at once lose nothing of an image."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from local import images
from local.images import Built
from local.invocation import Invocation
from s3_to_ecr.state.leases import LEASE_SECONDS
from tests.conftest import SMALL_PART, sqs_message
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import ANY_FAULT, Gremlin
from tests.doubles.layouts import assert_pullable, put, put_all
from tests.doubles.s3 import S3Double
from tests.doubles.worker import Worker
from tests.integration.test_chaos import run_side_by_side

pytestmark = pytest.mark.usefixtures("no_backoff", "small_parts")


def image(name: str, layers: int = 1, size: int = SMALL_PART + 500) -> Built:
    """A unique image."""
    chance = random.Random(name)  # noqa: S311 (not a secret)
    return images.image([chance.randbytes(size) for _ in range(layers)])


def deliver(handler: Function, event: dict[str, Any]) -> int:
    """Delivers the event's message until it succeeds, and returns the number of deliveries."""
    message = {"Records": [sqs_message(json.dumps(event))]}
    for delivery in range(1, 6):
        if handler.lambda_handler(message, Invocation()) == {"batchItemFailures": []}:
            return delivery
        handler.let_leases_end()
    raise AssertionError("the message never succeeds")


@pytest.mark.parametrize("fault", ANY_FAULT)
def test_the_sdk_recovers_from_a_single_fault_at_any_call(
    fault: str, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    deliver(handler, put_all(s3_double, images.oci_layout({"undisturbed": image("undisturbed")}))[0])
    calls = len(gremlin.calls)
    assert calls == 29

    for nth in range(1, calls + 1):
        gremlin.rest()
        strict_ecr.calls.clear()
        built = image(f"{fault} {nth}")
        event = put_all(s3_double, images.oci_layout({"1.0": built}))[0]
        gremlin.fail("*", fault, nth=nth)

        assert deliver(handler, event) == 1
        assert_pullable(strict_ecr, "1.0", built)
        assert strict_ecr.bytes_received <= sum(map(len, built.blobs.values())) + SMALL_PART
        assert len(gremlin.calls) > calls  # there was a fault


@pytest.mark.parametrize("fault", ["error 500", "cut after"])
@pytest.mark.parametrize("service", ["ecr", "s3", "dynamodb", "*"])
def test_an_outage_that_begins_at_any_call_loses_nothing(
    service: str, fault: str, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for nth in range(1, 30):
        built = image(f"{service} {fault} {nth}")
        event = put_all(s3_double, images.oci_layout({"1.0": built}))[0]
        gremlin.fail(service if service == "*" else f"{service}:*", fault, nth=nth, times=10_000)
        handler.lambda_handler({"Records": [sqs_message(json.dumps(event))]}, Invocation())

        gremlin.rest()
        handler.let_leases_end()
        deliver(handler, event)
        assert_pullable(strict_ecr, "1.0", built)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_outage_that_begins_at_any_call_loses_nothing_of_a_compressed_archive(
    compression: str, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    for nth in range(1, 40, 3):
        built = image(f"{compression} {nth}", 2)
        archive = images.compress(images.tar(images.oci_layout({"1.0": built})), compression)
        event = put(s3_double, f"app/any-{nth}", archive)
        gremlin.fail("*", "cut after", nth=nth, times=10_000)
        handler.lambda_handler({"Records": [sqs_message(json.dumps(event))]}, Invocation())

        gremlin.rest()
        handler.let_leases_end()
        deliver(handler, event)
        assert_pullable(strict_ecr, "1.0", built)


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_an_image_whose_process_is_killed_repeatedly_is_pushed(
    compression: str, doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    chance = random.Random(5)  # noqa: S311 (not a secret)
    built = images.index(image("killed", 5, 20 * SMALL_PART), image("killed, too", 5, 20 * SMALL_PART))
    archive = images.tar(images.oci_layout({"1.0": built}))
    if compression:
        archive = images.compress(archive, compression)
    most_kills = 10 if compression else 40
    event = put(s3_double, "app/1.0.tar", archive)
    message = {"Records": [sqs_message(json.dumps(event))]}
    worker = Worker(doubled)
    kills = 0
    answer: Any = "killed"
    while answer == "killed":
        kill = (chance.randrange(1, 60), chance.choice(["before", "after"])) if kills < most_kills else None
        answer = worker.invoke(message, kill, clock=kills * (LEASE_SECONDS + 1))
        kills += answer == "killed"
    worker.close()

    assert kills >= (5 if compression else 15)
    assert answer == {"batchItemFailures": []}
    assert_pullable(strict_ecr, "1.0", built)
    # Four layers are uploaded at once, and a kill may interrupt a part of each.
    assert strict_ecr.bytes_received <= sum(map(len, built.all_blobs.values())) + 4 * kills * SMALL_PART


@pytest.mark.usefixtures("much_memory")
def test_images_in_all_layouts_are_pushed_whatever_the_order_of_files_and_events(
    doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """Each file is stored when its event is delivered, up to three times, to one of four processes."""
    chance = random.Random(500)  # noqa: S311 (not a secret)
    expected: dict[tuple[str, str], Built] = {}
    files: dict[str, bytes] = {}
    for number in range(5):
        oci, static, stored = (
            images.index(image(f"{kind} {number}", 2), image(f"{kind} arm {number}", 2)) for kind in "abc"
        )
        files |= {f"oci-{number}/{path}": content for path, content in images.oci_layout({"1.0": oci}).items()}
        files |= {f"static-{number}/{path}": content for path, content in images.static_registry("1.0", static).items()}
        files |= images.registry_storage(f"stored-{number}", "1.0", stored)
        saved = image(f"saved {number}", 3)
        files[f"saved-{number}/any.tar"] = images.docker_save_25(["app:1.0"], saved)
        expected |= {(f"oci-{number}", "1.0"): oci, (f"static-{number}", "1.0"): static}
        expected |= {(f"stored-{number}", "1.0"): stored, (f"saved-{number}", "1.0"): saved}
    strict_ecr.create(*(repository for repository, _ in expected))
    waiting = [key for key in files for _ in range(chance.randint(1, 3))]
    chance.shuffle(waiting)

    def arrive(key: str) -> dict[str, Any]:
        return {"Records": [sqs_message(json.dumps(put(s3_double, key, files[key])))]}

    run_side_by_side(doubled, waiting, arrive)

    for (repository, tag), built in expected.items():
        assert_pullable(strict_ecr, tag, built, repository)
    # Every blob was sent once, and no byte twice.
    blobs = [blob for built in expected.values() for blob in built.all_blobs.values()]
    assert strict_ecr.bytes_received == sum(map(len, blobs))
