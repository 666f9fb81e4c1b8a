from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from s3_to_ecr.errors import ServiceUnavailable
from s3_to_ecr.state.waiting_images import WaitingImages

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient


@pytest.fixture
def waiting(dynamodb: DynamoDBClient) -> WaitingImages:
    return WaitingImages(dynamodb, "state")


def test_nothing_waits_for_an_object_at_first(waiting: WaitingImages) -> None:
    assert waiting.keys("bucket", "app/blobs/x") == []
    waiting.forget("bucket", "app/blobs/x", "app/index.json")
    assert waiting.keys("bucket", "app/blobs/x") == []


def test_the_images_that_wait_for_an_object_are_listed_until_forgotten(waiting: WaitingImages) -> None:
    for key in ("app/index.json", "app/manifests/1", "app/index.json"):
        waiting.note("bucket", "app/blobs/x", key)

    assert waiting.keys("bucket", "app/blobs/x") == ["app/index.json", "app/manifests/1"]
    assert waiting.keys("bucket", "app/blobs/y") == []
    assert waiting.keys("other", "app/blobs/x") == []
    waiting.forget("bucket", "app/blobs/x", "app/index.json")
    assert waiting.keys("bucket", "app/blobs/x") == ["app/manifests/1"]


def test_notes_are_read_consistently(waiting: WaitingImages, dynamodb: DynamoDBClient) -> None:
    """Without that, a note may be missed, and its image waits for its own message. moto is always consistent."""
    requests: list[dict[str, Any]] = []
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.GetItem", lambda params, **_: requests.append(dict(params))
    )

    waiting.keys("bucket", "app/blobs/x")

    assert [params["ConsistentRead"] for params in requests] == [True]


def test_a_note_has_an_expiration(waiting: WaitingImages, dynamodb: DynamoDBClient) -> None:
    waiting.note("bucket", "a" * 1024, "b" * 1024)

    [row] = dynamodb.scan(TableName="state")["Items"]
    assert set(row) == {"id", "waiting", "expiration"}
    assert row["id"]["S"].startswith("waiting#")


def test_a_failing_table_raises_service_unavailable(dynamodb: DynamoDBClient) -> None:
    with pytest.raises(ServiceUnavailable, match="state table nowhere"):
        WaitingImages(dynamodb, "nowhere").keys("bucket", "key")
