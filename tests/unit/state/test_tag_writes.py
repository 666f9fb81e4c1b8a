from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from s3_to_ecr.state.tag_writes import TagWrites

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

DAY = 24 * 60 * 60
SCOPE = (None, "app")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ONE = datetime(2026, 11, 25, 13, tzinfo=UTC)


@pytest.fixture
def tag_writes(dynamodb: DynamoDBClient) -> TagWrites:
    return TagWrites(dynamodb, "state")


def test_a_tag_moves_forward_and_never_back(tag_writes: TagWrites) -> None:
    assert tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/a.tar", NOON)
    assert tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/b.tar", ONE)
    assert not tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/a.tar", NOON)
    assert tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/b.tar", ONE)


def test_each_repository_and_registry_has_its_own_tags(tag_writes: TagWrites) -> None:
    assert tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/a.tar", ONE)
    for scope, tag in (((None, "app2"), "1.0"), (("123456789012", "app"), "1.0"), (SCOPE, "1.1")):
        assert tag_writes.claim(scope, tag, "s3://bucket/app/b.tar", NOON)


def test_a_row_outlives_every_redelivery_and_a_year_of_backfills(
    tag_writes: TagWrites, dynamodb: DynamoDBClient
) -> None:
    tag_writes.claim(SCOPE, "1.0", "s3://bucket/app/a.tar", NOON)

    [row] = dynamodb.scan(TableName="state")["Items"]
    assert int(row["expiration"]["N"]) > time.time() + 364 * DAY
    assert row["id"]["S"].startswith("tag#")
    assert row["image"]["S"] == "app:1.0"
