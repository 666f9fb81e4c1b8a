from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from local.invocation import Invocation
from local.stack import create_state_table
from s3_to_ecr.errors import EmptyBlob, ServiceUnavailable, UploadInProgress
from s3_to_ecr.jobs import Result
from s3_to_ecr.once import Once
from tests.conftest import ONE_ATTEMPT

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


@pytest.fixture
def dynamodb() -> Iterator[DynamoDBClient]:
    with mock_aws():
        client = boto3.client("dynamodb", config=ONE_ATTEMPT)
        create_state_table(client, "state")
        yield client


def invocation(dynamodb: DynamoDBClient, seconds: float = 900) -> Once:
    once = Once(dynamodb, "state")
    once.begin(Invocation(seconds))  # type: ignore[arg-type]
    return once


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


def test_a_second_invocation_waits_while_the_first_is_at_work(dynamodb: DynamoDBClient) -> None:
    def second_delivery() -> None:
        with pytest.raises(UploadInProgress):
            invocation(dynamodb).run(IDENTITY, Work(), there)

    work = Work(second_delivery)
    invocation(dynamodb).run(IDENTITY, work, there)
    assert work.times == 1


def test_work_cut_short_by_lambdas_timeout_is_done_again(dynamodb: DynamoDBClient) -> None:
    class TimedOut(BaseException):
        """Ends an invocation as the timeout does: nothing after it runs."""

    def time_out() -> None:
        raise TimedOut

    with pytest.raises(TimedOut):
        invocation(dynamodb, seconds=0.2).run(IDENTITY, Work(time_out), there)
    with pytest.raises(UploadInProgress):
        invocation(dynamodb).run(IDENTITY, Work(), there)

    time.sleep(0.3)
    assert invocation(dynamodb).run(IDENTITY, Work(), there) == DONE


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
