"""From an object in the bucket, through the event that S3 sends, to a layer in ECR. All of it runs on moto."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from local.images import digest_of
from local.invocation import Invocation
from local.layers import gzipped_layer
from local.samples import SAMPLES, put_samples
from local.stack import BUCKET, BUNDLE_REPOSITORIES, CHART_REPOSITORY, REPOSITORY, Stack
from s3_to_ecr.errors import RepositoryMissing
from tests.conftest import ROOT, Load, sqs_message

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageTypeDef

MIB = 1024 * 1024


def available(stack: Stack, repository: str, digest: str) -> bool:
    checked = stack.ecr.batch_check_layer_availability(repositoryName=repository, layerDigests=[digest])
    return [layer["layerAvailability"] for layer in checked["layers"]] == ["AVAILABLE"]


def messages_about(stack: Stack, key: str) -> list[MessageTypeDef]:
    """The messages that S3 sent about one object. All messages are deleted, other tests' as well."""
    matching: list[MessageTypeDef] = []
    while messages := stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10).get("Messages"):
        entries: Any = [{"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]} for message in messages]
        stack.sqs.delete_message_batch(QueueUrl=stack.queue_url, Entries=entries)
        matching += [message for message in messages if key.rsplit("/", 1)[-1] in message["Body"]]
    return matching


@pytest.fixture(scope="module", autouse=True)
def empty_queue(stack: Stack) -> None:
    """Removes other tests' messages, of which there may be thousands."""
    stack.sqs.purge_queue(QueueUrl=stack.queue_url)


@pytest.fixture
def key() -> str:
    return f"{REPOSITORY}/{uuid.uuid4().hex}.tar.gz"


def test_the_event_that_s3_sends_uploads_the_object_as_a_layer(
    stack: Stack, load_handler: Load, key: str, context: Invocation, metrics: Callable[[], dict[str, Any]]
) -> None:
    body = gzipped_layer(12 * MIB)
    stack.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    [message] = messages_about(stack, key)
    handler = load_handler(stack.environment)

    assert handler.lambda_handler({"Records": [sqs_message(message["Body"])]}, context) == {"batchItemFailures": []}
    assert available(stack, REPOSITORY, digest_of(body))
    counted = metrics()
    assert counted.pop("UploadSeconds") > 0
    assert counted == {"Records": 1, "LayersUploaded": 1, "BytesUploaded": len(body)}

    # The same event again sends nothing.
    assert handler.lambda_handler({"Records": [sqs_message(message["Body"])]}, context) == {"batchItemFailures": []}
    assert metrics() == {"Records": 1, "LayersSkipped": 1}


def test_a_multipart_upload_that_s3_announces_twice_is_uploaded_once(
    stack: Stack, load_handler: Load, key: str, context: Invocation
) -> None:
    upload = stack.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    bodies = [gzipped_layer(5 * MIB, seed=1), gzipped_layer(MIB, seed=2)]
    parts = [
        stack.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        for number, body in enumerate(bodies, 1)
    ]
    stack.s3.complete_multipart_upload(
        Bucket=BUCKET,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(parts, 1)]},
    )
    events = [json.loads(message["Body"]) for message in messages_about(stack, key)] * 2
    handler = load_handler(stack.environment)

    results = [handler.lambda_handler(event, context)["results"][0] for event in events]

    assert [result["action"] for result in results] == ["uploaded"] + ["skipped"] * (len(results) - 1)
    assert {result["digest"] for result in results} == {digest_of(b"".join(bodies))}


def test_s3s_test_event_is_consumed_quietly(
    stack: Stack, load_handler: Load, context: Invocation, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    event = json.loads((ROOT / "events/sqs-test-event.json").read_text())

    assert load_handler(stack.environment).lambda_handler(event, context) == {"batchItemFailures": []}
    assert logs() == []


def test_the_same_event_over_another_carrier_uploads_nothing_again(
    stack: Stack, load_handler: Load, key: str, context: Invocation
) -> None:
    stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"once")
    [message] = messages_about(stack, key)
    handler = load_handler(stack.environment)
    event = json.loads(message["Body"])
    s3_object = event["Records"][0]["s3"]["object"]
    eventbridge = {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": BUCKET}, "object": {"key": key, "size": 4, "etag": s3_object["eTag"]}},
    }

    assert handler.lambda_handler(event, context)["results"][0]["action"] == "uploaded"
    assert handler.lambda_handler(eventbridge, context)["results"][0]["action"] == "skipped"


