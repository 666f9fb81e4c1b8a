"""The rules of the ECR double, which the other tests rely on."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from s3_to_ecr.media_types import OCI_MANIFEST
from tests.doubles.ecr import LIFECYCLE_POLICY, MAX_PART_BYTES, REFUSED_ARTIFACT, REPOSITORY_POLICY, EcrDouble
from tests.doubles.server import Fault

BODY = b"01234567"
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def upload(ecr: EcrDouble) -> str:
    return str(succeed(ecr, "InitiateLayerUpload")["uploadId"])


def call(ecr: EcrDouble, operation: str, **members: Any) -> tuple[int, dict[str, Any]]:
    answered = ecr.answer(operation, {"repositoryName": "app", **members})
    assert answered
    return answered


def succeed(ecr: EcrDouble, operation: str, **members: Any) -> dict[str, Any]:
    status, answer = call(ecr, operation, **members)
    assert status == 200, answer
    return answer


def refused(ecr: EcrDouble, operation: str, **members: Any) -> str:
    status, answer = call(ecr, operation, **members)
    assert status == 400
    return str(answer["__type"])


def part(upload: str, first: int, body: bytes, last: int | None = None) -> dict[str, Any]:
    last = first + len(body) - 1 if last is None else last
    blob = base64.b64encode(body).decode()
    return {"uploadId": upload, "partFirstByte": first, "partLastByte": last, "layerPartBlob": blob}


def test_a_repository_has_only_settings_that_go_together(ecr: EcrDouble) -> None:
    for settings, code in (
        ({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}, "InvalidParameterException"),
        ({"encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": ""}}, "InvalidParameterException"),
        ({"tags": [{"Key": "aws:x", "Value": ""}]}, "InvalidTagParameterException"),
        ({"tags": [{"Key": str(number), "Value": ""} for number in range(51)]}, "TooManyTagsException"),
    ):
        assert refused(ecr, "CreateRepository", repositoryName="new", **settings) == code
    assert refused(ecr, "CreateRepository") == "RepositoryAlreadyExistsException"
    assert list(ecr.repositories) == ["app"]


def test_a_repository_has_policies_after_they_are_set(ecr: EcrDouble) -> None:
    assert refused(ecr, "GetLifecyclePolicy") == "LifecyclePolicyNotFoundException"
    assert refused(ecr, "PutLifecyclePolicy", lifecyclePolicyText="{}") == "InvalidParameterException"
    succeed(ecr, "PutLifecyclePolicy", lifecyclePolicyText=LIFECYCLE_POLICY)
    assert succeed(ecr, "GetLifecyclePolicy") == {"lifecyclePolicyText": LIFECYCLE_POLICY}

    assert refused(ecr, "GetRepositoryPolicy") == "RepositoryPolicyNotFoundException"
    assert refused(ecr, "SetRepositoryPolicy", policyText="no JSON", force=True) == "InvalidParameterException"
    assert refused(ecr, "SetRepositoryPolicy", policyText=REPOSITORY_POLICY) == "InvalidParameterException"
    succeed(ecr, "SetRepositoryPolicy", policyText=REPOSITORY_POLICY, force=True)
    assert succeed(ecr, "GetRepositoryPolicy") == {"policyText": REPOSITORY_POLICY}


def test_a_part_begins_where_the_last_one_ended(ecr: EcrDouble, upload: str) -> None:
    succeed(ecr, "UploadLayerPart", **part(upload, 0, b"0123"))
    for first in (0, 3, 5, 8):
        status, answer = call(ecr, "UploadLayerPart", **part(upload, first, b"4567"))
        assert (status, answer["__type"], answer["lastValidByteReceived"]) == (400, "InvalidLayerPartException", 3)


def test_a_part_is_as_long_as_its_offsets_say(ecr: EcrDouble, upload: str) -> None:
    assert refused(ecr, "UploadLayerPart", **part(upload, 0, b"0123", last=4)) == "InvalidLayerPartException"
    assert refused(ecr, "UploadLayerPart", **part(upload, 0, b"0123", last=2)) == "InvalidLayerPartException"


def test_a_part_has_a_maximum_and_a_minimum_size(ecr: EcrDouble, upload: str) -> None:
    too_large = part(upload, 0, bytes(MAX_PART_BYTES + 1))
    assert refused(ecr, "UploadLayerPart", **too_large) == "InvalidParameterException"
    succeed(ecr, "UploadLayerPart", **part(upload, 0, b"012"))
    succeed(ecr, "UploadLayerPart", **part(upload, 3, b"34567"))
    completion = {"uploadId": upload, "layerDigests": [DIGEST]}
    assert refused(ecr, "CompleteLayerUpload", **completion) == "LayerPartTooSmallException"


def test_a_layer_has_the_digest_that_is_declared(ecr: EcrDouble, upload: str) -> None:
    succeed(ecr, "UploadLayerPart", **part(upload, 0, BODY))
    wrong = {"uploadId": upload, "layerDigests": ["sha256:" + "0" * 64]}
    assert refused(ecr, "CompleteLayerUpload", **wrong) == "InvalidLayerException"
    assert succeed(ecr, "CompleteLayerUpload", uploadId=upload, layerDigests=[DIGEST])["layerDigest"] == DIGEST


def test_a_layer_is_not_empty_and_exists_once(ecr: EcrDouble, upload: str) -> None:
    completion = {"uploadId": upload, "layerDigests": [DIGEST]}
    assert refused(ecr, "CompleteLayerUpload", **completion) == "EmptyUploadException"
    ecr.repositories["app"].layers[DIGEST] = BODY
    succeed(ecr, "UploadLayerPart", **part(upload, 0, BODY))
    assert refused(ecr, "CompleteLayerUpload", **completion) == "LayerAlreadyExistsException"


def test_an_upload_belongs_to_its_repository(ecr: EcrDouble, upload: str) -> None:
    ecr.create("other")
    foreign = part(upload, 0, BODY) | {"repositoryName": "other"}
    assert refused(ecr, "UploadLayerPart", **foreign) == "UploadNotFoundException"
    assert refused(ecr, "UploadLayerPart", **part(upload, 0, BODY) | {"repositoryName": "no"}) == (
        "RepositoryNotFoundException"
    )


@pytest.mark.parametrize(("receipts", "last_bytes"), [("part", [3, 7]), ("stale", [3, 3]), ("relative", [3, 3])])
def test_a_receipt_may_say_something_else_than_where_the_upload_stands(
    ecr: EcrDouble, upload: str, receipts: Any, last_bytes: list[int]
) -> None:
    ecr.receipts = receipts
    answers = [succeed(ecr, "UploadLayerPart", **part(upload, first, BODY[first : first + 4])) for first in (0, 4)]
    assert [answer["lastByteReceived"] for answer in answers] == last_bytes


@pytest.mark.parametrize(
    ("refusals", "message"),
    [
        ("expected first", "First byte of the layer part is 4 instead of 0"),
        ("sent first", "First byte of the layer part is 0 instead of 4"),
        ("nowhere", "The layer part is invalid"),
    ],
)
def test_a_refusal_may_tell_the_position_in_its_message_or_nowhere(
    ecr: EcrDouble, upload: str, refusals: Any, message: str
) -> None:
    ecr.refusals = refusals
    succeed(ecr, "UploadLayerPart", **part(upload, 0, b"0123"))
    _, answer = call(ecr, "UploadLayerPart", **part(upload, 0, b"0123"))
    assert answer == {"__type": "InvalidLayerPartException", "message": message, "uploadId": upload}


def test_while_a_layer_is_completed_its_upload_is_gone_and_the_layer_is_not_there_yet(
    ecr: EcrDouble, upload: str
) -> None:
    now = 0.0
    ecr.clock, ecr.sleep, ecr.complete_seconds = lambda: now, lambda _: None, 10
    succeed(ecr, "UploadLayerPart", **part(upload, 0, BODY))
    completion = {"uploadId": upload, "layerDigests": [DIGEST]}
    assert succeed(ecr, "CompleteLayerUpload", **completion)["layerDigest"] == DIGEST

    assert refused(ecr, "UploadLayerPart", **part(upload, 8, BODY)) == "UploadNotFoundException"
    for code in ("UploadNotFoundException", "InvalidLayerException", "LayerAlreadyExistsException"):
        ecr.while_completing = code
        assert refused(ecr, "CompleteLayerUpload", **completion) == code
    assert succeed(ecr, "BatchCheckLayerAvailability", layerDigests=[DIGEST])["layers"] == []
    now = 10
    [found] = succeed(ecr, "BatchCheckLayerAvailability", layerDigests=[DIGEST])["layers"]
    assert found["layerAvailability"] == "AVAILABLE"
    assert refused(ecr, "CompleteLayerUpload", **completion) == "UploadNotFoundException"


def test_the_answer_to_a_slow_completion_comes_when_the_layer_is_there(ecr: EcrDouble, upload: str) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    ecr.clock, ecr.sleep, ecr.complete_seconds = lambda: now, sleep, 10
    succeed(ecr, "UploadLayerPart", **part(upload, 0, BODY))
    succeed(ecr, "CompleteLayerUpload", uploadId=upload, layerDigests=[DIGEST])
    assert (now, ecr.content_of("app", DIGEST)) == (10, BODY)


def test_an_image_needs_its_layers_and_children_first(ecr: EcrDouble) -> None:
    config, layer = {"digest": "sha256:c"}, {"digest": DIGEST}
    schema = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    image = json.dumps(schema | {"config": config, "layers": [layer, {"digest": "elsewhere", "urls": ["http://x"]}]})
    digest = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    index = json.dumps(schema | {"manifests": [{"digest": digest}]})

    assert refused(ecr, "PutImage", imageManifest=image) == "LayersNotFoundException"
    assert refused(ecr, "PutImage", imageManifest=index) == "ReferencedImagesNotFoundException"
    ecr.repositories["app"].layers.update({DIGEST: BODY, "sha256:c": b"{}"})
    assert refused(ecr, "PutImage", imageManifest=image, imageDigest=DIGEST) == "ImageDigestDoesNotMatchException"
    succeed(ecr, "PutImage", imageManifest=image, imageDigest=digest)
    succeed(ecr, "PutImage", imageManifest=index, imageTag="latest")
    assert refused(ecr, "PutImage", imageManifest=image) == "ImageAlreadyExistsException"
    found = succeed(
        ecr, "BatchGetImage", imageIds=[{"imageTag": "latest"}, {"imageDigest": digest}, {"imageTag": "no"}]
    )
    assert [found_image["imageManifest"] for found_image in found["images"]] == [index, image]
    assert [failure["imageId"] for failure in found["failures"]] == [{"imageTag": "no"}]


def test_an_image_has_a_media_type_a_proper_tag_and_a_bounded_manifest(ecr: EcrDouble) -> None:
    index = "application/vnd.oci.image.index.v1+json"
    bad: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {}),
        ({"mediaType": f"{index}; charset=utf-8"}, {}),
        ({"mediaType": index}, {"imageTag": "a b"}),
        ({"mediaType": index, "x": "x" * 4_194_304}, {}),
        ({"schemaVersion": 1, "mediaType": index}, {}),
    ]
    for manifest, more in bad:
        document = json.dumps({"schemaVersion": 2, "manifests": []} | manifest)
        assert refused(ecr, "PutImage", imageManifest=document, **more) == "InvalidParameterException"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"layers": []}, "at least 1 layer"),
        ({"layers": [{"digest": DIGEST}] * 501}, "Limit on number of layers"),
        ({"artifactType": "application/x;version=1"}, "Invalid JSON syntax"),
        ({"layers": [{"digest": DIGEST, "mediaType": "application/x;version=1"}]}, "Invalid JSON syntax"),
        ({"config": {"digest": DIGEST, "annotations": {"a": "b"}}}, "Invalid JSON syntax"),
        ({"artifactType": REFUSED_ARTIFACT}, "Invalid JSON syntax"),
    ],
)
def test_what_public_reports_say_is_refused(ecr: EcrDouble, members: dict[str, Any], reason: str) -> None:
    ecr.repositories["app"].layers[DIGEST] = BODY
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST} | members)

    status, answer = call(ecr, "PutImage", imageManifest=manifest)
    assert (status, answer["__type"]) == (400, "InvalidParameterException")
    assert reason in answer["message"]
    ecr.known_refusals = False
    succeed(ecr, "PutImage", imageManifest=manifest)


def test_an_image_is_converted_by_tag_but_not_by_digest(ecr: EcrDouble) -> None:
    ecr.converts_by_tag = True
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST})
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    succeed(ecr, "PutImage", imageManifest=manifest, imageTag="1")

    def digests(*accepted: str) -> list[str]:
        more = {"acceptedMediaTypes": list(accepted)} if accepted else {}
        found = succeed(ecr, "BatchGetImage", imageIds=[{"imageTag": "1"}, {"imageDigest": digest}], **more)
        return [image["imageId"]["imageDigest"] for image in found["images"]]

    for accepted in ((), ("application/vnd.docker.distribution.manifest.v2+json",)):
        by_tag, by_digest = digests(*accepted)
        assert by_tag != digest
        assert by_digest == digest
    assert digests(OCI_MANIFEST) == [digest, digest]


def test_an_archived_image_cannot_be_read_until_it_is_put_again(ecr: EcrDouble) -> None:
    repository = ecr.repositories["app"]
    repository.immutable_tags = True
    repository.layers[DIGEST] = BODY
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [{"digest": DIGEST}]})
    put = {"imageManifest": manifest, "imageTag": "1"}
    succeed(ecr, "PutImage", **put)
    repository.archived |= {DIGEST, *repository.images}

    found = succeed(ecr, "BatchGetImage", imageIds=[{"imageTag": "1"}])
    assert [failure["failureCode"] for failure in found["failures"]] == ["ImageInaccessible"]
    succeed(ecr, "PutImage", **put)
    assert repository.archived == set()
    assert succeed(ecr, "BatchGetImage", imageIds=[{"imageTag": "1"}])["failures"] == []


def test_a_failure_code_on_demand_is_for_one_image(ecr: EcrDouble) -> None:
    ecr.faults.add("ImageFailure", Fault("KmsError"), nth=2)

    found = succeed(ecr, "BatchGetImage", imageIds=[{"imageTag": "1"}, {"imageTag": "2"}])

    assert [failure["failureCode"] for failure in found["failures"]] == ["ImageNotFound", "KmsError"]


def test_an_immutable_tag_cannot_be_put_again(ecr: EcrDouble) -> None:
    ecr.repositories["app"].immutable_tags = True
    first, second = (json.dumps({"schemaVersion": 2, "mediaType": "index", "x": number}) for number in range(2))

    succeed(ecr, "PutImage", imageManifest=first, imageTag="1")
    for manifest in (first, second):
        assert refused(ecr, "PutImage", imageManifest=manifest, imageTag="1") == "ImageTagAlreadyExistsException"
