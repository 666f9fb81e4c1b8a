"""The upload protocol against a strict ECR, with parts of 4 bytes, so that every offset is visible."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from local.invocation import Invocation
from s3_to_ecr.blobs import Blob
from s3_to_ecr.ecr.api import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerUpload, PartReceipt, Registry
from s3_to_ecr.ecr.layer_part import LayerPart
from s3_to_ecr.errors import (
    AccessDenied,
    BlobTooLarge,
    DigestMismatch,
    EmptyBlob,
    OutOfTime,
    RepositoryMissing,
    ServiceUnavailable,
    TransferCorrupted,
    UploadInProgress,
    UploadLost,
)
from s3_to_ecr.push.layer_upload import LayerUploader
from s3_to_ecr.state.leases import Lease, Progress
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.blobs import MemoryBlob
from tests.doubles.ecr import EcrDouble
from tests.doubles.invocation import DEADLINE, Hourglass, OwnLease, deadline_of, let_parts_take, let_pauses_pass
from tests.doubles.server import Fault

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

BODY = b"0123456789"
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
OTHER_DIGEST = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
LONG = bytes(range(40))  # ten parts
LONG_DIGEST = f"sha256:{hashlib.sha256(LONG).hexdigest()}"

MIB = 1024 * 1024


def blob(body: bytes = BODY, size: int | None = None) -> MemoryBlob:
    return MemoryBlob(body, size)


def put(
    registry: Registry,
    source: Blob,
    digest: str | None,
    repository: str = "app",
    *,
    lease: Lease | None = None,
    invocation: Invocation | None = None,
    memory: int = 512 * MIB,
    outcomes: Outcomes | None = None,
) -> str:
    uploader = LayerUploader(registry, deadline_of(invocation or Invocation()), outcomes or Outcomes())
    return uploader.upload(source, repository, digest, lease or OwnLease(), memory)


@pytest.fixture
def registry(ecr_client: ECRClient) -> Registry:
    return Registry(ecr_client, DEADLINE)


def before_part(registry: Registry, monkeypatch: pytest.MonkeyPatch, first_byte: int, act: Callable[[], None]) -> None:
    """Runs `act` once, before the part at `first_byte` is sent."""
    upload_part, waiting = registry.upload_part, [act]

    def hooked(upload: LayerUpload, part: LayerPart) -> PartReceipt:
        if part.first_byte == first_byte and waiting:
            waiting.pop()()
        return upload_part(upload, part)

    monkeypatch.setattr(registry, "upload_part", hooked)


def part_metrics(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    counted: list[float] = []
    monkeypatch.setattr("s3_to_ecr.push.layer_upload.count", lambda _name, value: counted.append(value))
    return counted


def test_an_unknown_layer_is_initiated_sent_in_order_and_completed(registry: Registry, ecr: EcrDouble) -> None:
    assert put(registry, blob(), None) == DIGEST

    assert ecr.operations == ["InitiateLayerUpload", *["UploadLayerPart"] * 3, "CompleteLayerUpload"]
    assert ecr.spans == [(0, 3), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY


def test_a_known_digest_is_verified_by_ecr_only(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_to_ecr.push.layer_upload.RunningDigest", None)  # would fail if it were called

    assert put(registry, blob(), DIGEST) == DIGEST
    assert ecr.content_of("app", DIGEST) == BODY


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 9, 4 * 25 + 3])
def test_every_part_but_the_last_is_exactly_part_size(registry: Registry, ecr: EcrDouble, size: int) -> None:
    body = bytes(range(size))

    digest = put(registry, blob(body), None)

    assert ecr.spans == [(first, min(first + 4, size) - 1) for first in range(0, size, 4)]
    assert ecr.content_of("app", digest) == body


def test_the_blob_is_read_a_part_at_a_time(registry: Registry) -> None:
    source = blob()
    put(registry, source, None)

    assert sorted(source.reads) == [(0, 4), (4, 4), (8, 2)]


def test_the_registry_id_is_given_only_when_set(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    put(Registry(ecr_client, DEADLINE), blob(), DIGEST)
    assert all("registryId" not in call.members for call in ecr.calls)

    ecr.calls.clear()
    put(Registry(ecr_client, DEADLINE, "123456789012"), blob(b"other"), OTHER_DIGEST)
    assert len(ecr.calls) == 4
    assert all(call.members["registryId"] == "123456789012" for call in ecr.calls)


def test_a_layer_that_exists_by_now_is_a_success(registry: Registry, ecr: EcrDouble) -> None:
    ecr.repositories["app"].layers[DIGEST] = BODY  # an unknown digest is not looked up first

    assert put(registry, blob(), None) == DIGEST


def test_a_part_whose_response_was_lost_is_resent_by_the_sdk_only(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)
    ecr.faults.add("UploadLayerPart", Fault(after=True), nth=2)

    put(registry, blob(), None)

    # Only the SDK resends the part. ECR refuses it, and answers that it already has it.
    assert ecr.spans == [(0, 3), (4, 7), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY
    assert resent == [1]


def test_a_part_that_did_not_arrive_is_sent_again(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault(), nth=2)

    put(registry, blob(), None)

    assert ecr.content_of("app", DIGEST) == BODY


def test_the_upload_continues_at_the_byte_that_ecr_expects(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)

    ecr.min_part_bytes = 1
    before_part(registry, monkeypatch, 8, lambda: ecr.truncate_uploads(6))

    put(registry, blob(), None)

    assert ecr.spans == [(0, 3), (4, 7), (8, 9), (6, 9)]
    assert ecr.content_of("app", DIGEST) == BODY  # and the digest counts no byte twice
    assert resent == [1]


@pytest.mark.parametrize("known", [False, True])
def test_parts_read_ahead_are_dropped_if_ecr_expects_another_byte(
    known: bool, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(30))
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    ecr.min_part_bytes = 1
    before_part(registry, monkeypatch, 8, lambda: ecr.truncate_uploads(6))

    put(registry, blob(body), digest if known else None)

    assert ecr.spans == [(0, 3), (4, 7), (8, 11), (6, 9), (10, 13), (14, 17), (18, 21), (22, 25), (26, 29)]
    assert ecr.content_of("app", digest) == body


@pytest.mark.parametrize("digest", [None, DIGEST])
def test_an_upload_that_ecr_forgot_starts_again(
    registry: Registry, ecr: EcrDouble, digest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)
    before_part(registry, monkeypatch, 4, ecr.forget_uploads)

    put(registry, blob(), digest)

    assert ecr.spans == [(0, 3), (4, 7), (0, 3), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY
    assert resent == [1, 1]  # the part that was refused counts, too


def test_a_completion_whose_response_was_lost_is_a_success(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault(after=True))

    assert put(registry, blob(), None) == DIGEST
    assert ecr.operations[-3:] == ["CompleteLayerUpload", "CompleteLayerUpload", "BatchCheckLayerAvailability"]
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1


def test_an_upload_forgotten_before_its_completion_starts_again(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault("UploadNotFoundException"))

    assert put(registry, blob(), None) == DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


@pytest.mark.parametrize("code", ["EmptyUploadException", "LayerPartTooSmallException"])
def test_an_upload_of_which_ecr_kept_too_little_starts_again(registry: Registry, ecr: EcrDouble, code: str) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault(code))

    assert put(registry, blob(), None) == DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


def test_an_upload_with_a_truncated_part_starts_again(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_part(
        registry, monkeypatch, 8, lambda: ecr.truncate_uploads(6)
    )  # leaves a part of 2 bytes, and the minimum is 4

    assert put(registry, blob(), None) == DIGEST
    assert ecr.operations.count("CompleteLayerUpload") == 2
    assert ecr.content_of("app", DIGEST) == BODY


def test_an_upload_that_ecr_keeps_forgetting_is_retried_later(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault("UploadNotFoundException"), times=99)

    with pytest.raises(UploadLost):
        put(registry, blob(), None)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 3


def test_a_part_that_ecr_keeps_refusing_is_retried_later(registry: Registry, ecr: EcrDouble) -> None:
    refusal = Fault("InvalidLayerPartException", members={"lastValidByteReceived": -1})
    ecr.faults.add("UploadLayerPart", refusal, times=999)

    with pytest.raises(UploadLost, match="stands at byte 0"):
        put(registry, blob(), None)
    assert len(ecr.calls_of("UploadLayerPart")) < 20


def test_an_upload_starts_again_if_ecr_claims_bytes_that_were_never_sent(registry: Registry, ecr: EcrDouble) -> None:
    refusal = Fault("InvalidLayerPartException", members={"lastValidByteReceived": 9})  # all of it
    ecr.faults.add("UploadLayerPart", refusal)

    put(registry, blob(), None)

    assert ecr.operations == [
        "InitiateLayerUpload", "UploadLayerPart",
        "InitiateLayerUpload", *["UploadLayerPart"] * 3, "CompleteLayerUpload",
    ]  # fmt: skip
    assert ecr.content_of("app", DIGEST) == BODY


@pytest.mark.parametrize("receipts", ["stale", "relative"])
@pytest.mark.parametrize("known", [False, True])
def test_a_receipt_does_not_move_an_upload_whatever_it_says(
    known: bool, receipts: Any, registry: Registry, ecr: EcrDouble
) -> None:
    ecr.receipts = receipts
    source, invocations = blob(LONG), [OwnLease(), half_sent(registry, LONG)]
    for lease, first_part in zip(invocations, (0, 20), strict=True):
        ecr.calls.clear()
        source.reads.clear()
        put(registry, source, LONG_DIGEST if known else None, lease=lease)

        assert ecr.spans == [(first, first + 3) for first in range(first_part, 40, 4)]
        assert sorted(source.reads) == [(first, 4) for first in range(first_part if known else 0, 40, 4)]
        assert ecr.repositories["app"].layers.pop(LONG_DIGEST) == LONG


@pytest.mark.parametrize("refusals", ["expected first", "sent first"])
@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_a_refusals_message_tells_the_position_too(
    refusals: Any, digest: str | None, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr.refusals, ecr.min_part_bytes = refusals, 1
    lease = half_sent(registry, LONG, saved=4)
    ecr.faults.add("UploadLayerPart", Fault(after=True), nth=2)  # the part at 20, after the refused one
    before_part(registry, monkeypatch, 32, lambda: ecr.truncate_uploads(30))
    ecr.calls.clear()

    assert put(registry, blob(LONG), digest, lease=lease) == LONG_DIGEST
    assert ecr.spans == [(4, 7), (20, 23), (20, 23), (24, 27), (28, 31), (32, 35), (30, 33), (34, 37), (38, 39)]
    assert "InitiateLayerUpload" not in ecr.operations
    assert ecr.content_of("app", LONG_DIGEST) == LONG


@pytest.mark.parametrize("resumed", [False, True])
def test_an_upload_whose_position_ecr_does_not_tell_starts_again(
    resumed: bool, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr.refusals = "nowhere"
    lease = half_sent(registry, LONG, saved=16) if resumed else OwnLease()
    if not resumed:
        before_part(registry, monkeypatch, 16, lambda: ecr.truncate_uploads(8))
    ecr.calls.clear()

    assert put(registry, blob(LONG), LONG_DIGEST, lease=lease) == LONG_DIGEST
    assert ecr.spans[-10:] == [(first, first + 3) for first in range(0, 40, 4)]
    assert ecr.spans[-11] == (16, 19)
    assert ecr.content_of("app", LONG_DIGEST) == LONG


@pytest.mark.parametrize("resumed", [False, True])
def test_a_layer_whose_parts_are_refused_without_a_position_starts_three_times(
    resumed: bool, registry: Registry, ecr: EcrDouble
) -> None:
    lease = half_sent(registry, LONG) if resumed else OwnLease()
    ecr.calls.clear()
    ecr.faults.add("UploadLayerPart", Fault("InvalidLayerPartException"), times=99)

    with pytest.raises(UploadLost, match="InvalidLayerPartException"):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert ecr.spans == ([(20, 23), (0, 3), (0, 3)] if resumed else [(0, 3)] * 3)
    assert lease.progress is None  # so the next delivery does not start with what has failed


@pytest.mark.parametrize(
    "message",
    [
        "First byte of the layer part is 4 instead of 9",  # only 8 were sent
        "First byte of the layer part is 40000 instead of 4",
        "First byte of the layer part is 4 instead of 4",
        "First byte of the layer part is 0 instead of 8",  # not the part that was sent
        "First byte of the layer part is invalid",
    ],
)
def test_a_message_that_makes_no_sense_is_no_position(message: str, registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault("InvalidLayerPartException", members={"message": message}), nth=2)

    assert put(registry, blob(), DIGEST) == DIGEST
    assert ecr.spans == [(0, 3), (4, 7), (0, 3), (4, 7), (8, 9)]


def test_an_empty_blob_is_rejected_before_any_call(registry: Registry, ecr: EcrDouble) -> None:
    with pytest.raises(EmptyBlob):
        put(registry, blob(b""), None)
    assert ecr.calls == []


def test_too_many_bytes_are_rejected_before_any_call(registry: Registry, ecr: EcrDouble) -> None:
    with pytest.raises(BlobTooLarge, match=f"{MAX_LAYER_BYTES + 1:,}"):
        put(registry, blob(size=MAX_LAYER_BYTES + 1), None)
    assert ecr.calls == []


def test_too_many_parts_are_rejected_before_the_first(registry: Registry, ecr: EcrDouble) -> None:
    with pytest.raises(BlobTooLarge, match="4,201 parts"):
        put(registry, blob(size=4 * MAX_LAYER_PARTS + 1), None)
    assert ecr.operations == ["InitiateLayerUpload"]


@pytest.mark.slow
def test_a_layer_with_the_largest_number_of_parts_is_sent(registry: Registry, ecr: EcrDouble) -> None:
    put(registry, blob(bytes(4 * MAX_LAYER_PARTS)), None)
    assert len(ecr.spans) == MAX_LAYER_PARTS


def test_content_without_the_digest_of_its_key_is_rejected(registry: Registry, ecr: EcrDouble) -> None:
    with pytest.raises(DigestMismatch, match="digest that its key names"):
        put(registry, blob(), OTHER_DIGEST)
    assert ecr.repositories["app"].layers == {}


def test_another_digest_in_ecrs_response_is_an_error(registry: Registry, ecr: EcrDouble) -> None:
    ecr.answered_digest = OTHER_DIGEST

    with pytest.raises(DigestMismatch, match=OTHER_DIGEST):
        put(registry, blob(), DIGEST)
    ecr.repositories["app"].layers.clear()
    with pytest.raises(TransferCorrupted, match=OTHER_DIGEST):
        put(registry, blob(), None)


def test_bytes_that_changed_on_the_way_are_a_corrupted_transfer(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault("InvalidLayerException"))

    with pytest.raises(TransferCorrupted, match="changed on the way"):
        put(registry, blob(), None)


def test_a_missing_repository_is_named(registry: Registry) -> None:
    with pytest.raises(RepositoryMissing, match=r"ECR repository nowhere .*CREATE_REPOSITORIES"):
        put(registry, blob(), DIGEST, "nowhere")


@pytest.mark.slow
def test_progress_is_logged_about_every_ten_percent(
    registry: Registry, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    put(registry, blob(bytes(4 * 1000)), None)

    progress = [line for line in logs() if line["message"] == "Uploading the layer"]
    assert [line["percent"] for line in progress] == list(range(10, 101, 10))
    assert [line["bytes_sent"] for line in progress] == list(range(400, 4001, 400))
    assert all(line["upload_id"] for line in progress)


@pytest.mark.parametrize(("memory", "most"), [(128, 2), (256, 2), (320, 2), (321, 3), (10_240, 3)])
def test_the_number_of_parts_in_memory_depends_on_the_functions_memory(
    memory: int, most: int, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr.part_size = 10_485_760  # ECR's own
    limits: list[int] = []

    def none_read(*arguments: Any) -> Generator[LayerPart]:
        limits.append(arguments[4])
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("s3_to_ecr.push.layer_upload.read_ahead", none_read)
    with pytest.raises(KeyboardInterrupt):
        put(registry, blob(), None, memory=memory * MIB)
    assert limits == [most]


@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_invocations_that_run_out_of_time_send_every_byte_once(
    registry: Registry, ecr: EcrDouble, digest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = Hourglass()
    let_parts_take(monkeypatch, invocation, 10)
    lease = OwnLease()

    def invoke() -> str | None:
        invocation.seconds = 30
        try:
            return put(registry, blob(LONG), digest, lease=lease, invocation=invocation)
        except OutOfTime:
            return None
        finally:
            assert invocation.seconds >= 5  # to spare

    assert [invoke() for _ in range(5)] == [None] * 4 + [LONG_DIGEST]
    assert ecr.spans == [(first, first + 3) for first in range(0, 40, 4)]
    assert ecr.content_of("app", LONG_DIGEST) == LONG


def test_sent_bytes_are_read_again_only_for_an_unknown_digest(registry: Registry, ecr: EcrDouble) -> None:
    for digest, read in ((LONG_DIGEST, range(20, 40, 4)), (None, range(0, 40, 4))):
        lease = half_sent(registry, LONG)
        source = blob(LONG)
        put(registry, source, digest, lease=lease)
        assert sorted(source.reads) == [(first, 4) for first in read]
        assert ecr.spans[-5:] == [(first, first + 3) for first in range(20, 40, 4)]
        assert ecr.content_of("app", LONG_DIGEST) == LONG
        ecr.repositories["app"].layers.clear()


def half_sent(registry: Registry, body: bytes, saved: int | None = None) -> OwnLease:
    """The lease of an invocation that sent half of the body, and last saved its progress at byte `saved`."""
    upload = registry.initiate("app")
    half = len(body) // 2
    for first in range(0, half, 4):
        part = registry.part(upload, first, 4)
        part.write(body[first : first + 4])
        registry.upload_part(upload, part)
    return OwnLease(Progress(upload.upload_id, 4, half if saved is None else saved))


@pytest.mark.parametrize("saved", [0, 4, 16, 20])
@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_an_upload_resumes_at_the_byte_that_ecr_expects_whatever_was_saved(
    registry: Registry, ecr: EcrDouble, saved: int, digest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)
    lease = half_sent(registry, LONG, saved)
    ecr.calls.clear()

    put(registry, blob(LONG), digest, lease=lease)

    refused = [] if saved == 20 else [(saved, saved + 3)]  # ECR has that part, and answers with its position
    assert ecr.spans == refused + [(first, first + 3) for first in range(20, 40, 4)]
    assert "InitiateLayerUpload" not in ecr.operations
    assert ecr.content_of("app", LONG_DIGEST) == LONG
    assert resent == [1] * len(refused)


@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_an_upload_with_all_parts_sent_is_only_completed(
    registry: Registry, ecr: EcrDouble, digest: str | None
) -> None:
    lease = half_sent(registry, LONG + LONG)
    ecr.calls.clear()

    assert put(registry, blob(LONG), digest, lease=lease) == LONG_DIGEST
    assert ecr.operations == ["CompleteLayerUpload"]


@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_a_saved_upload_that_ecr_forgot_starts_again(registry: Registry, ecr: EcrDouble, digest: str | None) -> None:
    lease = half_sent(registry, LONG)
    ecr.forget_uploads()

    assert put(registry, blob(LONG), digest, lease=lease) == LONG_DIGEST
    assert ecr.content_of("app", LONG_DIGEST) == LONG
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


def test_the_upload_of_a_bad_object_does_not_spoil_a_good_one(registry: Registry, ecr: EcrDouble) -> None:
    """Two objects are named by the same digest, and the first does not have it."""
    lease = half_sent(registry, bytes(40))

    assert put(registry, blob(LONG), LONG_DIGEST, lease=lease) == LONG_DIGEST
    assert ecr.content_of("app", LONG_DIGEST) == LONG
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


def test_a_refused_layer_is_not_resumed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3_to_ecr.push.read_ahead.RunningDigest.__str__", lambda _: OTHER_DIGEST)
    for digest, error in ((OTHER_DIGEST, DigestMismatch), (None, TransferCorrupted)):
        lease = OwnLease()
        with pytest.raises(error):
            put(registry, blob(LONG), digest, lease=lease)
        assert lease.progress is None


def test_an_upload_is_saved_before_its_first_part_and_kept_when_it_fails(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault("AccessDeniedException"), nth=3)
    lease = OwnLease()

    with pytest.raises(AccessDenied):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease)

    [upload_id] = ecr.uploads
    assert lease.saved == [Progress(upload_id, 4, 0)]
    assert lease.progress == Progress(upload_id, 4, 8)


def test_nothing_is_saved_for_a_layer_of_one_part(registry: Registry) -> None:
    lease = OwnLease()
    put(registry, blob(b"1234"), None, lease=lease)

    assert lease.saved == []


def test_the_lease_is_renewed_after_every_part(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, renewals = OwnLease(), []
    monkeypatch.setattr(lease, "renew", lambda: renewals.append(lease.progress and lease.progress.position))
    put(registry, blob(), DIGEST, lease=lease)

    assert renewals == [4, 8, 10]


def test_an_upload_stops_when_its_lease_is_lost(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise UploadInProgress("another has it")

    lease = OwnLease()
    monkeypatch.setattr(lease, "renew", lost)

    with pytest.raises(UploadInProgress):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert ecr.spans == [(0, 3)]


def test_an_upload_that_another_invocation_took_over_is_not_started_again(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this invocation hung, the other sent parts of the same upload."""
    lease = OwnLease()

    def overtaken() -> None:
        [upload_id] = ecr.uploads
        for first in range(4, 20, 4):
            part = registry.part(LayerUpload("app", upload_id, 4), first, 4)
            part.write(LONG[first : first + 4])
            registry.upload_part(LayerUpload("app", upload_id, 4), part)
        monkeypatch.setattr(lease, "save", lost)

    def lost() -> None:
        raise UploadInProgress("another has it")

    before_part(registry, monkeypatch, 4, overtaken)
    with pytest.raises(UploadInProgress):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1


