"""`make publish`, with the real SAM CLI, moto's S3, and a double of the application repository."""

from __future__ import annotations

import io
import json
import re
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from local.stack import REGION, Stack
from tests.conftest import ROOT
from tests.documents import version
from tests.doubles.checkout import copy_repository, run_in, shell_environment
from tests.doubles.server import QuietHandler, serving


@pytest.fixture
def repository() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The repository's URL, and the applications that it was asked to create."""
    created: list[dict[str, Any]] = []

    class Applications(QuietHandler):
        def do_POST(self) -> None:
            created.append(json.loads(self.body()))
            name = "arn:aws:serverlessrepo:eu-central-1:123456789012:applications/s3-to-ecr"
            self.reply(201, json.dumps({"applicationId": name, "name": "s3-to-ecr"}).encode())

    with serving(Applications) as url:
        yield url, created


def test_the_application_is_published_with_readme_licence_and_code(
    stack: Stack, repository: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, created = repository
    bucket = f"artifacts-{uuid.uuid4().hex}"
    stack.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    copy_repository(tmp_path)
    environment = shell_environment() | stack.environment | {"AWS_ENDPOINT_URL_SERVERLESSAPPLICATIONREPOSITORY": url}

    printed = run_in(tmp_path, environment, "make", "publish", f"ARTIFACTS={bucket}")

    [application] = created
    assert application["name"] == "s3-to-ecr"
    assert application["semanticVersion"] == version()
    assert application["spdxLicenseId"] == "Apache-2.0"
    assert uploaded(stack, application["licenseUrl"]) == (ROOT / "LICENSE").read_bytes()
    assert uploaded(stack, application["readmeUrl"]) == (ROOT / "README.md").read_bytes()
    # The code is in S3, too: no local path is left.
    [code] = re.findall(rf"CodeUri: (s3://{bucket}/\S+)", application["templateBody"])
    files = zipfile.ZipFile(io.BytesIO(uploaded(stack, code))).namelist()
    assert "handler.py" in files
    # A machine without Lambda's Python or a way to download it publishes no bytecode, and says so.
    assert ("__pycache__/handler.cpython-313.pyc" in files) == ("Compiled the function's modules" in printed)
    # CloudFormation takes no YAML aliases: SAM has written them out.
    tokens = yaml.scan(application["templateBody"])
    assert not [token for token in tokens if isinstance(token, yaml.AnchorToken | yaml.AliasToken)]


def uploaded(stack: Stack, url: str) -> bytes:
    """The object that `sam package` stored at an s3:// or https:// URL."""
    parts = urlsplit(url)
    bucket, key = (parts.netloc, parts.path[1:]) if parts.scheme == "s3" else parts.path[1:].split("/", 1)
    return stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
