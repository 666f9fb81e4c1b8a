"""Repositories that are being created, in the state table, so that none is left half made and forgotten (ADR 13).

note ─► CreateRepository ─► its policies ─► the note ends
                          ✕ refused, or killed: the note stays, and the next object for the repository finishes it
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.state.rows import row_key

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# A finished repository's note is of no use. DynamoDB's time to live deletes it.
_KEPT_FINISHED_SECONDS = 60 * 60


class UnfinishedRepositories:
    """The notes, in the state table `table`, whose key is `id`. A scope is `Registry.scope` of a repository.

    A note has no expiration until its repository is finished, however long that takes.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def begin(self, scope: tuple[str | None, str]) -> None:
        """Notes that the repository is about to be created."""
        _, repository = scope
        self._update(scope, "SET repository = :repository REMOVE expiration", {"repository": {"S": repository}})

    def finish(self, scope: tuple[str | None, str]) -> None:
        """Notes that the repository has all that it should have."""
        expiration = int(time.time()) + _KEPT_FINISHED_SECONDS
        self._update(scope, "SET expiration = :expiration", {"expiration": {"N": str(expiration)}})

    def includes(self, scope: tuple[str | None, str]) -> bool:
        """Whether the repository's creation has begun, and has not been finished."""
        with self._using():
            answer = self._client.get_item(TableName=self._table, Key=self._key(scope), ConsistentRead=True)
        return "Item" in answer and "expiration" not in answer["Item"]

    def _update(self, scope: tuple[str | None, str], update: str, values: dict[str, Any]) -> None:
        with self._using():
            self._client.update_item(
                TableName=self._table,
                Key=self._key(scope),
                UpdateExpression=update,
                ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
            )

    @staticmethod
    def _key(scope: tuple[str | None, str]) -> dict[str, Any]:
        return row_key("repository", *scope)

    def _using(self) -> Any:
        return translated(f"using the notes of unfinished repositories in the state table {self._table}", {})
