from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from unittest.mock import ANY

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from local.invocation import Invocation
from s3_to_ecr.deadline import RESERVE_SECONDS
from s3_to_ecr.ecr.api import ImagesFound, LayerUpload, PartReceipt, Registry
from s3_to_ecr.ecr.layer_part import LayerPart
from s3_to_ecr.errors import (
    AccessDenied,
    DigestMismatch,
    OutOfTime,
    RepositoryMissing,
    RequestRefused,
    S3ToEcrError,
    ServiceUnavailable,
    UploadLost,
)
from s3_to_ecr.media_types import MANIFEST_TYPES
from tests.doubles.ecr import EcrDouble
from tests.doubles.invocation import DEADLINE, Hourglass, deadline_of
from tests.doubles.server import Fault

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

UPLOAD = LayerUpload("app", "00000000-0000-4000-8000-000000000000", 4)
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("RepositoryNotFoundException"), RepositoryMissing),
        (Fault("UploadNotFoundException"), UploadLost),
        (Fault("InvalidLayerException"), DigestMismatch),
        (Fault("EmptyUploadException"), UploadLost),
        (Fault("LayerPartTooSmallException"), UploadLost),
        (Fault("InvalidParameterException"), RequestRefused),
        (Fault("KmsException"), AccessDenied),
        (Fault("AccessDeniedException"), AccessDenied),
        (Fault("ThrottlingException"), ServiceUnavailable),
        (Fault("LimitExceededException"), ServiceUnavailable),
        (Fault("ServerException", status=500), ServiceUnavailable),
        (Fault("ExpiredTokenException"), ServiceUnavailable),
        (Fault("SomethingNewException"), ServiceUnavailable),
        (Fault(), ServiceUnavailable),
    ],
)
def test_every_error_code_maps_to_its_exception(
    ecr: EcrDouble, ecr_client: ECRClient, fault: Fault, error: type[S3ToEcrError]
) -> None:
    ecr.faults.add("CompleteLayerUpload", fault, times=2)

    with pytest.raises(error, match=r"^CompleteLayerUpload for ECR repository app failed"):
        Registry(ecr_client, DEADLINE).complete(UPLOAD, DIGEST, deadline_of(Invocation()))


