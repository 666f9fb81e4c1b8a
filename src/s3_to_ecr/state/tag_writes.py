"""Which object a tag was set from last, in the state table: so that no older one takes it back (ADR 7).

Events come more than once, and a backfill sends those of years ago again. By the time at which the objects were
written, which S3 has in whole seconds, a tag only goes forward.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from s3_to_ecr.aws.clients import translated
from s3_to_ecr.state.rows import row_key

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# As long as an idempotency record: a year.
_KEPT_SECONDS = 365 * 24 * 60 * 60


class Tags:
    """The tags' rows, in the state table `table` with the key `id`."""

    def __init__(self, client: DynamoDBClient, table: str, registry_id: str | None) -> None:
        self._client = client
        self._table = table
        self._registry_id = registry_id

    def claim(self, repository: str, tag: str, uri: str, written: datetime) -> bool:
        """Writes down that the tag is set from the object `uri`; `False` if it was from one `written` later.

        Raises `ServiceUnavailable`, `AccessDenied` or `RequestRefused` when the table cannot be used.
        """
        with translated(f"using the tags' rows in the state table {self._table}", {}):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=row_key("tag", self._registry_id, repository, tag),
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