def test_a_missing_repository_is_created_if_allowed(stack: Stack, load_handler: Load, context: Invocation) -> None:
    repository = f"team/new-{uuid.uuid4().hex}"
    stack.s3.put_object(Bucket=BUCKET, Key=f"{repository}/layer", Body=b"layer")
    [message] = messages_about(stack, repository.rsplit("/", maxsplit=1)[-1])
    event = json.loads(message["Body"])

    with pytest.raises(RepositoryMissing, match=rf"s3://{BUCKET}/{repository}/layer: .*{repository}"):
        load_handler(stack.environment).lambda_handler(event, context)
    [result] = load_handler(stack.environment, CREATE_REPOSITORIES="true").lambda_handler(event, context)["results"]

    assert (result["action"], result["repository"]) == ("uploaded", repository)
    assert available(stack, repository, digest_of(b"layer"))


def test_a_layer_whose_repository_was_emptied_is_uploaded_again_by_the_same_event(
    stack: Stack, load_handler: Load, context: Invocation
) -> None:
    repository = f"again-{uuid.uuid4().hex}"
    stack.s3.put_object(Bucket=BUCKET, Key=f"{repository}/layer", Body=b"layer")
    [message] = messages_about(stack, repository)
    handler = load_handler(stack.environment, CREATE_REPOSITORIES="true")

    for _ in range(2):
        [result] = handler.lambda_handler(json.loads(message["Body"]), context)["results"]
        assert result["action"] == "uploaded"
        assert available(stack, repository, result["digest"])
        stack.ecr.delete_repository(repositoryName=repository)


def test_the_same_event_for_another_destination_is_uploaded_again(
    stack: Stack, fresh: dict[str, str], load_handler: Load, key: str, context: Invocation
) -> None:
    stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"twice")
    [message] = messages_about(stack, key)
    more = [{}, {"REPOSITORY_PREFIX": "other/"}, {"ECR_REGISTRY_ID": "123456789012"}]

    for environment in more:
        handler = load_handler(
            fresh, **{"CREATE_REPOSITORIES": "true", "REPOSITORY_PREFIX": "", "ECR_REGISTRY_ID": ""} | environment
        )
        for action in ("uploaded", "skipped"):
            [result] = handler.lambda_handler(json.loads(message["Body"]), context)["results"]
            assert (result["action"], result["repository"]) == (
                action,
                environment.get("REPOSITORY_PREFIX", "") + REPOSITORY,
            )


@pytest.mark.parametrize("member", ["versionId", "eTag", "sequencer"])
def test_every_write_to_a_key_is_uploaded(
    stack: Stack, fresh: dict[str, str], load_handler: Load, key: str, context: Invocation, member: str
) -> None:
    handler = load_handler(fresh)
    for number in range(2):
        # The same bytes for another version or sequencer; other bytes for another ETag.
        body = f"write {number}".encode() if member == "eTag" else b"write"
        put = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        values = {"versionId": put["VersionId"], "eTag": put["ETag"].strip('"'), "sequencer": f"{number}"}
        s3_object = {"key": key, "size": len(body), "eTag": values["eTag"], member: values[member]}
        record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": s3_object}}

        for action in ("uploaded", "skipped"):
            [result] = handler.lambda_handler({"Records": [record]}, context)["results"]
            assert (result["action"], result["digest"]) == (action, digest_of(body))


def test_settings_decide_where_a_layer_goes(stack: Stack, load_handler: Load, context: Invocation) -> None:
    name = uuid.uuid4().hex
    stack.ecr.create_repository(repositoryName=f"mirror/base-{name}")
    stack.s3.put_object(Bucket=BUCKET, Key=f"layers/{name}", Body=b"layer")
    [message] = messages_about(stack, name)
    handler = load_handler(
        stack.environment, KEY_PREFIX="layers/", REPOSITORY_PREFIX="mirror/", DEFAULT_REPOSITORY=f"base-{name}"
    )

    [result] = handler.lambda_handler(json.loads(message["Body"]), context)["results"]

    assert (result["action"], result["repository"]) == ("uploaded", f"mirror/base-{name}")
    assert available(stack, f"mirror/base-{name}", digest_of(b"layer"))


def test_every_log_line_names_its_object(
    stack: Stack, load_handler: Load, key: str, context: Invocation, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"logged")
    stack.s3.put_object(Bucket=BUCKET, Key=f"{key}/", Body=b"")
    records = [json.loads(message["Body"])["Records"][0] for message in messages_about(stack, key)]
    assert len(records) == 2
    handler = load_handler(stack.environment)

    handler.lambda_handler({"Records": records}, context)

    first = [line for line in logs() if line.get("key") == key]
    assert [line["message"] for line in first] == ["Uploading the layer", "Layer uploaded"]
    for line in first:
        assert (line["bucket"], line["repository"]) == (BUCKET, REPOSITORY)
        assert line["upload_id"]
        assert line["function_request_id"] == context.aws_request_id
    assert first[-1]["digest"] == digest_of(b"logged")
    # The line of the next object has nothing of the first.
    [second] = [line for line in logs() if line.get("key") != key]
    assert (second["message"], second["key"]) == ("Ignored", f"{key}/")
    assert not {"repository", "digest", "upload_id"} & set(second)


