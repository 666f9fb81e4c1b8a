"""Uploads over TLS, as with AWS: Python sends and receives with other code than over plain HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import boto3
import pytest

from local.certificate import Certificate
from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.push.layer_upload import LayerUploader
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.ecr import EcrDouble
from tests.doubles.invocation import DEADLINE, OwnLease
from tests.doubles.s3 import Pattern, S3Double, Stored
from tests.doubles.server import Fault

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.write(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def ecr(certificate: Certificate) -> Iterator[EcrDouble]:
    with EcrDouble().create("app").running(certificate.server()) as double:
        yield double


@pytest.fixture
def s3(certificate: Certificate) -> Iterator[S3Double]:
    with S3Double().running(certificate.server()) as double:
        yield double


@pytest.mark.parametrize("broken", [None, 1, 2, 4])
@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_a_layer_survives_a_connection_that_breaks_while_a_part_is_sent(
    broken: int | None, known: bool, certificate: Certificate, s3: S3Double, ecr: EcrDouble
) -> None:
    size = 35 * MIB + 1
    content = Pattern(size)
    s3.objects["app/layer"] = Stored(content)
    if broken:
        ecr.faults.add("BreakRequest", Fault(), nth=broken)
    trusted = str(certificate.trusted)
    s3_client = boto3.client("s3", endpoint_url=s3.url, verify=trusted)
    ecr_client = boto3.client("ecr", endpoint_url=ecr.url, verify=trusted)

    digest = LayerUploader(Registry(ecr_client, DEADLINE), DEADLINE, Outcomes()).upload(
        ObjectRange(s3_client, "bucket", "app/layer", "v1", None, size, size),
        "app",
        content.digest if known else None,
        OwnLease(),
        1024 * MIB,
    )

    s3_client.close()
    ecr_client.close()
    assert digest == content.digest
    assert hashlib.sha256(ecr.content_of("app", digest)).hexdigest() == digest.removeprefix("sha256:")
    assert len(ecr.calls_of("InitiateLayerUpload")) == 1
