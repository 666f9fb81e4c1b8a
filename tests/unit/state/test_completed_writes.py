from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from s3_to_ecr.errors import EmptyBlob, ServiceUnavailable
from s3_to_ecr.results import Result
from s3_to_ecr.state.completed_writes import CompletedWrites

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

IDENTITY: dict[str, str | None] = {"bucket": "bucket", "key": "app/x", "etag": "e7a6", "sequencer": "0A"}
DONE = Result(bucket="bucket", key="app/x", action="uploaded", repository="app", digest="sha256:d", size=7, reason=None)
DAY = 24 * 60 * 60


class Work:
    """Work that counts its runs."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        self.times = 0
        self._during = during

    def __call__(self) -> Result:
        self.times += 1
        self._during()
        return DONE


def exists(_: Result) -> bool:
    return True


def is_gone(_: Result) -> bool:
    return False


def invocation(dynamodb: DynamoDBClient) -> CompletedWrites:
    return CompletedWrites(dynamodb, "state")


def test_work_is_done_once_for_an_identity(dynamodb: DynamoDBClient) -> None:
    work = Work()

    assert invocation(dynamodb).run(IDENTITY, work, exists) == DONE
    repeat = invocation(dynamodb).run(IDENTITY, work, exists)

    assert repeat == DONE | {"action": "skipped", "reason": "this write to S3 has been handled before"}
    assert work.times == 1


def test_another_identity_is_separate_work(dynamodb: DynamoDBClient) -> None:
    work = Work()
    for name in ("bucket", "key", "etag", "sequencer"):
        assert invocation(dynamodb).run(IDENTITY | {name: "other"}, work, exists) == DONE

    assert work.times == 4


def test_a_layer_that_ecr_deleted_is_uploaded_again(dynamodb: DynamoDBClient) -> None:
    work = Work()
    invocation(dynamodb).run(IDENTITY, work, exists)

    assert invocation(dynamodb).run(IDENTITY, work, is_gone) == DONE
    assert work.times == 2
    assert invocation(dynamodb).run(IDENTITY, work, exists)["action"] == "skipped"


def test_work_that_failed_is_done_again(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        raise EmptyBlob("no bytes")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), exists)

    assert invocation(dynamodb).run(IDENTITY, Work(), exists) == DONE


def test_the_work_of_a_killed_invocation_is_done_again_at_once(dynamodb: DynamoDBClient) -> None:
    class KilledError(BaseException):
        """Ends an invocation as Lambda does: nothing after it runs."""

    def kill() -> None:
        raise KilledError

    with pytest.raises(KilledError):
        invocation(dynamodb).run(IDENTITY, Work(kill), exists)

    assert invocation(dynamodb).run(IDENTITY, Work(), exists) == DONE


def test_an_overtaken_invocation_deletes_nothing_that_the_next_one_wrote(dynamodb: DynamoDBClient) -> None:
    def overtaken() -> None:
        assert invocation(dynamodb).run(IDENTITY, Work(), exists) == DONE
        raise EmptyBlob("too late")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(overtaken), exists)
    assert invocation(dynamodb).run(IDENTITY, Work(), exists)["action"] == "skipped"


def test_an_error_of_the_work_is_raised_even_if_the_table_fails(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        dynamodb.delete_table(TableName="state")
        raise EmptyBlob("no bytes")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), exists)


def test_a_deleted_layer_whose_upload_failed_is_retried(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        raise EmptyBlob("no bytes")

    invocation(dynamodb).run(IDENTITY, Work(), exists)
    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), is_gone)
    assert invocation(dynamodb).run(IDENTITY, Work(), is_gone) == DONE


def test_a_record_that_the_sdk_writes_twice_does_no_harm(dynamodb: DynamoDBClient) -> None:
    put_item, lost = dynamodb.put_item, []

    def put_twice(**arguments: Any) -> Any:
        lost.append(put_item(**arguments))
        return put_item(**arguments)  # as the SDK does if a response is lost

    dynamodb.put_item = put_twice  # type: ignore[method-assign]
    assert invocation(dynamodb).run(IDENTITY, Work(), exists) == DONE
    assert len(lost) == 1


def test_records_outlive_every_redelivery_and_have_fixed_names(dynamodb: DynamoDBClient) -> None:
    invocation(dynamodb).run(IDENTITY, Work(), exists)

    [record] = dynamodb.scan(TableName="state")["Items"]
    assert int(record["expiration"]["N"]) > time.time() + 14 * DAY
    assert record["id"]["S"].startswith("s3-to-ecr#")
    assert len(record["id"]["S"]) == len("s3-to-ecr#") + 64  # a SHA-256


def test_no_work_is_done_while_the_state_table_fails(dynamodb: DynamoDBClient) -> None:
    dynamodb.delete_table(TableName="state")
    work = Work()

    with pytest.raises(ServiceUnavailable, match="state table state"):
        invocation(dynamodb).run(IDENTITY, work, exists)
    assert work.times == 0
