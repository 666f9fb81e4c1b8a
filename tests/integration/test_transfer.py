"""Bytes on the wire: sizes around a part's, lost answers, and a layer far larger than the memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from bench.calls import recorded
from local.invocation import Invocation, put_event
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.errors import AccessDenied, DigestMismatch, OutOfTime, ServiceUnavailable
from tests.conftest import ROOT, Load, sqs_message, wait_until
from tests.doubles.ecr import CREATION_TEMPLATE, EcrDouble
from tests.doubles.function import Function
from tests.doubles.s3 import Bytes, Content, Pattern, S3Double, Stored
from tests.doubles.server import Fault

PART = 10_485_760
MIB = 1024 * 1024
GIB = 1024 * MIB


def event(key: str, size: int, **more: Any) -> dict[str, Any]:
    return put_event(key, size, "0123456789abcdef0123456789abcdef", **more)


@pytest.fixture
def load(doubled: dict[str, str], load_handler: Load) -> Load:
    return lambda **more: load_handler(doubled, **more)


@pytest.fixture
def handler(load: Load) -> Any:
    return load()


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 25 * MIB + 3])
@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_blobs_arrive_byte_for_byte_in_as_few_parts_as_possible(
    size: int, known: bool, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(size, seed=size)
    key = f"app/{content.digest}" if known else f"app/blob-{size}"
    s3_double.objects[key] = Stored(content)

    [result] = handler.lambda_handler(event(key, size), context)["results"]

    assert (result["action"], result["digest"], result["size"]) == ("uploaded", content.digest, size)
    assert strict_ecr.spans == [(first, min(first + PART, size) - 1) for first in range(0, size, PART)]
    assert len(strict_ecr.spans) == -(-size // PART)
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, size)
    assert strict_ecr.operations.count("BatchCheckLayerAvailability") == (1 if known else 0)
    # Every byte is read once, in ranges pinned to the event's object. The order varies, as reads run ahead.
    assert sorted(read.range or () for read in s3_double.reads) == strict_ecr.spans
    assert {read.if_match for read in s3_double.reads} == {'"0123456789abcdef0123456789abcdef"'}


def test_a_versioned_object_is_read_by_its_version(handler: Function, s3_double: S3Double, context: Invocation) -> None:
    s3_double.objects["app/versioned"] = Stored(Bytes(b"versioned"), version_id="v7")

    handler.lambda_handler(event("app/versioned", 9, versionId="v7"), context)

    assert {(read.version_id, read.if_match) for read in s3_double.reads} == {("v7", None)}


def test_every_call_names_the_configured_registry(
    load: Load, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    handler = load(ECR_REGISTRY_ID="123456789012", CREATE_REPOSITORIES="true")
    content = Pattern(9)
    key = f"team/new/{content.digest}"
    s3_double.objects[key] = Stored(content)

    strict_ecr.creation_templates = [CREATION_TEMPLATE]

    handler.lambda_handler(event(key, 9), context)

    # ECR has no way to ask for another registry's templates.
    calls = [call for call in strict_ecr.calls if call.operation != "DescribeRepositoryCreationTemplates"]
    assert {call.operation for call in calls} == {
        "BatchCheckLayerAvailability", "CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy",
        "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload",
    }  # fmt: skip
    assert {call.members.get("registryId") for call in calls} == {"123456789012"}


def test_a_digest_is_verified_in_a_new_repository_too(
    load: Load, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    handler = load(CREATE_REPOSITORIES="true")
    key = "team/made/sha256:" + "0" * 64
    s3_double.objects[key] = Stored(Bytes(b"other bytes"))

    with pytest.raises(DigestMismatch):
        handler.lambda_handler(event(key, 11), context)
    assert strict_ecr.repositories["team/made"].layers == {}


def test_a_new_repository_that_ecr_does_not_find_yet_is_retried(
    load: Load, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    handler = load(CREATE_REPOSITORIES="true")
    s3_double.objects["team/slow/layer"] = Stored(Bytes(b"layer"))
    strict_ecr.faults.add("InitiateLayerUpload", Fault("RepositoryNotFoundException"), nth=2)

    with pytest.raises(ServiceUnavailable, match="team/slow"):
        handler.lambda_handler(event("team/slow/layer", 5), context)
    assert handler.lambda_handler(event("team/slow/layer", 5), context)["results"][0]["action"] == "uploaded"


@pytest.mark.parametrize("missing_as", ["failure", "unavailable", "archived"])
def test_a_known_layer_that_is_not_available_is_uploaded(
    missing_as: Any, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(11)
    key = f"app/{content.digest}"
    s3_double.objects[key] = Stored(content)
    strict_ecr.missing_as = missing_as
    if missing_as == "archived":
        strict_ecr.repositories["app"].archived.add(content.digest)
        strict_ecr.repositories["app"].layers[content.digest] = content.slice(0, 11)  # Complete says that it exists

    [result] = handler.lambda_handler(event(key, 11), context)["results"]

    assert (result["action"], result["digest"]) == ("uploaded", content.digest)
    assert strict_ecr.operations == [
        "BatchCheckLayerAvailability", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload",
    ]  # fmt: skip


def test_a_known_layer_that_ecr_has_costs_one_call(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(11)
    strict_ecr.repositories["app"].layers[content.digest] = content.slice(0, 11)
    calls = recorded(handler.clients)

    [result] = handler.lambda_handler(event(f"app/{content.digest}", 11), context)["results"]

    assert (result["action"], result["reason"]) == ("skipped", "ECR has the layer")
    assert calls == ["ecr:BatchCheckLayerAvailability"]
    assert s3_double.reads == []


@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_a_small_blob_costs_as_few_calls_as_possible(
    known: bool, handler: Function, s3_double: S3Double, context: Invocation
) -> None:
    content = Pattern(2000)
    key = f"app/{content.digest if known else 'config.json'}"
    s3_double.objects[key] = Stored(content)
    calls = recorded(handler.clients)

    handler.lambda_handler(event(key, 2000), context)

    check = ["ecr:BatchCheckLayerAvailability"] if known else []
    first = ["ecr:InitiateLayerUpload", "s3:GetObject"]
    upload = ["ecr:UploadLayerPart", "ecr:CompleteLayerUpload"]
    # What an object of an unknown digest is, its first bytes tell, before the upload begins.
    remembered = [*first, *upload] if known else ["dynamodb:PutItem", *first[::-1], *upload, "dynamodb:UpdateItem"]
    leased = ["dynamodb:UpdateItem", *remembered, "dynamodb:UpdateItem"]
    assert calls == check + leased
    calls.clear()
    handler.lambda_handler(event(key, 2000), context)
    assert calls == (
        check or ["dynamodb:UpdateItem", "dynamodb:PutItem", "ecr:BatchCheckLayerAvailability", "dynamodb:UpdateItem"]
    )


def test_a_known_layer_that_ecr_has_cleaned_up_is_uploaded_again(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(11)
    key = f"app/{content.digest}"
    s3_double.objects[key] = Stored(content)
    handler.lambda_handler(event(key, 11), context)
    strict_ecr.repositories["app"].layers.clear()

    [result] = handler.lambda_handler(event(key, 11), context)["results"]

    assert result["action"] == "uploaded"
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, 11)


def test_the_queues_client_is_made_only_for_messages_that_fail(
    handler: Function, s3_double: S3Double, context: Invocation
) -> None:
    s3_double.objects["app/good"] = Stored(Bytes(b"good"))
    good, bad = (sqs_message(json.dumps(event(key, 4))) for key in ("app/good", "app/gone"))

    assert handler.lambda_handler({"Records": [good]}, context) == {"batchItemFailures": []}
    assert "sqs" not in vars(handler.clients)
    handler.lambda_handler({"Records": [bad]}, context)
    assert "sqs" in vars(handler.clients)


def test_a_layer_that_ecr_has_archived_is_not_sent_again_by_a_repeat(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(11)
    s3_double.objects["app/archived"] = Stored(content)
    handler.lambda_handler(event("app/archived", 11), context)
    strict_ecr.repositories["app"].archived.add(content.digest)

    [result] = handler.lambda_handler(event("app/archived", 11), context)["results"]

    assert result["action"] == "skipped"
    assert len(strict_ecr.spans) == 1


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("InitiateLayerUpload", Fault()),
        ("InitiateLayerUpload", Fault(after=True)),
        ("UploadLayerPart", Fault()),
        ("UploadLayerPart", Fault(after=True)),
        ("UploadLayerPart", Fault("ServerException", 500)),
        ("UploadLayerPart", Fault("ServerException", 500, after=True)),
        ("UploadLayerPart", Fault("ThrottlingException")),
        ("UploadLayerPart", Fault("UploadNotFoundException")),
        ("CompleteLayerUpload", Fault()),
        ("CompleteLayerUpload", Fault(after=True)),
        ("CompleteLayerUpload", Fault("ServerException", 500, after=True)),
        ("CompleteLayerUpload", Fault("UploadNotFoundException")),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_a_layer_survives_any_single_fault_of_ecr(
    operation: str, fault: Fault, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(3500)
    key = f"app/{operation}-{fault.code}-{fault.after}"
    s3_double.objects[key] = Stored(content)
    strict_ecr.faults.add(operation, fault, nth=2 if operation == "UploadLayerPart" else 1)

    [result] = handler.lambda_handler(event(key, 3500), context)["results"]

    assert (result["action"], result["digest"]) == ("uploaded", content.digest)
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, 3500)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("GetObject", Fault()),
        ("GetObject", Fault("SlowDown", 503)),
        ("GetObject", Fault("InternalError", 500)),
        ("BreakBody", Fault()),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_a_layer_survives_any_single_fault_of_s3(
    operation: str, fault: Fault, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Pattern(3500)
    key = f"app/{operation}-{fault.code}"
    s3_double.objects[key] = Stored(content)
    s3_double.faults.add(operation, fault, nth=2)

    [result] = handler.lambda_handler(event(key, 3500), context)["results"]

    assert result["digest"] == content.digest
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, 3500)
    assert len(strict_ecr.spans) == 4


@pytest.mark.usefixtures("small_parts")
def test_the_next_parts_are_read_while_one_is_sent(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Pattern(9500)
    s3_double.objects["app/ahead"] = Stored(content)
    reads: list[int] = []

    upload_part = Registry.upload_part

    def slow(*arguments: Any) -> Any:
        wait_until(lambda: len(s3_double.reads) >= min(len(reads) + 3, 10))
        reads.append(len(s3_double.reads))
        return upload_part(*arguments)

    monkeypatch.setattr(Registry, "upload_part", slow)
    handler.lambda_handler(event("app/ahead", 9500), context)

    assert reads == [3, 4, 5, 6, 7, 8, 9, 10, 10, 10]  # two ahead, and no more
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, 9500)


@pytest.mark.usefixtures("small_parts")
def test_a_layer_that_fails_halfway_leaves_nothing_running(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    s3_double.objects["app/denied"] = Stored(Pattern(1_000_000))
    strict_ecr.faults.add("UploadLayerPart", Fault("AccessDeniedException"), nth=2)

    with pytest.raises(AccessDenied):
        handler.lambda_handler(event("app/denied", 1_000_000), context)

    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")] == []
    assert len(s3_double.reads) <= 5


class Hanging(Pattern):
    """Content of which S3 sends only the first part until `may_continue` is set."""

    may_continue = threading.Event()

    def slice(self, first: int, end: int) -> bytes:
        if first >= 1000:
            assert self.may_continue.wait(30)
        return super().slice(first, end)


@pytest.mark.usefixtures("small_parts")
def test_an_invocation_does_not_wait_for_s3_past_its_end(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, context: Invocation
) -> None:
    content = Hanging(9500)
    s3_double.objects["app/hanging"] = Stored(content)
    invocation = Invocation(3.5)

    with pytest.raises(OutOfTime, match="S3 has not sent the next part"):
        handler.lambda_handler(event("app/hanging", 9500), invocation)
    assert invocation.get_remaining_time_in_millis() > 1000

    # Reads that still wait for S3 do not disturb the next invocation, and end.
    content.may_continue.set()
    [result] = handler.lambda_handler(event("app/hanging", 9500), context)["results"]
    assert result["digest"] == content.digest
    assert strict_ecr.spans == [(first, min(first + 1000, 9500) - 1) for first in range(0, 9500, 1000)]
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")])


PROBE = """
import json, os, sys
from local.invocation import Invocation
import handler
written = []
def watch(name, arguments):
    if name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.append(str(arguments[0]))
