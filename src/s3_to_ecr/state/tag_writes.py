"""Which write to S3 set a tag last, in the state table, so that no older write takes it back (ADR 7).

Events arrive more than once, and a backfill sends those of years ago again. By the time at which the objects were
written, which S3 keeps in whole seconds, a tag only moves forward.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.state.rows import row_key

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# As long as an idempotency record: a year.
_KEPT_SECONDS = 365 * 24 * 60 * 60


class TagWrites:
    """One row for each tag, in the state table `table`, whose key is `id`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def claim(self, scope: tuple[str | None, str], tag: str, uri: str, written: datetime) -> bool:
        """Records that the object `uri` sets the tag. `False` if an object that was `written` later has set it.

        `scope` is `Registry.scope` of the tag's repository.
        """
        _, repository = scope
        with translated(f"using the tags' rows in the state table {self._table}", {}):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=row_key("tag", *scope, tag),
                    UpdateExpression="SET #written = :written, #uri = :uri, #image = :image, #expiration = :expiration",
                    ConditionExpression="attribute_not_exists(#written) OR #written <= :written",
                    ExpressionAttributeNames={f"#{name}": name for name in ("written", "uri", "image", "expiration")},
                    ExpressionAttributeValues={
                        ":written": {"N": str(int(written.timestamp()))},
                        ":uri": {"S": uri},
                        ":image": {"S": f"{repository}:{tag}"},
                        ":expiration": {"N": str(int(time.time()) + _KEPT_SECONDS)},
                    },
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                return False
        return True
