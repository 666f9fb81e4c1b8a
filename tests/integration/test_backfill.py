"""S3 Batch Operations: objects that are older than the function."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any
from urllib.parse import quote_plus

import pytest

from local.invocation import Invocation
from local.samples import SAMPLES, put_samples
from local.stack import BUCKET, REPOSITORY, Stack
from tests.conftest import ROOT, Load, sqs_message
from tests.doubles.ecr import EcrDouble
from tests.doubles.s3 import Bytes, Pattern, S3Double, Stored
from tests.doubles.server import Fault


def job(version: str, *keys: str, version_id: str | None = None) -> dict[str, Any]:
    bucket = {"s3BucketArn": f"arn:aws:s3:::{BUCKET}"} if version == "1.0" else {"s3Bucket": BUCKET}
    tasks = [{"taskId": key, "s3Key": quote_plus(key), "s3VersionId": version_id, **bucket} for key in keys]
    return {"invocationSchemaVersion": version, "invocationId": "one", "job": {"id": "job"}, "tasks": tasks}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_job_gets_a_result_for_every_object(
    version: str, doubled: dict[str, str], load_handler: Load, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    handler = load_handler(doubled)
    content = Pattern(11)
    for key in ("app/good + Ä", "app/unlucky", "nowhere/lost"):
        s3_double.objects[key] = Stored(content)
    # The second upload is that of app/unlucky.
    strict_ecr.faults.add("InitiateLayerUpload", Fault("RepositoryBusyException"), nth=2)

    answer = handler.lambda_handler(job(version, "app/good + Ä", "app/unlucky", "nowhere/lost", "app/"), Invocation())

    assert (answer["invocationSchemaVersion"], answer["invocationId"]) == (version, "one")
    assert [(result["taskId"], result["resultCode"]) for result in answer["results"]] == [
        ("app/good + Ä", "Succeeded"),
        ("app/unlucky", "TemporaryFailure"),
        ("nowhere/lost", "PermanentFailure"),
        ("app/", "Succeeded"),
    ]
    good, unlucky, lost, folder = (result["resultString"] for result in answer["results"])
    assert good == f"uploaded, app, {content.digest}"
    assert unlucky.startswith("ServiceUnavailable: InitiateLayerUpload for ECR repository app failed with Repo")
    assert lost.startswith("RepositoryMissing: InitiateLayerUpload for ECR repository nowhere failed")
    assert folder == "ignored, a folder marker"
    assert strict_ecr.content_of("app", content.digest) == content.slice(0, 11)


def test_a_job_needs_one_head_request_for_what_an_event_contains(
    doubled: dict[str, str], load_handler: Load, s3_double: S3Double
) -> None:
    handler = load_handler(doubled)
    s3_double.objects["app/x"] = Stored(Bytes(b"bytes"), version_id="v7")

    handler.lambda_handler(job("1.0", "app/x"), Invocation())

    # It then reads the version that HEAD returned, even if the key is overwritten.
    assert [(read.method, read.version_id) for read in s3_double.reads] == [("HEAD", None), ("GET", "v7")]


@pytest.mark.parametrize("name", ["batch-operations", "batch-operations-2"])
def test_the_sample_events_upload_their_samples(
    name: str, stack: Stack, fresh: dict[str, str], load_handler: Load
) -> None:
    put_samples(stack.s3)
    event = json.loads((ROOT / f"events/{name}.json").read_text())

    [result] = load_handler(fresh).lambda_handler(event, Invocation())["results"]

    [sample] = [sample for sample in SAMPLES if quote_plus(sample.key, safe="/") == event["tasks"][0]["s3Key"]]
    assert result == {
        "taskId": event["tasks"][0]["taskId"],
        "resultCode": "Succeeded",
        "resultString": f"uploaded, {REPOSITORY}, sha256:{hashlib.sha256(sample.body).hexdigest()}",
    }


def test_a_job_skips_what_an_event_has_uploaded(stack: Stack, load_handler: Load) -> None:
    key = f"{REPOSITORY}/{uuid.uuid4().hex}"
    put = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"brought by an event")
    s3_object = {"key": key, "eTag": put["ETag"], "size": 19, "versionId": put["VersionId"], "sequencer": "0A"}
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": s3_object}}
    handler = load_handler(stack.environment)
    message = sqs_message(json.dumps({"Records": [record]}))
    assert handler.lambda_handler({"Records": [message]}, Invocation()) == {"batchItemFailures": []}

    for version_id in (put["VersionId"], None):
        [result] = handler.lambda_handler(job("1.0", key, version_id=version_id), Invocation())["results"]
        assert (result["resultCode"], result["resultString"][:8]) == ("Succeeded", "skipped,")
