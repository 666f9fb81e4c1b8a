"""Done once for every write to S3, however often its event is delivered: Powertools' idempotency, per object.

For objects whose digest nobody knows before their bytes were read: the record remembers the result, so that the next
delivery reads nothing. (Of the others ECR itself knows what is done.) It is never proof that the layer is still there,
since ECR may clean up a layer that no manifest names: so the layer is looked for, and the work done anew when it is
gone.

That nobody else is at the same work is the ledger's to say, whose lease the caller holds. Powertools' own records of
work in progress cannot be renewed, and last as long as an invocation might: here they end at once, so that after one
that was killed the next goes on as soon as the lease has ended.
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

from s3_to_ecr.aws.clients import translated
from s3_to_ecr.errors import ServiceUnavailable
from s3_to_ecr.layouts.jobs import Result

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
    from types_boto3_dynamodb.client import DynamoDBClient

# Far longer than any event is delivered again: a backfill, too, passes over what was mirrored within a year.
_EXPIRY_SECONDS = 365 * 24 * 60 * 60

# Part of every record's key. Powertools' default holds module and function names: a rename would reopen duplicates.
_KEY_PREFIX = "s3-to-ecr"


class _NoTimeLeft:
    """The Lambda context, for Powertools: by it a record of work in progress has ended when it is written.

    A second before: the SDK sends the write again when its answer was lost, and must not be kept out by its own record.
    """

    def get_remaining_time_in_millis(self) -> int:
        return -1000


class _Memory(DynamoDBPersistenceLayer):
    """Keeps the record of work that failed. It is of work in progress, which keeps nobody out; and one that lost its
    lease meanwhile must not delete what the next one has written.
    """

    def _delete_record(self, data_record: DataRecord) -> None:
        pass


class Once:
    """Runs an object's work unless it has been done. `table` is the state table, key `id` and TTL `expiration`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._store = _Memory(table_name=table, boto3_client=client)
        self._config = IdempotencyConfig(
            expires_after_seconds=_EXPIRY_SECONDS, hash_function="sha256", raise_on_no_idempotency_key=True
        )
        self._config.register_lambda_context(cast("Any", _NoTimeLeft()))

    def run(
        self, identity: dict[str, str | None], work: Callable[[], Result], is_there: Callable[[Result], bool]
    ) -> Result:
        """The result of `work`; or, when it was done for this `identity` and `is_there` still, that as `skipped`.

        Raises `ServiceUnavailable` or `AccessDenied` when the table cannot be used, and what `work` and `is_there`
        raise.
        """
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
                raise ServiceUnavailable(f"a record in the state table is not what it should be: {error}") from error
        if worked:
            return result
        if is_there(result):
            return {**result, "action": "skipped", "reason": "this write to S3 has been handled before"}
        result = work()
        with translated(f"using the state table {self._store.table_name}", {}):
            self._store.save_success(data=identity, result=cast("dict[str, Any]", result))
        return result
