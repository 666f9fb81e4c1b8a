"""The upload ledger: who uploads which layer, and how far. One row of the state table a layer and repository.

Whoever uploads a layer holds a *lease* on it: an owner and an end, written under the condition that nobody else holds
one. Beside it stands what ECR needs to go on with the upload. The row outlives the invocation that wrote it, whatever
became of that:

    take            renew           renew                        killed, or it hangs      the lease's end
    ──┬───────────────┬───────────────┬──────────────────────────────✕· · · · · · · · · · · · ·┬──────────► time
      │◄── renewed when a third is over, after a part ───►│◄──── LEASE_SECONDS ────────────────►│
      │ another invocation's `take` fails: UploadInProgress, it comes back later               │ … and succeeds, and
      │                                                                                        │ goes on with the upload

An invocation that ends by itself, well or not, gives its lease back at once. One that is killed cannot, and nobody has
to notice: its lease ends. One that only hangs past its lease's end finds at the next renewal that another has taken
over, and stops. Until then both may have sent the same part. That is no harm: ECR takes every byte once, in order, and
verifies the digest. So the lease saves work; it is not what makes the bytes right.

Ends are compared with the clock of whoever wants the lease, and were written by that of whoever holds it. Lambda's
hosts keep time to milliseconds, a lease is minutes long. Only ends are compared, by the table, never durations; that
the table's TTL deletes a row late, or never, changes nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from s3_to_ecr.aws.clients import translated
from s3_to_ecr.errors import S3ToEcrError, ServiceUnavailable, UploadInProgress
from s3_to_ecr.state.rows import row_key
from s3_to_ecr.telemetry.logs import logger

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# Longer than a part with one timeout of the SDK's (60 s) takes after a renewal was last due; shorter than the time
# after which Lambda has tried a failed asynchronous invocation for the last time (1 and 2 minutes later).
LEASE_SECONDS = 120
_RENEWED_AFTER_SECONDS = LEASE_SECONDS / 3

# A message is on its queue for 14 days at the most: then nobody comes back to go on with an upload.
_KEPT_SECONDS = 15 * 24 * 60 * 60

# A row whose layer is done only tells those who have looked for the layer just before.
_KEPT_DONE_SECONDS = 60 * 60


@dataclass(frozen=True)
class Progress:
    """An upload to go on with: ECR has confirmed the bytes before `position`, and may have more.

    `part_size` and `position` are in bytes. The `digest` is the whole layer's, where it had to be computed and was.
    """

    upload_id: str
    part_size: int
    position: int
    digest: str | None = None


class _LeasedToAnother(Exception):
    """The condition of a write did not hold; with the row as it stands."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self.row = row


