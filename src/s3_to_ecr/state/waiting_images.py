"""Images that wait for an object, in the state table. Whoever brings that object pushes them (ADR 8).

    index.json ─► a layer is missing, or being uploaded ─► note under its key ─► try again ─► still missing: later
    the layer ──► uploaded ─► is there a note under its key? ─► push what index.json asks for ─► remove the note

The note is written before the image is tried again, and read after the layer was uploaded. So one of the two sees the
other. One note for an image is enough, under the first blob that it lacks. When that arrives, the image waits for the
next one, or is complete. Should all of this fail, the image's own message is still on the queue.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.state.rows import row_key

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

_KIND = "waiting"

# As long as the image's own message can be on its queue, plus a day.
_KEPT_SECONDS = 15 * 24 * 60 * 60


class WaitingImages:
    """The notes, in the state table `table`, whose key is `id`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def note(self, bucket: str, awaited: str, key: str) -> None:
        """Notes that the object `key` asks for an image that lacks the object `awaited`.

        Raises `RequestRefused` if the row is full.
        """
        self._update(
            bucket,
            awaited,
            "ADD #waiting :waiting SET #expiration = :expiration",
            {"waiting": {"SS": [key]}, "expiration": {"N": str(int(time.time()) + _KEPT_SECONDS)}},
        )

    def keys(self, bucket: str, awaited: str) -> list[str]:
        """The keys of objects whose images wait for this one."""
        with self._using():
            answer = self._client.get_item(
                TableName=self._table, Key=row_key(_KIND, bucket, awaited), ConsistentRead=True
            )
        return sorted(answer.get("Item", {}).get("waiting", {}).get("SS", []))

    def forget(self, bucket: str, awaited: str, key: str) -> None:
        """Removes the note that the object `key` waits for `awaited`."""
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
