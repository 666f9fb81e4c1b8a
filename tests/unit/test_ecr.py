from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from s3_to_ecr.ecr import LayerUpload, Registry
from s3_to_ecr.errors import (
    AccessDenied,
    DigestMismatch,
    EmptyBlob,
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
        (Fault("EmptyUploadException"), EmptyBlob),
        (Fault("LayerPartTooSmallException"), RequestRefused),
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
    registry = Registry(ecr_client)
    registry.create_repository("team/new")
    registry.create_repository("team/new")

    assert "team/new" in ecr.repositories