def test_the_sdk_retries_a_throttled_call(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    ecr.faults.add("InitiateLayerUpload", Fault("ThrottlingException"))

    assert Registry(ecr_client, DEADLINE).initiate("app").part_size == 4


def test_an_invalid_parameter_is_refused_before_the_call(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    with pytest.raises(RequestRefused, match="repositoryName"):
        Registry(ecr_client, DEADLINE).initiate("x")
    assert ecr.calls == []


@pytest.mark.parametrize("missing_as", ["failure", "unavailable"])
def test_a_layer_is_available_archived_or_unavailable(
    ecr: EcrDouble, ecr_client: ECRClient, missing_as: Literal["failure", "unavailable"]
) -> None:
    registry = Registry(ecr_client, DEADLINE)
    ecr.missing_as = missing_as

    assert registry.layer_availability("app", [DIGEST]) == {DIGEST: "UNAVAILABLE"}
    ecr.repositories["app"].layers[DIGEST] = b"layer"
    assert registry.layer_availability("app", [DIGEST]) == {DIGEST: "AVAILABLE"}
    ecr.repositories["app"].archived.add(DIGEST)
    assert registry.layer_availability("app", [DIGEST]) == {DIGEST: "ARCHIVED"}


def test_layers_are_looked_up_in_batches_of_a_hundred(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    digests = [f"sha256:{number:064}" for number in range(201)]
    ecr.repositories["app"].layers[digests[150]] = b"layer"

    found = Registry(ecr_client, DEADLINE).layer_availability("app", digests)

    assert [digest for digest, availability in found.items() if availability == "AVAILABLE"] == [digests[150]]
    assert len(found) == 201
    assert [len(call.members["layerDigests"]) for call in ecr.calls] == [100, 100, 1]
    assert Registry(ecr_client, DEADLINE).layer_availability("app", []) == {}
    assert len(ecr.calls) == 3


@pytest.mark.parametrize("what", ["layers", "images"])
def test_looking_for_many_stops_at_the_deadline(what: str, ecr: EcrDouble, ecr_client: ECRClient) -> None:
    invocation = Hourglass(2.5)
    ecr_client.meta.events.register("after-call.ecr.*", lambda **_: invocation.pass_by(0.4))
    registry = Registry(ecr_client, deadline_of(invocation))
    digests = [f"sha256:{number:064}" for number in range(1000)]

    look_up: Any = {"layers": registry.layer_availability, "images": registry.images}[what]

    with pytest.raises(OutOfTime, match=f"the next {what}"):
        look_up("app", digests)

    assert len(ecr.calls) == 2


CONTENT = b'{"schemaVersion":2}'
DIGEST_OF_CONTENT = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MANIFEST = (DIGEST_OF_CONTENT, "x/y", CONTENT)


def test_images_are_looked_up_by_digest_and_tag_in_batches_whose_manifests_fit_into_memory(
    ecr: EcrDouble, ecr_client: ECRClient
) -> None:
    registry = Registry(ecr_client, DEADLINE, "123456789012")
    registry.put_image("app", *MANIFEST, "1.0")
    ecr.calls.clear()

    found = registry.images("app", [f"sha256:{number:064}" for number in range(19)] + [DIGEST_OF_CONTENT], ["1.0", "2"])

    assert found == ImagesFound(frozenset({DIGEST_OF_CONTENT}), {"1.0": DIGEST_OF_CONTENT})
    assert [len(call.members["imageIds"]) for call in ecr.calls] == [10, 10, 2]
    assert {call.members["registryId"] for call in ecr.calls} == {"123456789012"}


@pytest.mark.parametrize("media_type", sorted(MANIFEST_TYPES))
def test_a_tag_is_looked_up_without_converting_its_image(
    ecr: EcrDouble, ecr_client: ECRClient, media_type: str
) -> None:
    ecr.converts_by_tag = True
    registry = Registry(ecr_client, DEADLINE)
    registry.put_image("app", DIGEST_OF_CONTENT, media_type, CONTENT, "1.0")

    assert registry.images("app", [], ["1.0"]).named == {"1.0": DIGEST_OF_CONTENT}
    assert media_type in ecr.calls[-1].members["acceptedMediaTypes"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("KmsError", AccessDenied),
        ("UpstreamAccessDenied", AccessDenied),
        ("UpstreamTooManyRequests", ServiceUnavailable),
        ("UpstreamUnavailable", ServiceUnavailable),
        ("InvalidImageTag", RequestRefused),
        ("SomethingNew", ServiceUnavailable),
    ],
)
def test_an_image_that_cannot_be_read_is_not_reported_as_missing(
    ecr: EcrDouble, ecr_client: ECRClient, code: str, error: type[S3ToEcrError]
) -> None:
    ecr.faults.add("ImageFailure", Fault(code), nth=2)

    with pytest.raises(error, match=rf"^BatchGetImage for 1\.0 in ECR repository app failed with {code}: a reason"):
        Registry(ecr_client, DEADLINE).images("app", [DIGEST], ["1.0"])


def test_an_archived_image_is_missing_and_yet_its_tag_is_taken(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    registry = Registry(ecr_client, DEADLINE)
    registry.put_image("app", *MANIFEST, "1.0")
    ecr.repositories["app"].archived.add(DIGEST_OF_CONTENT)

    assert registry.images("app", [DIGEST_OF_CONTENT], ["1.0", "2"]) == ImagesFound(frozenset(), {"1.0": None})

    registry.put_image("app", *MANIFEST)
    assert registry.images("app", [], ["1.0"]).named == {"1.0": DIGEST_OF_CONTENT}


def test_an_image_is_put_with_its_bytes_media_type_digest_and_tag(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    Registry(ecr_client, DEADLINE, "123456789012").put_image("app", *MANIFEST, "1.0")
    Registry(ecr_client, DEADLINE).put_image("app", *MANIFEST)

    assert [call.members for call in ecr.calls] == [
        {"repositoryName": "app", "imageManifest": '{"schemaVersion":2}', "imageManifestMediaType": "x/y",
         "imageDigest": DIGEST_OF_CONTENT, "imageTag": "1.0", "registryId": "123456789012"},
        {"repositoryName": "app", "imageManifest": '{"schemaVersion":2}', "imageManifestMediaType": "x/y",
         "imageDigest": DIGEST_OF_CONTENT},
    ]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A sent request, with header names in lower case."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class Wire:
    """Intercepts a client's requests, and answers that the whole part has arrived."""

    def __init__(self, client: ECRClient) -> None:
        self.requests: list[Sent] = []
        client.meta.events.register("before-send.ecr", cast("Any", self._take))

    def _take(self, request: Any, **_: object) -> AWSResponse:
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        self.requests.append(Sent(request.method, request.url, headers, bytes(request.body)))
        [last_byte] = re.findall(rb'"partLastByte": (\d+)', request.body)
        answer = json.dumps({"lastByteReceived": int(last_byte)})
        return AWSResponse("", 200, HTTPHeaders(), cast("Any", _Raw(answer)))


class _Raw:
    """A body as botocore expects it from urllib3."""

    def __init__(self, text: str) -> None:
        self._body = text.encode()

    def stream(self) -> Iterator[bytes]:
        yield self._body


def written(registry: Registry, upload: LayerUpload, first_byte: int, body: bytes, chunk: int = 7) -> LayerPart:
    part = registry.part(upload, first_byte, len(body))
    for position in range(0, len(body), chunk):
        part.write(body[position : position + chunk])
    return part


@given(
    first_byte=st.integers(0, 52_000 * 1024 * 1024),
    chunks=st.lists(st.binary(max_size=50), max_size=9).filter(any),
    registry_id=st.sampled_from([None, "123456789012"]),
)
def test_a_part_is_serialised_and_signed_as_by_botocore(
    first_byte: int, chunks: list[bytes], registry_id: str | None
) -> None:
    lean, plain = CLIENTS
    registry, body = Registry(lean.client, DEADLINE, registry_id), b"".join(chunks)
    part = registry.part(UPLOAD, first_byte, len(body))
    for chunk in chunks:
        part.write(chunk)

    receipt = registry.upload_part(UPLOAD, part)
    plain.client.upload_layer_part(
        **{"registryId": registry_id} if registry_id else {},
        repositoryName=UPLOAD.repository,
        uploadId=UPLOAD.upload_id,
        partFirstByte=first_byte,
        partLastByte=first_byte + len(body) - 1,
        layerPartBlob=body,
    )

    ours, theirs = lean.wire.requests.pop(), plain.wire.requests.pop()
    assert receipt == PartReceipt(first_byte + len(body) - 1, 0)
    assert ours.body == theirs.body
    assert (ours.method, ours.url) == (theirs.method, theirs.url)
    changing = {"authorization": ANY, "x-amz-date": ANY, "amz-sdk-invocation-id": ANY, "user-agent": ANY}
    body_hash = {"x-amz-content-sha256": hashlib.sha256(theirs.body).hexdigest()}
    assert ours.headers == {**theirs.headers, **body_hash, **changing}
    assert_is_signed(ours)
    assert_is_signed(theirs)


class Recorded:
    """A client whose requests are recorded."""

    def __init__(self) -> None:
        # In Lambda, credentials come with a token.
        session = boto3.Session("test", "test", "token", region_name="eu-central-1")
        self.client = session.client("ecr")
        self.wire = Wire(self.client)


CLIENTS = Recorded(), Recorded()


def assert_is_signed(request: Sent) -> None:
    """Checks that botocore's signer computes the same SigV4 signature for the request and its whole body."""
    algorithm, credential, signed, signature = request.headers["authorization"].replace(", ", " ").split(" ")
    names = signed.removeprefix("SignedHeaders=").split(";")
    assert algorithm == "AWS4-HMAC-SHA256"
    assert credential.endswith("/eu-central-1/ecr/aws4_request")
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token", "x-amz-target"} <= set(names)

    again = AWSRequest(request.method, request.url, data=request.body)
    for name in names:
        # The body's hash is computed again: a wrong hash in the header would not match the signature.
        if name not in ("host", "x-amz-content-sha256"):
            again.headers[name] = request.headers[name]
    if "x-amz-content-sha256" in names:
        again.headers["X-Amz-Content-SHA256"] = hashlib.sha256(request.body).hexdigest()
    again.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("test", "test"), "ecr", "eu-central-1")
    canonical = signer.canonical_request(again)
    assert signature == f"Signature={signer.signature(signer.string_to_sign(again, canonical), again)}"


@pytest.mark.parametrize("size", [1, 2, 3, 5_242_880, 10_485_759, 10_485_760, 10_485_761, 20_971_520])
def test_a_part_of_any_size_arrives_unchanged(size: int) -> None:
    client = boto3.client("ecr")
    wire, registry = Wire(client), Registry(client, DEADLINE)
    body = (b"0123456789" * (size // 10 + 1))[:size]

    registry.upload_part(UPLOAD, written(registry, UPLOAD, 7, body, chunk=100_000))

    [request] = wire.requests
    start, end = request.body.index(b'"layerPartBlob": "') + len('"layerPartBlob": "'), -len('"}')
    assert json.loads(request.body[:start] + request.body[end:])["layerPartBlob"] == ""
    assert base64.b64decode(memoryview(request.body)[start:end], validate=True) == body
    assert request.headers["content-length"] == str(len(request.body))


def test_the_memory_of_a_used_part_is_reused_for_any_size(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    registry = Registry(ecr_client, DEADLINE)
    ecr.part_size = 4
    upload = registry.initiate("app")
    used: LayerPart | None = None
    for first, body in [(0, b"0123"), (4, b"4567"), (8, b"a longer part"), (21, b"89"), (23, b"last")]:
        part = registry.part(upload, first, len(body), used)
        assert used is None or part.body is used.body
        part.write(body)
        assert registry.upload_part(upload, part).last_byte == first + len(body) - 1
        used = part

    assert ecr.uploads[upload.upload_id].content == b"01234567a longer part89last"


def test_memory_that_is_still_referenced_is_not_reused(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    registry = Registry(ecr_client, DEADLINE)
    upload = registry.initiate("app")
    used = written(registry, upload, 0, b"0123")
    assert registry.upload_part(upload, used).last_byte == 3

    with memoryview(used.body):
        part = registry.part(upload, 4, 5, used)
    part.write(b"45678")

    assert registry.upload_part(upload, part).last_byte == 8
    assert ecr.uploads[upload.upload_id].content == b"012345678"


@pytest.mark.parametrize("body", [b"", b"012", b"01234", b"0123456"])
def test_a_part_of_the_wrong_length_is_not_sent(ecr: EcrDouble, ecr_client: ECRClient, body: bytes) -> None:
    registry = Registry(ecr_client, DEADLINE)
    part = registry.part(UPLOAD, 0, 4)

    with pytest.raises(ValueError):  # noqa: PT011 (an internal message)
        write_and_send(registry, part, body)
    assert ecr.calls == []


def write_and_send(registry: Registry, part: LayerPart, body: bytes) -> None:
    part.write(body)
    registry.upload_part(UPLOAD, part)


@pytest.mark.parametrize(
    ("upload", "first_byte", "member"),
    [
        (LayerUpload("x", "id", 4), 0, "repositoryName"),
        (LayerUpload("app", "id", 4), -1, "partFirstByte"),
        (LayerUpload("app", None, 4), 0, "uploadId"),  # type: ignore[arg-type]
    ],
)
def test_a_parts_members_are_checked_against_the_service_model(
    ecr: EcrDouble, ecr_client: ECRClient, upload: LayerUpload, first_byte: int, member: str
) -> None:
    registry = Registry(ecr_client, DEADLINE)

    with pytest.raises(RequestRefused, match=member):
        registry.upload_part(upload, written(registry, upload, first_byte, b"0123"))
    assert ecr.calls == []


def test_the_sdk_resends_the_same_part(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    registry = Registry(ecr_client, DEADLINE)
    upload = registry.initiate("app")
    ecr.faults.add("UploadLayerPart", Fault("ServerException", status=500))

    assert registry.upload_part(upload, written(registry, upload, 0, b"0123")) == PartReceipt(3, resends=1)
    assert ecr.uploads[upload.upload_id].content == b"0123"


def _meet(meeting: threading.Barrier) -> None:
    meeting.wait(10)


def test_layers_are_uploaded_in_parallel(strict_ecr: EcrDouble) -> None:
    strict_ecr.part_size = strict_ecr.min_part_bytes = 1000
    client = boto3.client("ecr", endpoint_url=strict_ecr.url)
    registry = Registry(client, DEADLINE)
    layers = [bytes([number]) * 20_000 for number in range(8)]
    # All threads must meet here, so that every part is set aside before any is sent.
    meeting = threading.Barrier(len(layers))
    client.meta.events.register_first("before-call.ecr.UploadLayerPart", lambda **_: _meet(meeting))
    digests: list[Any] = [None] * len(layers)

    def put(number: int) -> None:
        upload = registry.initiate("app")
        for first in range(0, 20_000, 1000):
            part = written(registry, upload, first, layers[number][first : first + 1000])
            assert registry.upload_part(upload, part).last_byte == first + 999
        digest = f"sha256:{hashlib.sha256(layers[number]).hexdigest()}"
        digests[number] = registry.complete(upload, digest, deadline_of(Invocation()))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()

    assert [strict_ecr.content_of("app", digest) for digest in digests] == layers


@pytest.fixture
def completing(strict_ecr: EcrDouble) -> Iterator[Callable[[Invocation], Any]]:
    """Completes an upload, through a client that waits 1 s for the answers to its other calls."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 2}, read_timeout=1)
    client = boto3.client("ecr", endpoint_url=strict_ecr.url, config=config)
    registry = Registry(client, DEADLINE)

    def complete(invocation: Invocation) -> str | None:
        upload = registry.initiate("app")
        registry.upload_part(upload, written(registry, upload, 0, CONTENT))
        return registry.complete(upload, DIGEST_OF_CONTENT, deadline_of(invocation))

    yield complete
    client.close()


def test_completing_a_layer_may_take_longer_than_other_calls(
    strict_ecr: EcrDouble, completing: Callable[[Invocation], Any]
) -> None:
    strict_ecr.complete_seconds = 1.3

    assert completing(Invocation()) == DIGEST_OF_CONTENT
    assert strict_ecr.operations.count("CompleteLayerUpload") == 1


def test_completing_a_layer_ends_before_the_invocation(
    strict_ecr: EcrDouble, completing: Callable[[Invocation], Any]
) -> None:
    ended, invocation = threading.Event(), Invocation(seconds=RESERVE_SECONDS + 1)
    strict_ecr.complete_seconds, strict_ecr.sleep = 60, ended.wait

    with pytest.raises(OutOfTime, match="completing the layer"):
        completing(invocation)
    ended.set()
    assert strict_ecr.operations.count("CompleteLayerUpload") == 1
    assert invocation.get_remaining_time_in_millis() > 0
