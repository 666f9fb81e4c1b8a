"""Leases: who is uploading which layer, and how far. The state table has one row for each layer and repository.

Whoever uploads a layer holds a *lease* on it: an owner and an end, written on condition that nobody else holds one.
Beside it stands what it takes to resume the upload. The row outlives the invocation that wrote it, whatever became of
that invocation:

    take            renew           renew                        killed, or it hangs      the lease ends
    ──┬───────────────┬───────────────┬──────────────────────────────✕· · · · · · · · · · · · ·┬──────────► time
      │◄── renewed after a third of it, after a part ────►│◄──── LEASE_SECONDS ────────────────►│
      │ another invocation's `take` fails with UploadInProgress; it is retried later           │ … and succeeds, and
      │                                                                                        │ resumes the upload

An invocation that ends by itself, well or not, releases its lease at once. One that is killed cannot; its lease ends,
and nobody has to notice. One that only hangs past its lease's end finds at the next renewal that another invocation
holds the lease, and stops. Until then both may have sent the same part. That does no harm: ECR takes every byte once,
in order, and verifies the digest. So leases save work; they are not what makes the bytes right.

An end is compared with the clock of whoever wants the lease, and was written by the clock of whoever holds it. Lambda's
hosts keep time to milliseconds, and a lease lasts minutes. The table itself compares the ends. It does not matter when
the table's TTL deletes a row, or whether it does.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.errors import S3ToEcrError, ServiceUnavailable, UploadInProgress
from s3_to_ecr.state.rows import row_key
from s3_to_ecr.telemetry.logs import logger

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# Longer than a part with one timeout of the SDK (60 s) can take after a renewal was last due. Shorter than the time
# after which Lambda retries a failed asynchronous invocation for the last time (1 and 2 minutes later). ECR may take
# longer to complete a layer. Whoever takes the lease then finds all parts sent, and waits for the same layer.
LEASE_SECONDS = 120
_RENEWED_AFTER_SECONDS = LEASE_SECONDS / 3

# A message stays on its queue for at most 14 days. After that nobody comes back to resume an upload.
_KEPT_SECONDS = 15 * 24 * 60 * 60

# The row of a finished layer matters only to those who looked for the layer just before.
_KEPT_DONE_SECONDS = 60 * 60


@dataclass(frozen=True)
class Progress:
    """An upload that can be resumed: ECR has confirmed the bytes before `position`, and may have more.

    `part_size` and `position` are in bytes. The `digest` is the whole layer's, if it had to be computed and has been.
    """

    upload_id: str
    part_size: int
    position: int
    digest: str | None = None


class _LeasedToAnother(Exception):
    """The condition of a write did not hold. `row` is the row as it stands."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self.row = row


class Lease:
    """The right to upload one layer. Its holder sets `progress`, the upload to resume; `None` if there is none.

    `held_before` says that somebody has recently held a lease on the layer, and so may have just finished it.
    """

    def __init__(self, client: DynamoDBClient, table: str, key: dict[str, Any], clock: Callable[[], float]) -> None:
        self.progress: Progress | None = None
        self.held_before = False
        self._client = client
        self._table = table
        self._key = key
        self._clock = clock
        # Not the invocation's id, because Lambda retries a failed invocation under the same one.
        self._owner = uuid.uuid4().hex
        self._renewal = self._end = 0.0

    def take(self, **readable: str) -> None:
        """Takes the lease, and writes `readable` values beside it, for people.

        Raises `UploadInProgress` while another invocation holds it.
        """
        try:
            row = self._hold(readable, taking=True)
        except _LeasedToAnother as error:
            until = datetime.fromtimestamp(int(error.row["lease_end"]) / 1000, UTC)
            raise UploadInProgress(
                f"another invocation is doing the same. Its lease ends at {until:%H:%M:%S} UTC unless renewed."
            ) from error
        self.held_before = row["taken"] > 1
        if "upload_id" in row:
            self.progress = Progress(row["upload_id"], int(row["part_size"]), int(row["position"]), row.get("digest"))

    def renew(self) -> None:
        """Renews the lease if it is time to, and saves the progress. Raises `UploadInProgress` if the lease is lost.

        If the state table fails, the next call tries again. `ServiceUnavailable` is raised only after the lease's end.
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
        """Renews the lease now, and saves the progress. Raises `UploadInProgress` if the lease is lost."""
        try:
            self._hold(self._saved())
        except _LeasedToAnother as error:
            raise UploadInProgress(
                "this invocation did not renew its lease in time, and another one has taken the layer over."
            ) from error

    def release(self) -> None:
        """Releases the lease and saves the progress. If that fails, the log says so, and the lease ends by itself."""
        kept = _KEPT_SECONDS if self.progress else _KEPT_DONE_SECONDS
        free = {"lease_owner": None, "lease_end": None, "expiration": int(self._clock()) + kept}
        try:
            self._update({**free, **self._saved()})
        except _LeasedToAnother as error:
            if "lease_owner" in error.row:  # else it is free: the answer was lost, and the SDK has sent the write again
                logger.warning("The lease is not released: another invocation has taken the layer over")
        except S3ToEcrError as error:
            logger.warning("The lease could not be released; it ends by itself", reason=error.reason)

    def _hold(self, values: Mapping[str, _Value], *, taking: bool = False) -> dict[str, Any]:
        """Writes the lease, for its full length from now on, together with other values. Raises `_LeasedToAnother`."""
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
        """Sets the values (`None` removes one) and returns the row. Raises `_LeasedToAnother`.

        The lease must be ours, or if we are `taking` it, free. If an answer was lost and the SDK sends the write again,
        it finds that the lease is already ours.
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
        with translated(f"writing a lease to the state table {self._table}", {}):
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


class Leases:
    """All leases, in the state table `table`, whose key is `id`. `clock` gives seconds since 1970.

    A scope is `Registry.scope` of a repository.
    """

    def __init__(self, client: DynamoDBClient, table: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def layer(self, scope: tuple[str | None, str], layer: str) -> AbstractContextManager[Lease]:
        """The lease on uploading a layer, while the context lasts. `layer` is its digest, or its object's identity.

        Raises `UploadInProgress` while another invocation holds it.
        """
        return self._lease(scope, layer)

    def tag(self, scope: tuple[str | None, str], tag: str) -> AbstractContextManager[Lease]:
        """The lease on setting a tag, while the context lasts. Nobody else sets the tag meanwhile.

        Raises `UploadInProgress` while another invocation holds it.
        """
        return self._lease(scope, f"the tag {tag}")

    @contextmanager
    def _lease(self, scope: tuple[str | None, str], name: str) -> Iterator[Lease]:
        _, repository = scope
        lease = Lease(self._client, self._table, row_key("upload", *scope, name), self._clock)
        lease.take(repository=repository, layer=name)
        try:
            yield lease
        finally:
            lease.release()


_Value = str | int | None
_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item's attributes. Numbers come as `Decimal`."""
    return {name: _deserialize(value) for name, value in item.items()}
