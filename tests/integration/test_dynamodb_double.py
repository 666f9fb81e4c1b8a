"""The double of DynamoDB answers like moto's, whatever the function asks of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from local.invocation import Invocation
from local.stack import Stack, create_state_table
from s3_to_ecr.errors import S3ToEcrError, UploadInProgress
from s3_to_ecr.state.tag_writes import TagWrites
from s3_to_ecr.state.waiting_images import WaitingImages
from tests.doubles.function import Function
from tests.doubles.s3 import S3Double
from tests.integration.test_chaos import Layer

pytestmark = pytest.mark.usefixtures("small_parts")

SCOPE = (None, "app")


def use_leases(handler: Function, _: S3Double) -> None:
    with handler.leases.layer(SCOPE, "a layer") as lease:
        with suppress(UploadInProgress), handler.leases.layer(SCOPE, "a layer"):
            pass
        handler.let_leases_end()
        with handler.leases.layer(SCOPE, "a layer"), suppress(UploadInProgress):
            lease.save()


def push_layers(handler: Function, s3: S3Double) -> None:
    for known in (True, False):
        event = Layer(s3, "twice", known=known).notification
        for _ in range(2):
            handler.lambda_handler(event, Invocation())


def fail_to_push(handler: Function, s3: S3Double) -> None:
    layer = Layer(s3, "absent", known=False)
    s3.objects.clear()
    with suppress(S3ToEcrError):
        handler.lambda_handler(layer.notification, Invocation())


def set_tags(handler: Function, _: S3Double) -> None:
    writes = TagWrites(handler.clients.dynamodb, "state")
    for second in (2, 2, 1, 3):
        writes.claim(SCOPE, "latest", f"s3://bucket/{second}", datetime.fromtimestamp(second, UTC))


def note_images(handler: Function, _: S3Double) -> None:
    waiting = WaitingImages(handler.clients.dynamodb, "state")
    for key in ("one", "two", "two"):
        waiting.note("bucket", "awaited", key)
    for key in ("absent", "one", "two"):
        waiting.keys("bucket", "awaited")
        waiting.forget("bucket", "awaited", key)
    waiting.keys("bucket", "awaited")


@pytest.mark.parametrize("use", [use_leases, push_layers, fail_to_push, set_tags, note_images])
def test_the_double_answers_like_moto(
    use: Callable[[Function, S3Double], None], handler: Function, s3_double: S3Double, stack: Stack
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    answers: list[Any] = []
    events = handler.clients.dynamodb.meta.events
    events.register("provide-client-params.dynamodb", lambda params, model, **_: calls.append((model.name, {**params})))
    events.register("after-call.dynamodb", lambda parsed, **_: answers.append(essence(parsed)))

    use(handler, s3_double)

    table = f"state-{uuid.uuid4().hex}"
    create_state_table(stack.dynamodb, table)
    replayed = []
    for operation, parameters in calls:
        try:
            answer = getattr(stack.dynamodb, xform_name(operation))(**parameters | {"TableName": table})
        except ClientError as error:
            answer = error.response
        replayed.append(essence(answer))
    assert len(calls) >= 3
    assert answers == replayed


def essence(answer: Any) -> Any:
    """What the function looks at: the item as it is afterwards, or the error's code and the item that it met."""
    item = answer.get("Item") or answer.get("Attributes") or {}
    attributes = {
        name: {kind: sorted(value) if kind == "SS" else value for kind, value in typed.items()}
        for name, typed in item.items()
    }
    return answer.get("Error", {}).get("Code"), attributes
