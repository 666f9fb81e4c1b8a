from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from s3_to_ecr.state.unfinished_repositories import UnfinishedRepositories

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

SCOPE = (None, "app")


@pytest.fixture
def unfinished(dynamodb: DynamoDBClient) -> UnfinishedRepositories:
    return UnfinishedRepositories(dynamodb, "state")


def test_a_repository_is_unfinished_from_its_beginning_to_its_end(unfinished: UnfinishedRepositories) -> None:
    assert not unfinished.includes(SCOPE)
    for _ in range(2):  # it may be deleted, and created again
        unfinished.begin(SCOPE)
        assert unfinished.includes(SCOPE)
        unfinished.finish(SCOPE)
        assert not unfinished.includes(SCOPE)


def test_each_registry_and_repository_has_its_own_note(unfinished: UnfinishedRepositories) -> None:
    unfinished.begin(SCOPE)

    assert not unfinished.includes((None, "app2"))
    assert not unfinished.includes(("123456789012", "app"))


def test_a_note_expires_only_after_its_repository_is_finished(
    unfinished: UnfinishedRepositories, dynamodb: DynamoDBClient
) -> None:
    unfinished.begin(SCOPE)
    [note] = dynamodb.scan(TableName="state")["Items"]
    assert note == {"id": note["id"], "repository": {"S": "app"}}

    unfinished.finish(SCOPE)
    [note] = dynamodb.scan(TableName="state")["Items"]
    assert 0 < int(note["expiration"]["N"]) - time.time() <= 3600