class Lease:
    """The right to upload one layer. `progress` is the upload to go on with, for the holder to set; `None` for none.

    `held_before` says that somebody held a lease on the layer lately, and so may have finished it just now.
    """

    def __init__(self, client: DynamoDBClient, table: str, key: dict[str, Any], clock: Callable[[], float]) -> None:
        self.progress: Progress | None = None
        self.held_before = False
        self._client = client
        self._table = table
        self._key = key
        self._clock = clock
        # Not the invocation's id: Lambda tries a failed invocation again under the same.
        self._owner = uuid.uuid4().hex
        self._renewal = self._end = 0.0

    def take(self, **readable: str) -> None:
        """Takes the lease, and writes beside it what is `readable` of the layer, for people.

        Raises `UploadInProgress` while another invocation holds it, else as `Ledger.lease`.
        """
        try:
            row = self._hold(readable, taking=True)
        except _LeasedToAnother as error:
            until = datetime.fromtimestamp(int(error.row["lease_end"]) / 1000, UTC)
            raise UploadInProgress(
                f"another invocation is at the same; its lease ends at {until:%H:%M:%S} UTC unless renewed."
            ) from error
        self.held_before = row["taken"] > 1
        if "upload_id" in row:
            self.progress = Progress(row["upload_id"], int(row["part_size"]), int(row["position"]), row.get("digest"))

    def renew(self) -> None:
        """Renews the lease if it is time to, and saves the progress. Raises `UploadInProgress` when it is lost.

        When the state table fails, it is tried again the next time; it raises `ServiceUnavailable` only after the end.
        """
        if self._clock() < self._renewal:
            return
        try:
            self.save()
        except ServiceUnavailable as error:
            if self._clock() >= self._end:
                raise
            logger.warning("The lease could not be renewed yet", reason=error.reason)

    def save(self) -> None:
        """Renews the lease now, and saves the progress. Raises as `renew`."""
        try:
            self._hold(self._saved())
        except _LeasedToAnother as error:
            raise UploadInProgress(
                "this invocation did not renew its lease in time, and another has taken the layer over."
            ) from error

    def release(self) -> None:
        """Gives the lease back, with the progress. If that fails the log says so, and the lease ends by itself."""
        kept = _KEPT_SECONDS if self.progress else _KEPT_DONE_SECONDS
        free = {"lease_owner": None, "lease_end": None, "expiration": int(self._clock()) + kept}
        try:
            self._update({**free, **self._saved()})
        except _LeasedToAnother as error:
            if "lease_owner" in error.row:  # else it is free: the SDK has sent the write again, its answer being lost
                logger.warning("The lease is not given back: another invocation has taken the layer over")
        except S3ToEcrError as error:
            logger.warning("The lease could not be given back, and ends by itself", reason=error.reason)

    def _hold(self, values: Mapping[str, _Value], *, taking: bool = False) -> dict[str, Any]:
        """Writes the lease, from now on for its full length, with other values. Raises as `_update`."""
        now = self._clock()
        lease: dict[str, _Value] = {
            "lease_owner": self._owner,
            "lease_end": int((now + LEASE_SECONDS) * 1000),
            "expiration": int(now) + _KEPT_SECONDS,
        }
        row = self._update({**lease, **values}, taking=taking)
        self._renewal, self._end = now + _RENEWED_AFTER_SECONDS, now + LEASE_SECONDS
        return row

    def _saved(self) -> dict[str, _Value]:
        return asdict(self.progress) if self.progress else {field.name: None for field in fields(Progress)}

    def _update(self, values: Mapping[str, _Value], *, taking: bool = False) -> dict[str, Any]:
        """Sets the values, `None` removing one, and returns the row. Raises `_LeasedToAnother`.

        The lease must be ours; or, when `taking` it, free. The SDK sends a write again whose answer was lost, and it
        then finds the lease to be ours already.
        """
        update = "SET " + ", ".join(f"#{name} = :{name}" for name, value in values.items() if value is not None)
        if removed := ", ".join(f"#{name}" for name, value in values.items() if value is None):
            update += f" REMOVE {removed}"
        bound = {f":{name}": value for name, value in values.items() if value is not None} | {":me": self._owner}
        condition = "lease_owner = :me"
        if taking:
            update += " ADD taken :one"
            condition += " OR attribute_not_exists(lease_owner) OR lease_end < :now"
            bound |= {":one": 1, ":now": int(self._clock() * 1000)}
        with translated(f"writing to the ledger in the state table {self._table}", {}):
            try:
                answer = self._client.update_item(
                    TableName=self._table,
                    Key=self._key,
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeNames={f"#{name}": name for name in values},
                    ExpressionAttributeValues={name: _serialize(value) for name, value in bound.items()},
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except self._client.exceptions.ConditionalCheckFailedException as error:
                raise _LeasedToAnother(_row(cast("Any", error.response).get("Item", {}))) from error
        return _row(answer["Attributes"])


class Ledger:
    """The rows of all layers, in the state table `table` with the key `id`. `clock` gives seconds since 1970."""

    def __init__(self, client: DynamoDBClient, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    @contextmanager
    def lease(self, registry_id: str | None, repository: str, layer: str) -> Iterator[Lease]:
        """The lease on a layer, while the context lasts. `layer` is its digest, or else what identifies its object.

        Raises `UploadInProgress` while another invocation holds it; `ServiceUnavailable`, `AccessDenied` or
        `RequestRefused` when the state table cannot be used.
        """
        lease = Lease(self._client, self._table, row_key("upload", registry_id, repository, layer), self._clock)
        lease.take(repository=repository, layer=layer)
        try:
            yield lease
        finally:
            lease.release()


_Value = str | int | None
_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item's attributes, its numbers being `Decimal`."""
    return {name: _deserialize(value) for name, value in item.items()}