sys.addaudithook(watch)
print(json.dumps(handler.lambda_handler(json.load(sys.stdin), Invocation())["results"][0]))
# VmHWM, not ru_maxrss, which counts the parent's memory before exec, too.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
print(json.dumps(written))
"""


def probe(environment: dict[str, str], notification: dict[str, Any]) -> tuple[dict[str, Any], int, list[str]]:
    """Runs the handler in its own process. Returns its result, peak memory in bytes, and the files that it wrote."""
    # Without the allocator's settings of `make test`, which Lambda does not have.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env=ours
        | environment
        | {
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "POWERTOOLS_LOG_LEVEL": "WARNING",
            "POWERTOOLS_METRICS_DISABLED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        input=json.dumps(notification),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    result, peak_kib, written = done.stdout.splitlines()
    return json.loads(result), int(peak_kib) * 1024, json.loads(written)


def test_a_2_gib_object_is_uploaded_with_less_than_160_mb_of_memory(
    doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.keep_content = False
    content = Pattern(2 * GIB)
    s3_double.objects["app/large"] = Stored(content)

    result, peak, written = probe(doubled, event("app/large", 2 * GIB))

    assert result["digest"] == content.digest
    assert content.digest in strict_ecr.repositories["app"].layers
    assert len(strict_ecr.spans) == -(-2 * GIB // PART)
    assert peak < 160_000_000
    assert written == []


@dataclass(frozen=True)
class Joined:
    """Several contents, one after the other."""

    parts: tuple[Content, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def slice(self, first: int, end: int) -> bytes:
        pieces, start = [], 0
        for part in self.parts:
            length = len(part)
            pieces.append(part.slice(min(max(first - start, 0), length), min(max(end - start, 0), length)))
            start += length
        return b"".join(pieces)


def saved_image(layer: Pattern) -> Joined:
    """The archive that `docker save` makes of an image with this layer."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [layer.digest]}}).encode()
    description = json.dumps([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()
    parts: list[Content] = []
    members: dict[str, Content] = {
        "config.json": Bytes(config), "layer.tar": layer, "manifest.json": Bytes(description)
    }  # fmt: skip
    for name, content in members.items():
        header = tarfile.TarInfo(name)
        header.size = len(content)
        parts += [Bytes(header.tobuf()), content, Bytes(bytes(-len(content) % 512))]
    return Joined((*parts, Bytes(bytes(1024))))


def test_a_1_gib_layer_in_an_archive_needs_no_more_memory_than_a_bare_one_and_no_file(
    doubled: dict[str, str], s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.keep_content = False
    layer = Pattern(GIB + 7)
    content = saved_image(layer)
    s3_double.objects["app/image.tar"] = Stored(content, version_id="null")

    result, peak, written = probe(doubled, event("app/image.tar", len(content)))

    assert (result["action"], result["images"][0]["tags"]) == ("pushed", ["1"])
    assert layer.digest in strict_ecr.repositories["app"].layers
    assert peak < 160_000_000
    assert written == []
    # The archive was read once: headers by the window, the layer by parts.
    bytes_read = sum(last - first + 1 for first, last in (read.range for read in s3_double.reads if read.range))
    assert bytes_read < len(content) + 1_000_000


def test_a_pattern_has_the_digest_of_its_bytes() -> None:
    content = Pattern(3 * MIB + 1)

    assert content.digest == f"sha256:{hashlib.sha256(content.slice(0, len(content))).hexdigest()}"
    assert content.slice(MIB, 2 * MIB) == content.slice(0, 3 * MIB)[MIB : 2 * MIB]