def read_slowly(monkeypatch: pytest.MonkeyPatch, invocation: Hourglass, parts: range, seconds: float) -> None:
    """Makes S3 take `seconds` for each part that begins in the range `parts`."""
    read = MemoryBlob.read

    def slow(self: MemoryBlob, first: int, length: int) -> Generator[bytes]:
        if first in parts:
            invocation.pass_by(seconds)
        return read(self, first, length)

    monkeypatch.setattr(MemoryBlob, "read", slow)


def test_reading_sent_bytes_again_may_run_out_of_time(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, invocation = half_sent(registry, LONG), Hourglass(40)
    read_slowly(monkeypatch, invocation, range(20), 15)
    ecr.calls.clear()

    outcomes = Outcomes()
    with pytest.raises(OutOfTime, match=r"reading again, for the digest|has not sent the next part"):
        put(registry, blob(LONG), None, lease=lease, invocation=invocation, outcomes=outcomes)
    assert ecr.calls == []
    assert lease.progress is not None
    assert not outcomes.progressed  # the next invocation would get no further


def test_parts_sent_before_running_out_of_time_are_progress(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = Hourglass(30)
    let_parts_take(monkeypatch, invocation, 10)

    outcomes = Outcomes()
    with pytest.raises(OutOfTime):
        put(registry, blob(LONG), LONG_DIGEST, invocation=invocation, outcomes=outcomes)
    assert outcomes.progressed


def test_a_layer_that_started_again_and_got_no_further_has_not_progressed(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, invocation = half_sent(registry, LONG), Hourglass(30)
    ecr.forget_uploads()
    let_parts_take(monkeypatch, invocation, 10)

    outcomes = Outcomes()
    with pytest.raises(OutOfTime):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease, invocation=invocation, outcomes=outcomes)
    assert lease.progress
    assert lease.progress.position < 20
    assert not outcomes.progressed


def test_computing_the_digest_is_progress(registry: Registry) -> None:
    lease, invocation = half_sent(registry, LONG + LONG), Hourglass(6)

    outcomes = Outcomes()
    with pytest.raises(OutOfTime, match="completing the layer"):
        put(registry, blob(LONG), None, lease=lease, invocation=invocation, outcomes=outcomes)
    assert outcomes.progressed
    # The next invocation only completes the layer, and needs no more time for that.
    assert put(registry, blob(LONG), None, lease=lease, invocation=invocation) == LONG_DIGEST


def test_the_lease_is_renewed_while_sent_bytes_are_read_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = half_sent(registry, LONG)
    renewals: list[Progress | None] = []
    monkeypatch.setattr(lease, "renew", lambda: renewals.append(lease.progress))

    put(registry, blob(LONG), None, lease=lease)
    assert [progress and progress.position for progress in renewals] == [20] * 5 + [24, 28, 32, 36, 40]


def test_a_layer_is_not_completed_when_there_is_no_time_for_it(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = Hourglass(30)
    let_parts_take(monkeypatch, invocation, 29)
    lease = OwnLease()

    with pytest.raises(OutOfTime, match="completing the layer"):
        put(registry, blob(b"1234"), None, lease=lease, invocation=invocation)
    assert put(registry, blob(b"1234"), None, lease=lease).startswith("sha256:")
    assert ecr.spans == [(0, 3)]
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1


def test_earlier_progress_is_logged(registry: Registry, logs: Callable[[], list[dict[str, Any]]]) -> None:
    put(registry, blob(LONG), None, lease=half_sent(registry, LONG))

    [resumed] = [line for line in logs() if line["message"] == "Resuming the upload"]
    assert (resumed["percent"], resumed["bytes_sent"], resumed["size"]) == (50, 20, 40)
    progress = [line["percent"] for line in logs() if line["message"] == "Uploading the layer"]
    assert progress == [60, 70, 80, 90, 100]


def test_a_saved_digest_is_not_computed_again(registry: Registry, ecr: EcrDouble) -> None:
    lease = OwnLease()
    ecr.faults.add("CompleteLayerUpload", Fault("ThrottlingException"), times=2)
    with pytest.raises(ServiceUnavailable):
        put(registry, blob(LONG), None, lease=lease)
    assert lease.saved[-1] == lease.progress
    assert lease.progress is not None
    assert (lease.progress.position, lease.progress.digest) == (40, LONG_DIGEST)

    source = blob(LONG)
    assert put(registry, source, None, lease=lease) == LONG_DIGEST
    assert source.reads == []
    assert len(ecr.spans) == 10


def test_a_completed_layer_with_progress_still_saved_is_a_success(registry: Registry, ecr: EcrDouble) -> None:
    lease = OwnLease()
    put(registry, blob(LONG), None, lease=lease)
    lease = OwnLease(lease.saved[-1])
    ecr.calls.clear()

    assert put(registry, blob(LONG), None, lease=lease) == LONG_DIGEST
    assert ecr.operations == ["CompleteLayerUpload", "BatchCheckLayerAvailability"]


def test_the_time_to_read_sent_bytes_again_does_not_count_for_parts(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed invocation sent more than it saved. That shows only when ECR refuses a part."""
    lease = half_sent(registry, LONG, saved=0)
    invocation = Hourglass(60)
    monkeypatch.setattr("s3_to_ecr.push.layer_upload.FEWEST_PARTS", 1)  # so that one read is one step
    read_slowly(monkeypatch, invocation, range(16, 20), 30)

    assert put(registry, blob(LONG), None, lease=lease, invocation=invocation) == LONG_DIGEST
    assert ecr.spans[5:] == [(0, 3)] + [(first, first + 3) for first in range(20, 40, 4)]


@pytest.mark.parametrize("stored", [False, True], ids=["digest of the key", "digest of the ledger"])
def test_a_layer_that_another_invocation_completed_is_not_sent_again(
    stored: bool, registry: Registry, ecr: EcrDouble
) -> None:
    lease = half_sent(registry, LONG)
    assert lease.progress
    lease.progress = replace(lease.progress, digest=LONG_DIGEST if stored else None)
    ecr.forget_uploads()
    ecr.repositories["app"].layers[LONG_DIGEST] = LONG
    ecr.calls.clear()

    assert put(registry, blob(LONG), None if stored else LONG_DIGEST, lease=lease) == LONG_DIGEST
    assert ecr.operations == ["UploadLayerPart", "BatchCheckLayerAvailability"]


def test_only_the_holder_of_the_lease_starts_a_layer_again(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise UploadInProgress("another has it")

    lease = half_sent(registry, LONG)
    ecr.forget_uploads()
    monkeypatch.setattr(lease, "save", lost)
    ecr.calls.clear()

    with pytest.raises(UploadInProgress):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert "InitiateLayerUpload" not in ecr.operations


def test_progress_is_saved_before_the_upload_is_completed(registry: Registry) -> None:
    lease = OwnLease()
    put(registry, blob(LONG), LONG_DIGEST, lease=lease)

    assert [saved and saved.position for saved in lease.saved] == [0, 40]


def test_an_upload_continues_while_ecr_loses_parts_but_advances(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first_byte in range(4, 40, 4):
        before_part(registry, monkeypatch, first_byte, lambda end=first_byte: ecr.truncate_uploads(end - 4))  # type: ignore[misc]

    assert put(registry, blob(LONG), LONG_DIGEST) == LONG_DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1


def test_a_part_is_tried_four_times_in_each_of_three_uploads(registry: Registry, ecr: EcrDouble) -> None:
    refusal = Fault("InvalidLayerPartException", members={"lastValidByteReceived": -1})
    ecr.faults.add("UploadLayerPart", refusal, times=999)

    with pytest.raises(UploadLost):
        put(registry, blob(), None)
    assert len(ecr.calls_of("UploadLayerPart")) == 3 * 4


def test_a_part_that_an_earlier_invocation_sent_counts_as_resent(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = half_sent(registry, LONG)
    ecr.truncate_uploads(12)
    resent = part_metrics(monkeypatch)

    put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert ecr.spans[5:8] == [(20, 23), (12, 15), (16, 19)]
    assert resent == [1, 1, 1]  # the two lost parts, and the one that ECR refused


def test_an_archived_layer_is_uploaded_again(registry: Registry, ecr: EcrDouble) -> None:
    lease = half_sent(registry, LONG)
    ecr.forget_uploads()
    ecr.repositories["app"].layers[LONG_DIGEST] = LONG
    ecr.repositories["app"].archived.add(LONG_DIGEST)

    put(registry, blob(LONG), LONG_DIGEST, lease=lease)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


def patient(monkeypatch: pytest.MonkeyPatch, ecr: EcrDouble, seconds: float = 900) -> Hourglass:
    """An invocation whose pauses take no time of the test's, with an ECR in the same time."""
    invocation = Hourglass(seconds)
    let_pauses_pass(monkeypatch, ecr, invocation)
    return invocation


ANSWERS_WHILE_COMPLETING = ["UploadNotFoundException", "InvalidLayerException", "LayerAlreadyExistsException"]


@pytest.mark.parametrize("answer", ANSWERS_WHILE_COMPLETING)
@pytest.mark.parametrize("digest", [None, LONG_DIGEST])
def test_a_call_that_breaks_off_while_ecr_completes_the_layer_is_waited_for(
    answer: Any, digest: str | None, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = patient(monkeypatch, ecr)
    ecr.complete_seconds, ecr.while_completing = 25, answer
    ecr.faults.add("CompleteLayerUpload", Fault(after=True))

    assert put(registry, blob(LONG), digest, invocation=invocation) == LONG_DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1
    assert len(ecr.spans) == 10
    assert ecr.operations.count("CompleteLayerUpload") == 2
    assert 25 <= 900 - invocation.seconds < 30
    assert ecr.content_of("app", LONG_DIGEST) == LONG


@pytest.mark.parametrize("answer", ANSWERS_WHILE_COMPLETING)
def test_the_next_invocation_waits_for_a_layer_that_ecr_is_completing(
    answer: Any, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation, lease, outcomes = patient(monkeypatch, ecr, 20), OwnLease(), Outcomes()
    ecr.complete_seconds, ecr.while_completing = 25, answer
    ecr.faults.add("CompleteLayerUpload", Fault(after=True))
    with pytest.raises(OutOfTime, match="ECR to complete the layer"):
        put(registry, blob(LONG), LONG_DIGEST, lease=lease, invocation=invocation, outcomes=outcomes)
    assert invocation.seconds >= 2
    assert outcomes.progressed  # the next invocation comes at once

    invocation.seconds += 100
    monkeypatch.setattr(ecr, "clock", lambda: 80 - invocation.seconds)
    put(registry, blob(LONG), LONG_DIGEST, lease=lease, invocation=invocation)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1
    assert len(ecr.spans) == 10
    assert ecr.content_of("app", LONG_DIGEST) == LONG


@pytest.mark.parametrize("seconds", [900, 30])
def test_a_layer_that_does_not_appear_is_sent_again_in_the_same_invocation(
    seconds: float, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the invocations are, they do not only wait, one after the other."""
    lease = half_sent(registry, LONG + LONG)  # all of it
    ecr.forget_uploads()
    ecr.calls.clear()
    invocation = patient(monkeypatch, ecr, seconds)

    assert put(registry, blob(LONG), LONG_DIGEST, lease=lease, invocation=invocation) == LONG_DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1
    assert ecr.content_of("app", LONG_DIGEST) == LONG
    assert seconds - invocation.seconds == pytest.approx(min(30, (seconds - 2) / 2), abs=2)


def test_the_wait_for_a_layer_grows_with_its_size(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 1024 * MIB
    ecr.part_size = 20 * MIB
    upload = registry.initiate("app")
    lease = OwnLease(Progress(upload.upload_id, ecr.part_size, 10 * gib))
    invocation = patient(monkeypatch, ecr, 1000)

    ecr.forget_uploads()
    ecr.faults.add("InitiateLayerUpload", Fault("AccessDeniedException"))
    with pytest.raises(AccessDenied):
        put(registry, blob(size=10 * gib), LONG_DIGEST, lease=lease, invocation=invocation)
    assert 1000 - invocation.seconds == pytest.approx(30 + 10 * gib / 100_000_000, abs=2)


@pytest.mark.parametrize(("digest", "error"), [(OTHER_DIGEST, DigestMismatch), (None, TransferCorrupted)])
def test_only_the_first_completion_of_an_upload_tells_of_a_wrong_digest(
    digest: str | None,
    error: type[Exception],
    registry: Registry,
    ecr: EcrDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one that the SDK sends again nobody knows what the first call has done. So the layer starts again."""
    monkeypatch.setattr("s3_to_ecr.push.read_ahead.RunningDigest.__str__", lambda _: OTHER_DIGEST)
    invocation = patient(monkeypatch, ecr)
    ecr.faults.add("CompleteLayerUpload", Fault())  # cut before it has an effect

    with pytest.raises(error):
        put(registry, blob(), digest, invocation=invocation)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2
    assert ecr.operations[-1] == "CompleteLayerUpload"

    ecr.calls.clear()
    before = invocation.seconds
    with pytest.raises(error):
        put(registry, blob(), digest, invocation=invocation)
    assert ecr.operations == ["InitiateLayerUpload", *["UploadLayerPart"] * 3, "CompleteLayerUpload"]
    assert invocation.seconds == before


def test_the_lease_is_renewed_while_ecr_completes_the_layer(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, renewals = OwnLease(), []
    monkeypatch.setattr(lease, "renew", lambda: renewals.append(lease.progress and lease.progress.position))
    ecr.complete_seconds = 6
    ecr.faults.add("CompleteLayerUpload", Fault(after=True))

    put(registry, blob(), DIGEST, lease=lease, invocation=patient(monkeypatch, ecr))
    assert renewals == [4, 8, 10, *[10] * 3]
