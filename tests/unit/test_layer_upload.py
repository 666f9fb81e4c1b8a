"""The protocol, against a strict ECR whose parts are 4 bytes, so that every offset can be seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from s3_to_ecr.content import Blob
from s3_to_ecr.ecr import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerPart, LayerUpload, PartReceipt, Registry
from s3_to_ecr.errors import (
    BlobTooLarge,
    DigestMismatch,
    EmptyBlob,
    RepositoryMissing,
    ServiceUnavailable,
    TransferCorrupted,
    UploadLost,
)
from s3_to_ecr.layer_upload import upload_layer
from tests.doubles.ecr import EcrDouble
from tests.doubles.server import Fault

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient
    from types_boto3_s3.client import S3Client

BODY = b"0123456789"
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
OTHER_DIGEST = f"sha256:{hashlib.sha256(b'other').hexdigest()}"


MIB = 1024 * 1024


@dataclass(frozen=True)
class MemoryBlob(Blob):
    """A blob at hand; `reads` holds the ranges asked for."""

    body: bytes = b""
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read(self, first: int, length: int) -> Generator[bytes]:
        self.reads.append((first, length))
        yield from (bytes([byte]) for byte in self.body[first : first + length])


def blob(body: bytes = BODY, size: int | None = None) -> MemoryBlob:
    size = len(body) if size is None else size
    return MemoryBlob(cast("S3Client", None), "bucket", "app/x", None, "e", size, size, body=body)


def put(registry: Registry, source: Blob, digest: str | None, repository: str = "app", memory: int = 512 * MIB) -> str:
    return upload_layer(registry, source, repository, digest, memory)


@pytest.fixture
def registry(ecr_client: ECRClient) -> Registry:
    return Registry(ecr_client)


def before_part(registry: Registry, monkeypatch: pytest.MonkeyPatch, first_byte: int, act: Callable[[], None]) -> None:
    """Lets something happen once, before the part from that byte on is sent."""
    upload_part, waiting = registry.upload_part, [act]

    def hooked(upload: LayerUpload, part: LayerPart) -> PartReceipt:
        if part.first_byte == first_byte and waiting:
            waiting.pop()()
        return upload_part(upload, part)

    monkeypatch.setattr(registry, "upload_part", hooked)


def part_metrics(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    counted: list[float] = []
    monkeypatch.setattr("s3_to_ecr.layer_upload.metrics.add_metric", lambda _name, _unit, value: counted.append(value))
    return counted


def test_an_unknown_layer_is_initiated_sent_in_order_and_completed(registry: Registry, ecr: EcrDouble) -> None:
    assert put(registry, blob(), None) == DIGEST

    assert ecr.operations == ["InitiateLayerUpload", *["UploadLayerPart"] * 3, "CompleteLayerUpload"]
    assert ecr.spans == [(0, 3), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY


def test_a_known_digest_is_ecrs_to_verify(registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3_to_ecr.layer_upload.RunningDigest", None)  # would fail if it were made

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
    put(Registry(ecr_client), blob(), DIGEST)
    assert all("registryId" not in call.members for call in ecr.calls)

    ecr.calls.clear()
    put(Registry(ecr_client, "123456789012"), blob(b"other"), OTHER_DIGEST)
    assert len(ecr.calls) == 4
    assert all(call.members["registryId"] == "123456789012" for call in ecr.calls)


def test_a_layer_that_came_to_exist_meanwhile_is_success(registry: Registry, ecr: EcrDouble) -> None:
    ecr.repositories["app"].layers[DIGEST] = BODY  # an unknown digest is not looked for first

    assert put(registry, blob(), None) == DIGEST


def test_a_part_that_landed_although_its_answer_was_lost_is_not_sent_again_by_us(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)
    ecr.faults.add("UploadLayerPart", Fault(after=True), nth=2)

    put(registry, blob(), None)

    # The SDK's own retry is the only second sending: ECR refused it, and told that it holds the part.
    assert ecr.spans == [(0, 3), (4, 7), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY
    assert resent == [1]


def test_a_part_that_was_cut_off_before_it_landed_is_sent_again(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault(), nth=2)

    put(registry, blob(), None)

    assert ecr.content_of("app", DIGEST) == BODY


def test_the_upload_goes_on_from_where_ecr_stands(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)

    ecr.min_part_bytes = 1
    before_part(registry, monkeypatch, 8, lambda: ecr.truncate_uploads(6))

    put(registry, blob(), None)

    assert ecr.spans == [(0, 3), (4, 7), (8, 9), (6, 9)]
    assert ecr.content_of("app", DIGEST) == BODY  # and the digest has counted no byte twice
    assert resent == [1]


@pytest.mark.parametrize("known", [False, True])
def test_parts_that_were_read_ahead_are_dropped_when_ecr_stands_elsewhere(
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
def test_an_upload_that_ecr_forgot_begins_anew(
    registry: Registry, ecr: EcrDouble, digest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    resent = part_metrics(monkeypatch)
    before_part(registry, monkeypatch, 4, ecr.forget_uploads)

    put(registry, blob(), digest)

    assert ecr.spans == [(0, 3), (4, 7), (0, 3), (4, 7), (8, 9)]
    assert ecr.content_of("app", DIGEST) == BODY
    assert resent == [1, 1]  # the part that was refused counts, too


def test_a_completion_whose_answer_was_lost_is_success(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault(after=True))

    assert put(registry, blob(), None) == DIGEST
    assert ecr.operations[-3:] == ["CompleteLayerUpload", "CompleteLayerUpload", "BatchCheckLayerAvailability"]
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1


def test_an_upload_forgotten_before_its_completion_begins_anew(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault("UploadNotFoundException"))

    assert put(registry, blob(), None) == DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


@pytest.mark.parametrize("code", ["EmptyUploadException", "LayerPartTooSmallException"])
def test_an_upload_of_which_ecr_has_kept_too_little_begins_anew(registry: Registry, ecr: EcrDouble, code: str) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault(code))

    assert put(registry, blob(), None) == DIGEST
    assert len(ecr.calls_of("InitiateLayerUpload")) == 2


def test_a_part_of_which_ecr_has_kept_too_little_is_not_the_objects_fault(
    registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_part(registry, monkeypatch, 8, lambda: ecr.truncate_uploads(6))  # leaves 2 bytes, where 4 is the least

    assert put(registry, blob(), None) == DIGEST
    assert ecr.operations.count("CompleteLayerUpload") == 2
    assert ecr.content_of("app", DIGEST) == BODY


def test_an_upload_that_ecr_keeps_forgetting_is_left_to_the_queue(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault("UploadNotFoundException"), times=99)

    with pytest.raises(UploadLost):
        put(registry, blob(), None)
    assert len(ecr.calls_of("InitiateLayerUpload")) == 3


def test_a_part_that_ecr_keeps_refusing_is_left_to_the_queue(registry: Registry, ecr: EcrDouble) -> None:
    refusal = Fault("InvalidLayerPartException", members={"lastValidByteReceived": -1})
    ecr.faults.add("UploadLayerPart", refusal, times=999)

    with pytest.raises(UploadLost, match="stands at byte 0"):
        put(registry, blob(), None)
    assert len(ecr.calls_of("UploadLayerPart")) < 20


def test_an_ecr_that_claims_bytes_which_were_never_sent_is_not_believed(registry: Registry, ecr: EcrDouble) -> None:
    refusal = Fault("InvalidLayerPartException", members={"lastValidByteReceived": 9})  # all of it
    ecr.faults.add("UploadLayerPart", refusal)

    put(registry, blob(), None)

    assert ecr.operations == [
        "InitiateLayerUpload", "UploadLayerPart",
        "InitiateLayerUpload", *["UploadLayerPart"] * 3, "CompleteLayerUpload",
    ]  # fmt: skip
    assert ecr.content_of("app", DIGEST) == BODY


def test_a_refused_part_without_a_position_is_left_to_the_queue(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("UploadLayerPart", Fault("InvalidLayerPartException"))

    with pytest.raises(ServiceUnavailable, match="InvalidLayerPartException"):
        put(registry, blob(), None)


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


def test_the_largest_number_of_parts_is_sent(registry: Registry, ecr: EcrDouble) -> None:
    put(registry, blob(bytes(4 * MAX_LAYER_PARTS)), None)
    assert len(ecr.spans) == MAX_LAYER_PARTS


def test_content_without_the_digest_of_its_key_is_rejected(registry: Registry, ecr: EcrDouble) -> None:
    with pytest.raises(DigestMismatch, match="digest that its key names"):
        put(registry, blob(), OTHER_DIGEST)
    assert ecr.repositories["app"].layers == {}


def test_a_lenient_ecr_that_answers_another_digest_is_not_believed(registry: Registry, ecr: EcrDouble) -> None:
    ecr.answered_digest = OTHER_DIGEST

    with pytest.raises(DigestMismatch, match=OTHER_DIGEST):
        put(registry, blob(), DIGEST)
    ecr.repositories["app"].layers.clear()
    with pytest.raises(TransferCorrupted, match=OTHER_DIGEST):
        put(registry, blob(), None)


def test_bytes_that_changed_on_their_way_are_not_the_users_fault(registry: Registry, ecr: EcrDouble) -> None:
    ecr.faults.add("CompleteLayerUpload", Fault("InvalidLayerException"))

    with pytest.raises(TransferCorrupted, match="changed on the way"):
        put(registry, blob(), None)


def test_a_missing_repository_is_named(registry: Registry) -> None:
    with pytest.raises(RepositoryMissing, match=r"ECR repository nowhere .*CREATE_REPOSITORIES"):
        put(registry, blob(), DIGEST, "nowhere")


def test_progress_is_logged_about_every_tenth(registry: Registry, logs: Callable[[], list[dict[str, Any]]]) -> None:
    put(registry, blob(bytes(4 * 1000)), None)

    progress = [line for line in logs() if line["message"] == "Uploading the layer"]
    assert [line["percent"] for line in progress] == list(range(10, 101, 10))
    assert [line["bytes_sent"] for line in progress] == list(range(400, 4001, 400))
    assert all(line["upload_id"] for line in progress)


@pytest.mark.parametrize(("memory", "most"), [(128, 2), (256, 2), (320, 2), (321, 3), (10_240, 3)])
def test_how_many_parts_are_in_memory_follows_from_how_much_there_is(
    memory: int, most: int, registry: Registry, ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr.part_size = 10_485_760  # ECR's own
    asked: list[int] = []

    def none_read(*arguments: Any) -> Generator[LayerPart]:
        asked.append(arguments[-1])
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("s3_to_ecr.layer_upload.read_ahead", none_read)
    with pytest.raises(KeyboardInterrupt):
        put(registry, blob(), None, memory=memory * MIB)
    assert asked == [most]
