"""Writes to S3 that have been completed, however often their events are delivered: Powertools' idempotency.

This is for objects whose digest nobody knows before their bytes have been read. The record remembers the result, so
the next delivery reads nothing. (For all other objects, ECR itself knows what has been done.) A record does not prove
that the layer still exists, because ECR may clean up a layer that no manifest names. So the layer is looked for, and if
it is gone the work is done again.

The caller's lease is what keeps others from the same work. Powertools' own in-progress records cannot be renewed, and
last as long as an invocation might. After an invocation is killed, they would hold up the next one long after the lease
has ended. So here they expire immediately.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyPersistenceLayerError,
)

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.errors import ServiceUnavailable
from s3_to_ecr.results import Result

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
    from types_boto3_dynamodb.client import DynamoDBClient

# Far longer than any event is redelivered: a backfill, too, skips what was mirrored within a year.
_EXPIRY_SECONDS = 365 * 24 * 60 * 60

# Part of every record's key. Powertools' default holds module and function names, so a rename would cause duplicates.
_KEY_PREFIX = "s3-to-ecr"


class _NoTimeLeft:
    """The Lambda context that Powertools sees. With no time left, in-progress records expire immediately.

    They expire a second before they are written: if the answer is lost, the SDK sends the write again, and its own
    record must not refuse it.
    """

    def get_remaining_time_in_millis(self) -> int:
        return -1000


class _Store(DynamoDBPersistenceLayer):
    """Keeps the record when the work fails. It is an in-progress record, which stops nobody. And an invocation that has
    lost its lease must not delete the record that the next one has written.
    """

    def _delete_record(self, data_record: DataRecord) -> None:
        pass


class CompletedWrites:
    """Runs an object's work unless it has been done. `table` is the state table, with key `id` and TTL `expiration`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._store = _Store(table_name=table, boto3_client=client)
        self._config = IdempotencyConfig(
            expires_after_seconds=_EXPIRY_SECONDS, hash_function="sha256", raise_on_no_idempotency_key=True
        )
        self._config.register_lambda_context(cast("Any", _NoTimeLeft()))

    def run(
        self, identity: dict[str, str | None], work: Callable[[], Result], still_exists: Callable[[Result], bool]
    ) -> Result:
        """The result of `work`; or as `skipped` the earlier one for this `identity`, if its layer `still_exists`."""
        worked = False

        def perform(*, identity: dict[str, str | None]) -> Result:  # noqa: ARG001 (Powertools takes the key from it)
            nonlocal worked
            worked = True
            return work()

        guarded: Callable[..., Any] = idempotent_function(
            perform,
            data_keyword_argument="identity",
            persistence_store=self._store,
            config=self._config,
            key_prefix=_KEY_PREFIX,
        )
        with translated(f"using the state table {self._store.table_name}", {}):
            try:
                result: Result = guarded(identity=identity)
            except IdempotencyPersistenceLayerError as error:
                raise (error.__cause__ or error) from None  # the SDK's own error, for `translated`
            except (IdempotencyInconsistentStateError, IdempotencyAlreadyInProgressError) as error:
                raise ServiceUnavailable(f"a record in the state table is inconsistent: {error}") from error
        if worked:
            return result
        if still_exists(result):
            return {**result, "action": "skipped", "reason": "this write to S3 has been handled before"}
        result = work()
        with translated(f"using the state table {self._store.table_name}", {}):
            self._store.save_success(data=identity, result=cast("dict[str, Any]", result))
        return result
