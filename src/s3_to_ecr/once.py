"""At most once for every write to S3, however often its event is delivered: Powertools' idempotency, per object.

The record remembers the result of an object that was done, so that its next delivery reads nothing. It is never proof
that the layer is still there, since ECR may clean up a layer that no manifest names: so the layer is looked for, and
the work done anew when it is gone. It also keeps a second delivery out while the first is at work, until the time that
the first invocation had left is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

from s3_to_ecr.aws import translated
from s3_to_ecr.errors import ServiceUnavailable, UploadInProgress, UploadLost
from s3_to_ecr.jobs import Result

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from types_boto3_dynamodb.client import DynamoDBClient

# SQS keeps a message for 14 days at the most; S3 and Lambda's own retries give up long before.
_EXPIRY_SECONDS = 15 * 24 * 60 * 60

# Part of every record's key. Powertools' default holds module and function names: a rename would reopen duplicates.
_KEY_PREFIX = "s3-to-ecr"


class Once:
    """Runs an object's work unless it has been done. `table` is the state table, key `id` and TTL `expiration`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._store = DynamoDBPersistenceLayer(table_name=table, boto3_client=client)
        self._config = IdempotencyConfig(
            expires_after_seconds=_EXPIRY_SECONDS, hash_function="sha256", raise_on_no_idempotency_key=True
        )

    def begin(self, context: LambdaContext) -> None:
        """Before an invocation's first object: how long its records of work in progress are to hold."""
        self._config.register_lambda_context(context)

    def run(
        self, identity: dict[str, str | None], work: Callable[[], Result], is_there: Callable[[Result], bool]
    ) -> Result:
        """The result of `work`; or, when it was done for this `identity` and `is_there` still, that as `skipped`.

        Raises `UploadInProgress` while another invocation is at it, `ServiceUnavailable` when the table does not
        answer, and what `work` and `is_there` raise; the record of failed work is deleted, so a retry runs it again.
        """
        worked = False

        def perform(*, identity: dict[str, str | None]) -> Result:  # noqa: ARG001 (Powertools takes the key from it)
            nonlocal worked
            worked = True
            return work()

        result = self._idempotent(perform, identity)
        if worked:
            return result
        if is_there(result):
            return {**result, "action": "skipped", "reason": "this write to S3 has been handled before"}
        with translated(f"deleting a record from the state table {self._store.table_name}", {}):
            self._store.delete_record(data=identity, exception=UploadLost("the layer is not in ECR any more"))
        return self._idempotent(perform, identity)

    def _idempotent(self, perform: Callable[..., Result], identity: dict[str, str | None]) -> Result:
        guarded: Callable[..., Any] = idempotent_function(
            perform,
            data_keyword_argument="identity",
            persistence_store=self._store,
            config=self._config,
            key_prefix=_KEY_PREFIX,
        )
        try:
            result: Result = guarded(identity=identity)
        except IdempotencyAlreadyInProgressError as error:
            raise UploadInProgress("another invocation is uploading this object.") from error
        except (IdempotencyPersistenceLayerError, IdempotencyInconsistentStateError) as error:
            raise ServiceUnavailable(f"the state table {self._store.table_name} could not be used: {error}") from error
        return result
