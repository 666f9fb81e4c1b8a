"""Uploads over TLS, as with AWS: Python sends and receives with other code than over plain HTTP."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.push.layer_upload import LayerUploader
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.ecr import EcrDouble
from tests.doubles.invocation import DEADLINE, OwnLease
from tests.doubles.s3 import Pattern, S3Double, Stored
from tests.doubles.server import Fault

MIB = 1024 * 1024


@dataclass(frozen=True)
class Tls:
    """A server's TLS context, and the file with the certificate that clients have to trust."""

    server: ssl.SSLContext
    certificate: Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return Tls(context, folder / "certificate.pem")


@pytest.fixture
def ecr(tls: Tls) -> Iterator[EcrDouble]:
    with EcrDouble().create("app").running(tls.server) as double:
        yield double


@pytest.fixture
def s3(tls: Tls) -> Iterator[S3Double]:
    with S3Double().running(tls.server) as double:
        yield double


@pytest.mark.parametrize("broken", [None, 1, 2, 4])
@pytest.mark.parametrize("known", [False, True], ids=["digest unknown", "digest known"])
def test_a_layer_survives_a_connection_that_breaks_while_a_part_is_sent(
    broken: int | None, known: bool, tls: Tls, s3: S3Double, ecr: EcrDouble
) -> None:
    size = 35 * MIB + 1
    content = Pattern(size)
    s3.objects["app/layer"] = Stored(content)
    if broken:
        ecr.faults.add("BreakRequest", Fault(), nth=broken)
    trusted = str(tls.certificate)
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
