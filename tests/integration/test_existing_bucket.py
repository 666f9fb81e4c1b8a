"""A registry's bucket that is older than the stack. The template's EventBridge rule delivers its events."""

from __future__ import annotations

import json
import time
import uuid

import boto3

from local import images
from local.event import message
from local.invocation import Invocation
from local.layers import layer
from local.stack import REGION, Stack, queue_arn
from tests.conftest import Load
from tests.doubles.function import Function
from tests.template.rendering import deployed, properties, read_template

BUILT = images.image([layer("srv/hello", b"Hello, registry!\n")])


def test_an_existing_registrys_image_is_mirrored_through_the_eventbridge_rule(
    stack: Stack, fresh: dict[str, str], load_handler: Load
) -> None:
    name = f"registry-{uuid.uuid4().hex[:12]}"
    another = f"another-{name}"
    for bucket in (name, another):
        stack.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        # As in docs/deploying.md.
        stack.s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    queue = stack.sqs.create_queue(QueueName=name)["QueueUrl"]
    rule = properties(deployed(read_template(), ExistingBucket=name, KeyPrefix="eu/"), "ExistingBucketEvents")
    pattern = json.dumps(rule["EventPattern"])
    for reference, value in {"ExistingBucket": name, "KeyPrefix": "eu/"}.items():
        pattern = pattern.replace(json.dumps({"Ref": reference}), json.dumps(value))
    events = boto3.client("events", endpoint_url=stack.endpoint)
    events.put_rule(Name=name, EventPattern=pattern)
    events.put_targets(Rule=name, Targets=[{"Id": "WorkQueue", "Arn": queue_arn(stack.sqs, queue)}])
    stack.ecr.create_repository(repositoryName=name)

    stack.s3.put_object(Bucket=another, Key="eu/another.layer", Body=b"in another bucket")
    stack.s3.put_object(Bucket=name, Key="us/elsewhere.layer", Body=b"not under the prefix")
    stored = {f"eu/{key}": content for key, content in images.registry_storage(name, "1.0", BUILT).items()}
    for key, content in stored.items():
        stack.s3.put_object(Bucket=name, Key=key, Body=content)
    handler = load_handler(fresh, KEY_PREFIX="eu/")
    keys = take_all(stack, queue, handler)

    assert set(keys) == stored.keys()
    tagged = stack.ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": "1.0"}])["imageDetails"]
    assert [image["imageDigest"] for image in tagged] == [BUILT.digest]
    events.close()


def take_all(stack: Stack, queue: str, handler: Function) -> list[str]:
    """Hands messages to the function until none has arrived for a second. Returns the objects' keys."""
    keys: list[str] = []
    quiet = time.monotonic() + 1
    while time.monotonic() < quiet:
        for taken in stack.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            answer = handler.lambda_handler(message(taken["Body"]), Invocation())
            assert answer == {"batchItemFailures": []}
            keys.append(json.loads(taken["Body"])["detail"]["object"]["key"])
            stack.sqs.delete_message(QueueUrl=queue, ReceiptHandle=taken["ReceiptHandle"])
            quiet = time.monotonic() + 1
        time.sleep(0.05)
    return keys
