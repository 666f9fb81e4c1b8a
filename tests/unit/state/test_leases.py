from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from s3_to_ecr.errors import OutOfTime, ServiceUnavailable, UploadInProgress
from s3_to_ecr.state.leases import LEASE_SECONDS, Leases, Progress

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

LAYER = ((None, "app"), "sha256:d")
PROGRESS = Progress("upload-1", 4, 8, "sha256:e")
DAY = 24 * 60 * 60


class Clock:
    """Seconds since 1970, which pass only when a test lets them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(dynamodb: DynamoDBClient, clock: Clock) -> Leases:
    return Leases(dynamodb, "state", clock)


def rows(dynamodb: DynamoDBClient) -> list[dict[str, Any]]:
    return list(dynamodb.scan(TableName="state")["Items"])


def test_a_held_lease_cannot_be_taken(leases: Leases) -> None:
    with leases.layer(*LAYER):
        with pytest.raises(UploadInProgress, match=r"Its lease ends at \d\d:\d\d:\d\d UTC"), leases.layer(*LAYER):
            pass
        for other in [(("123456789012", "app"), "sha256:d"), ((None, "app2"), "sha256:d"), ((None, "app"), "sha256:e")]:
            with leases.layer(*other):
                pass


def test_a_lease_is_free_again_when_its_holder_ends(leases: Leases) -> None:
    with leases.layer(*LAYER) as lease:
        assert not lease.held_before
    with pytest.raises(OutOfTime), leases.layer(*LAYER):
        raise OutOfTime("later")
    with leases.layer(*LAYER) as lease:
        assert lease.held_before


def test_the_next_holder_gets_the_saved_progress(leases: Leases) -> None:
    with leases.layer(*LAYER) as lease:
        assert lease.progress is None
        lease.progress = PROGRESS
    with leases.layer(*LAYER) as lease:
        assert lease.progress == PROGRESS
        lease.progress = None
    with leases.layer(*LAYER) as lease:
        assert lease.progress is None


def test_the_lease_of_a_killed_invocation_ends(leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with leases.layer(*LAYER) as killed:
        killed.progress = PROGRESS
        killed.save()
        monkeypatch.setattr(killed, "release", lambda: None)  # the invocation was killed before that

    clock.now += LEASE_SECONDS - 1
    with pytest.raises(UploadInProgress), leases.layer(*LAYER):
        pass
    clock.now += 2
    with leases.layer(*LAYER) as lease:
        assert lease.progress == PROGRESS


def test_a_lease_outlasts_a_part_with_a_timeout_but_not_lambdas_own_retries() -> None:
    slowest_part = 60 + 20  # one read timeout of the SDK, its back-off, and another attempt
    assert LEASE_SECONDS / 3 + slowest_part <= LEASE_SECONDS <= 60 + 120


def test_a_lease_is_renewed_after_a_third_of_its_time(leases: Leases, clock: Clock, dynamodb: DynamoDBClient) -> None:
    with leases.layer(*LAYER) as lease:
        [before] = rows(dynamodb)
        clock.now += LEASE_SECONDS / 3 - 1
        lease.renew()
        assert rows(dynamodb) == [before]

        clock.now += 1
        lease.progress = PROGRESS
        lease.renew()
        [after] = rows(dynamodb)
        assert int(after["lease_end"]["N"]) == (clock.now + LEASE_SECONDS) * 1000
        assert (after["upload_id"], after["position"]) == ({"S": "upload-1"}, {"N": "8"})

        clock.now += LEASE_SECONDS - 1
        with pytest.raises(UploadInProgress), leases.layer(*LAYER):
            pass


def test_a_late_renewal_fails_if_another_invocation_took_over(leases: Leases, clock: Clock) -> None:
    with leases.layer(*LAYER) as late:
        clock.now += LEASE_SECONDS + 1
        with leases.layer(*LAYER), pytest.raises(UploadInProgress, match="did not renew"):
            late.renew()


def test_releasing_a_lost_lease_changes_nothing(
    leases: Leases, clock: Clock, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    with leases.layer(*LAYER) as late:
        late.progress = Progress("stale", 4, 0)
        clock.now += LEASE_SECONDS + 1
        with leases.layer(*LAYER) as other:
            other.progress = PROGRESS
            late.release()
            with pytest.raises(UploadInProgress), leases.layer(*LAYER):
                pass
    [*_, line] = [line for line in logs() if line["level"] == "WARNING"]
    assert line["message"].startswith("The lease is not released")
    with leases.layer(*LAYER) as lease:
        assert lease.progress == PROGRESS


def test_a_late_renewal_succeeds_if_nobody_took_over(leases: Leases, clock: Clock) -> None:
    with leases.layer(*LAYER) as lease:
        clock.now += 10 * LEASE_SECONDS
        lease.renew()
        with pytest.raises(UploadInProgress), leases.layer(*LAYER):
            pass


def test_a_write_that_the_sdk_sends_twice_keeps_its_holder(
    leases: Leases, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_item = dynamodb.update_item

    def twice(**arguments: Any) -> Any:
        update_item(**arguments)
        return update_item(**arguments)

    monkeypatch.setattr(dynamodb, "update_item", twice)
    with leases.layer(*LAYER) as lease:
        lease.progress = PROGRESS
        lease.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamodb, "update_item", update_item)
        with leases.layer(*LAYER) as lease:
            assert lease.progress == PROGRESS


def test_releasing_a_lease_twice_logs_nothing(leases: Leases, logs: Callable[[], list[dict[str, Any]]]) -> None:
    with leases.layer(*LAYER) as lease:
        lease.release()

    assert logs() == []


def test_a_deleted_row_is_a_lost_lease(leases: Leases, dynamodb: DynamoDBClient) -> None:
    with leases.layer(*LAYER) as lease:
        [row] = rows(dynamodb)
        dynamodb.delete_item(TableName="state", Key={"id": row["id"]})
        with pytest.raises(UploadInProgress):
            lease.save()


def test_a_failing_table_raises_service_unavailable(leases: Leases, dynamodb: DynamoDBClient) -> None:
    dynamodb.delete_table(TableName="state")

    with pytest.raises(ServiceUnavailable, match="writing a lease to the state table state"), leases.layer(*LAYER):
        pass


def test_a_failed_renewal_is_retried_while_the_lease_lasts(
    leases: Leases, clock: Clock, dynamodb: DynamoDBClient
) -> None:
    with leases.layer(*LAYER) as lease:
        dynamodb.delete_table(TableName="state")
        clock.now += LEASE_SECONDS - 1
        lease.renew()
        clock.now += 2
        with pytest.raises(ServiceUnavailable):
            lease.renew()


def test_a_failed_release_hides_no_result(
    leases: Leases, dynamodb: DynamoDBClient, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    with leases.layer(*LAYER):
        dynamodb.delete_table(TableName="state")

    assert logs()[-1]["message"] == "The lease could not be released; it ends by itself"


def test_a_row_names_its_layer_and_expires(leases: Leases, clock: Clock, dynamodb: DynamoDBClient) -> None:
    with leases.layer((None, "app"), "etag e of s3://bucket/" + "k" * 1024) as lease:
        [row] = rows(dynamodb)
        assert (row["repository"]["S"], row["layer"]["S"][:21]) == ("app", "etag e of s3://bucket")
        assert row["id"]["S"].startswith("upload#")
        assert int(row["expiration"]["N"]) > clock.now + 14 * DAY
        lease.progress = PROGRESS
    [row] = rows(dynamodb)
    assert int(row["expiration"]["N"]) > clock.now + 14 * DAY  # a message may be redelivered as late as that

    with leases.layer((None, "app"), "etag e of s3://bucket/" + "k" * 1024) as lease:
        lease.progress = None
    [row] = rows(dynamodb)
    assert clock.now < int(row["expiration"]["N"]) < clock.now + DAY
    assert set(row) == {"id", "repository", "layer", "taken", "expiration"}


def test_a_lease_has_a_new_owner_each_time_it_is_taken(leases: Leases, dynamodb: DynamoDBClient) -> None:
    owners = set()
    for _ in range(2):
        with leases.layer(*LAYER):
            owners.add(rows(dynamodb)[0]["lease_owner"]["S"])
    assert len(owners) == 2