# The samples leave hundreds of messages, which moto deletes slowly. So their tests come last.
@pytest.mark.parametrize(
    ("event", "samples"),
    [
        ("s3-put", ["put.layer"]),
        ("s3-multipart", ["multipart.layer"]),
        ("s3-copy", ["test/sha256:"]),
        ("s3-odd-key", ["Grüße + 100%2B ✨ a+b.layer"]),
        ("s3-several", ["blobs/sha256:", None, "put.layer"]),
        ("eventbridge", ["eventbridge + 1%2B.layer"]),
    ],
)
def test_every_sample_event_uploads_its_sample(
    stack: Stack, fresh: dict[str, str], load_handler: Load, context: Invocation, event: str, samples: list[str | None]
) -> None:
    put_samples(stack.s3)
    stack.ecr.delete_repository(repositoryName=REPOSITORY)
    stack.ecr.create_repository(repositoryName=REPOSITORY)

    answer = load_handler(fresh).lambda_handler(json.loads((ROOT / f"events/{event}.json").read_text()), context)

    assert len(answer["results"]) == len(samples)
    for result, name in zip(answer["results"], samples, strict=True):
        if name is None:
            assert (result["action"], result["key"]) == ("ignored", "layer-test/")
            continue
        sample = next(sample for sample in SAMPLES if name in sample.key)
        assert result["action"] == "uploaded"
        assert (result["bucket"], result["key"], result["repository"]) == (BUCKET, sample.key, REPOSITORY)
        assert (result["digest"], result["size"]) == (digest_of(sample.body), len(sample.body))
        assert available(stack, REPOSITORY, result["digest"])


@pytest.mark.parametrize(
    "layout",
    [
        "oci-layout",
        "static-registry",
        "registry-storage",
        "docker-save",
        "docker-save-25",
        "skopeo-dir",
        "gzip",
        "zstd",
    ],
)
def test_the_sample_event_of_every_layout_pushes_its_image(
    stack: Stack, fresh: dict[str, str], load_handler: Load, context: Invocation, layout: str
) -> None:
    put_samples(stack.s3)
    stack.ecr.delete_repository(repositoryName=REPOSITORY, force=True)
    stack.ecr.create_repository(repositoryName=REPOSITORY)
    event = json.loads((ROOT / f"events/{layout}.json").read_text())
    handler = load_handler(fresh)

    for action in ("pushed", "skipped"):
        [result] = handler.lambda_handler(event, context)["results"]
        assert (result["action"], result["images"][0]["tags"]) == (action, [layout])

    [image] = stack.ecr.describe_images(repositoryName=REPOSITORY)["imageDetails"]
    assert (image["imageDigest"], image["imageTags"]) == (result["digest"], [layout])


def test_the_sample_event_of_a_bundle_pushes_an_image_to_each_repository(
    stack: Stack, fresh: dict[str, str], load_handler: Load, context: Invocation
) -> None:
    put_samples(stack.s3)
    event = json.loads((ROOT / "events/bundle.json").read_text())

    [result] = load_handler(fresh).lambda_handler(event, context)["results"]

    assert [(image["repository"], image["tags"]) for image in result["images"]] == [
        (repository, ["bundle"]) for repository in BUNDLE_REPOSITORIES
    ]
    for image in result["images"]:
        [found] = stack.ecr.describe_images(repositoryName=image["repository"])["imageDetails"]
        assert (found["imageDigest"], found["imageTags"]) == (image["digest"], ["bundle"])


def test_the_sample_event_of_a_chart_pushes_it(
    stack: Stack, fresh: dict[str, str], load_handler: Load, context: Invocation
) -> None:
    put_samples(stack.s3)
    event = json.loads((ROOT / "events/helm-chart.json").read_text())

    [result] = load_handler(fresh).lambda_handler(event, context)["results"]

    [found] = stack.ecr.describe_images(repositoryName=CHART_REPOSITORY)["imageDetails"]
    assert (found["imageDigest"], found["imageTags"]) == (result["digest"], ["1.0.0_sample"])


def test_the_sqs_sample_event_uploads_its_sample(stack: Stack, load_handler: Load, context: Invocation) -> None:
    put_samples(stack.s3)
    [sample] = [sample for sample in SAMPLES if "sqs" in sample.key]
    event = json.loads((ROOT / "events/sqs.json").read_text())

    assert load_handler(stack.environment).lambda_handler(event, context) == {"batchItemFailures": []}
    assert available(stack, REPOSITORY, digest_of(sample.body))
