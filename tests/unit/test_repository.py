"""Checks of the repository: the locks agree, the samples match the events, and no real account appears."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local.samples import SAMPLES
from local.stack import BUCKET
from s3_to_ecr.event_sources import notifications as events
from s3_to_ecr.s3_objects import S3Object
from tests.conftest import ROOT

EVENTS = sorted((ROOT / "events").glob("*.json"))


def pins(path: str) -> list[tuple[str, str]]:
    """Names and versions. A name has several versions if they depend on the Python version."""
    return re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / path).read_text(), re.MULTILINE)


def notifications(event: dict[str, Any]) -> list[Any]:
    return [json.loads(record["body"]) for record in event["Records"]] if events.is_sqs(event) else [event]


def test_the_shipped_packages_are_the_tested_ones() -> None:
    shipped = pins("src/requirements.txt")

    assert {"boto3", "botocore", "aws-lambda-powertools"} < {name for name, _ in shipped}
    assert set(shipped) <= set(pins("requirements/dev.txt"))


@pytest.mark.parametrize("path", ["src/requirements.txt", "requirements/dev.txt", "requirements/sam.txt"])
def test_every_pin_has_a_hash_and_no_index(path: str) -> None:
    lock = (ROOT / path).read_text()

    assert len(re.findall(r"^[a-z0-9-]+==.*\\\n +--hash=sha256:", lock, re.MULTILINE)) == len(pins(path))
    assert "://" not in lock


def test_only_the_example_account_appears() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
    for name in filter(None, tracked.stdout.decode().split("\0")):
        path = Path(ROOT, name)
        if path.suffix in {".py", ".yaml", ".yml", ".json", ".toml", ".md"} and path.exists():
            accounts = set(re.findall(r"(?<![0-9a-fA-F-])\d{12}(?![0-9a-fA-F])", path.read_text()))
            assert accounts <= {"123456789012"}, name


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_sample_events_are_about_the_samples_in_the_local_bucket(path: Path) -> None:
    samples = {sample.key: sample for sample in SAMPLES}
    for notification in notifications(json.loads(path.read_text())):
        is_job = events.is_batch_operations(notification)
        for record in notification["tasks"] if is_job else events.records(notification):
            created = events.read_record(record)
            assert isinstance(created, S3Object)
            sample = samples[created.key]
            assert created.bucket == BUCKET
            assert (created.size, created.etag) == ((None, None) if is_job else (len(sample.body), sample.etag))


def test_every_event_source_and_layout_has_a_sample_event() -> None:
    assert {path.stem for path in EVENTS} >= {
        "s3-put",
        "s3-multipart",
        "s3-copy",
        "s3-odd-key",
        "s3-several",
        "sqs",
        "sqs-test-event",
        "eventbridge",
        "batch-operations",
        "batch-operations-2",
        "oci-layout",
        "static-registry",
        "registry-storage",
        "docker-save",
        "docker-save-25",
        "gzip",
        "zstd",
    }


def test_samples_named_by_a_digest_have_it() -> None:
    named = [sample for sample in SAMPLES if re.search(r"sha256[:/][0-9a-f]{64}$", sample.key)]

    assert len(named) > 5
    for sample in named:
        assert sample.key.endswith(hashlib.sha256(sample.body).hexdigest())
