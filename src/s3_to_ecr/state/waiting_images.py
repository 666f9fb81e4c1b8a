"""Images that wait for an object, in the state table: whoever brings it pushes them (ADR 8).

    index.json ─► a layer has not come, or is in other hands ─► a note under its key ─► once more ─► still not: later
    the layer ──► uploaded ─► a note under its key? ─► push what index.json asks for ─► the note is done with

The note is written before the image is tried once more, and read after the layer was uploaded: so one of the two sees
the other. One note an image is enough, for the first blob that it lacks: when that has come, it waits for the next, or
is complete. Should all this fail, the image's own message is still on the queue.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from s3_to_ecr.aws.clients import translated
from s3_to_ecr.state.rows import row_key

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

_KIND = "waiting"

# As long as the image's own message can be on its queue, and a day.
_KEPT_SECONDS = 15 * 24 * 60 * 60


class Waiting:
    """The notes, in the state table `table` with the key `id`.

    All raise `ServiceUnavailable`, `AccessDenied` or `RequestRefused` when the table cannot be used.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def note(self, bucket: str, awaited: str, key: str) -> None:
        """Writes down that the object `key` asks for an image which lacks the object `awaited`."""
        self._update(
            bucket,
            awaited,
            "ADD #waiting :waiting SET #expiration = :expiration",
            {"waiting": {"SS": [key]}, "expiration": {"N": str(int(time.time()) + _KEPT_SECONDS)}},
        )

    def keys(self, bucket: str, awaited: str) -> list[str]:
        """The objects whose images wait for this one."""
        with self._using():
            answer = self._client.get_item(
                TableName=self._table, Key=row_key(_KIND, bucket, awaited), ConsistentRead=True
            )
        return sorted(answer.get("Item", {}).get("waiting", {}).get("SS", []))

    def forget(self, bucket: str, awaited: str, key: str) -> None:
        """Writes down that the object `key` does not wait for `awaited` any more."""
        self._update(bucket, awaited, "DELETE #waiting :waiting", {"waiting": {"SS": [key]}})

    def _update(self, bucket: str, awaited: str, update: str, values: dict[str, Any]) -> None:
        with self._using():
            self._client.update_item(
                TableName=self._table,
                Key=row_key(_KIND, bucket, awaited),
                UpdateExpression=update,
                ExpressionAttributeNames={f"#{name}": name for name in values},
                ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
            )

    def _using(self) -> Any:
        return translated(f"using the notes of waiting images in the state table {self._table}", {})
