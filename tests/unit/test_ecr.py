from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from s3_to_ecr.ecr import LayerUpload, Registry
from s3_to_ecr.errors import (
    AccessDenied,
    DigestMismatch,
    RepositoryMissing,
    RequestRefused,
    S3ToEcrError,
    ServiceUnavailable,
    UploadLost,
)
from tests.doubles.ecr import EcrDouble
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
def test_every_answer_has_its_error(
    ecr: EcrDouble, ecr_client: ECRClient, fault: Fault, error: type[S3ToEcrError]
) -> None:
    ecr.faults.add("CompleteLayerUpload", fault, times=2)

    with pytest.raises(error, match=r"^CompleteLayerUpload for ECR repository app failed"):
        Registry(ecr_client).complete(UPLOAD, DIGEST)


def test_a_throttled_call_is_tried_again_by_the_sdk(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    ecr.faults.add("InitiateLayerUpload", Fault("ThrottlingException"))

    assert Registry(ecr_client).initiate("app").part_size == 4


def test_what_the_service_model_forbids_is_refused_before_it_is_sent(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    with pytest.raises(RequestRefused, match="repositoryName"):
        Registry(ecr_client).initiate("x")
    assert ecr.calls == []


def test_a_repository_is_created_once(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    registry = Registry(ecr_client, "123456789012")
    registry.create_repository("team/new")
    registry.create_repository("team/new")

    assert "team/new" in ecr.repositories
    assert {call.members["registryId"] for call in ecr.calls} == {"123456789012"}


@pytest.mark.parametrize("missing_as", ["failure", "unavailable"])
def test_a_layer_is_available_archived_or_not_there(
    ecr: EcrDouble, ecr_client: ECRClient, missing_as: Literal["failure", "unavailable"]
) -> None:
    registry = Registry(ecr_client)
    ecr.missing_as = missing_as

    assert registry.layer_availability("app", DIGEST) == "UNAVAILABLE"
    ecr.repositories["app"].layers[DIGEST] = b"layer"
    assert registry.layer_availability("app", DIGEST) == "AVAILABLE"
    ecr.repositories["app"].archived.add(DIGEST)
    assert registry.layer_availability("app", DIGEST) == "ARCHIVED"
