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
    """Work that counts how often it was done."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        self.times = 0
        self._during = during

    def __call__(self) -> Result:
        self.times += 1
        self._during()
        return DONE


def there(_: Result) -> bool:
    return True


def gone(_: Result) -> bool:
    return False


def invocation(dynamodb: DynamoDBClient) -> CompletedWrites:
    return CompletedWrites(dynamodb, "state")


def test_work_is_done_once_for_an_identity(dynamodb: DynamoDBClient) -> None:
    work = Work()

    assert invocation(dynamodb).run(IDENTITY, work, there) == DONE
    repeat = invocation(dynamodb).run(IDENTITY, work, there)

    assert repeat == DONE | {"action": "skipped", "reason": "this write to S3 has been handled before"}
    assert work.times == 1


def test_another_identity_is_other_work(dynamodb: DynamoDBClient) -> None:
    work = Work()
    for name in ("bucket", "key", "etag", "sequencer"):
        assert invocation(dynamodb).run(IDENTITY | {name: "other"}, work, there) == DONE

    assert work.times == 4


def test_a_layer_that_ecr_has_cleaned_up_is_uploaded_again(dynamodb: DynamoDBClient) -> None:
    work = Work()
    invocation(dynamodb).run(IDENTITY, work, there)

    assert invocation(dynamodb).run(IDENTITY, work, gone) == DONE
    assert work.times == 2
    assert invocation(dynamodb).run(IDENTITY, work, there)["action"] == "skipped"


def test_work_that_failed_is_done_again(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        raise EmptyBlob("no bytes")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), there)

    assert invocation(dynamodb).run(IDENTITY, Work(), there) == DONE


def test_work_that_an_invocation_was_killed_in_is_done_again_at_once(dynamodb: DynamoDBClient) -> None:
    class KilledError(BaseException):
        """Ends an invocation as Lambda does: nothing after it runs."""

    def kill() -> None:
        raise KilledError

    with pytest.raises(KilledError):
        invocation(dynamodb).run(IDENTITY, Work(kill), there)

    assert invocation(dynamodb).run(IDENTITY, Work(), there) == DONE


def test_one_that_lost_its_lease_deletes_nothing_that_the_next_has_written(dynamodb: DynamoDBClient) -> None:
    def overtaken() -> None:
        assert invocation(dynamodb).run(IDENTITY, Work(), there) == DONE
        raise EmptyBlob("too late")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(overtaken), there)
    assert invocation(dynamodb).run(IDENTITY, Work(), there)["action"] == "skipped"


def test_an_error_of_the_work_comes_out_though_the_table_fails_meanwhile(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        dynamodb.delete_table(TableName="state")
        raise EmptyBlob("no bytes")

    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), there)


def test_a_layer_that_is_gone_and_cannot_be_brought_again_is_tried_again(dynamodb: DynamoDBClient) -> None:
    def fail() -> None:
        raise EmptyBlob("no bytes")

    invocation(dynamodb).run(IDENTITY, Work(), there)
    with pytest.raises(EmptyBlob):
        invocation(dynamodb).run(IDENTITY, Work(fail), gone)
    assert invocation(dynamodb).run(IDENTITY, Work(), gone) == DONE


def test_a_record_whose_answer_was_lost_keeps_nobody_out(dynamodb: DynamoDBClient) -> None:
    put_item, lost = dynamodb.put_item, []

    def put_twice(**arguments: Any) -> Any:
        lost.append(put_item(**arguments))
        return put_item(**arguments)  # as the SDK does

    dynamodb.put_item = put_twice  # type: ignore[method-assign]
    assert invocation(dynamodb).run(IDENTITY, Work(), there) == DONE
    assert len(lost) == 1


def test_records_outlive_every_redelivery_and_any_rename(dynamodb: DynamoDBClient) -> None:
    invocation(dynamodb).run(IDENTITY, Work(), there)

    [record] = dynamodb.scan(TableName="state")["Items"]
    assert int(record["expiration"]["N"]) > time.time() + 14 * DAY
    assert record["id"]["S"].startswith("s3-to-ecr#")
    assert len(record["id"]["S"]) == len("s3-to-ecr#") + 64  # a SHA-256


def test_a_state_table_that_does_not_answer_is_left_to_the_queue(dynamodb: DynamoDBClient) -> None:
    dynamodb.delete_table(TableName="state")
    work = Work()

    with pytest.raises(ServiceUnavailable, match="state table state"):
        invocation(dynamodb).run(IDENTITY, work, there)
    assert work.times == 0
