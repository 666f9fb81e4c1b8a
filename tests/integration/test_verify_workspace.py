"""`python -m verify` takes away everything that it has put into a stack, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import boto3
import pytest

from local.stack import REGION, Stack
from operate import dead_letters
from tests.conftest import messages_left, stubbed
from verify import workspace as workspaces
from verify.clients import Clients
from verify.deployment import Deployment
from verify.workspace import Workspace


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for messages."""
    monkeypatch.setattr(workspaces, "SETTLING_SECONDS", 0)
    monkeypatch.setattr(workspaces, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(dead_letters, "_WAIT_SECONDS", 0)


@pytest.fixture
def clients(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint)
    with closing(Clients(boto3.Session())) as clients:
        yield clients


@pytest.fixture
def deployment(clients: Clients) -> Deployment:
    """A stack with a bucket of its own, whose queues nothing fills."""
    name = f"verified-{uuid.uuid4().hex}"
    clients.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    work, dead = (clients.sqs.create_queue(QueueName=f"{name}-{kind}")["QueueUrl"] for kind in ("work", "dead"))
    return Deployment(name, REGION, name, work, dead, "function", "log group", "layers/", "", None)


@pytest.fixture
def workspace(clients: Clients, deployment: Deployment) -> Workspace:
    return Workspace(clients, deployment)


@pytest.mark.parametrize("versioned", [True, False])
def test_all_objects_of_the_folder_are_deleted_and_no_others(
    clients: Clients, deployment: Deployment, workspace: Workspace, versioned: bool
) -> None:
    bucket = deployment.bucket
    if versioned:
        clients.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    clients.s3.put_object(Bucket=bucket, Key="layers/other", Body=b"")
    records = [workspace.put("file", b"content"), workspace.put("file", b"again")]
    workspace.completed = True
    clients.s3.delete_object(Bucket=bucket, Key=workspace.folder + "file")

    assert workspace.delete() == []

    listed = clients.s3.list_object_versions(Bucket=bucket)
    assert [version["Key"] for version in listed["Versions"]] == ["layers/other"]
    assert "DeleteMarkers" not in listed
    assert [("versionId" in record, record["size"]) for record in records] == [(versioned, 7), (versioned, 5)]


def test_an_object_that_cannot_be_deleted_is_named(
    clients: Clients, deployment: Deployment, workspace: Workspace
) -> None:
    with stubbed(clients.s3) as stub:
        stub.add_response("put_object", {"ETag": '"1"', "VersionId": "v"})
        stub.add_response("list_object_versions", {"Versions": [{"Key": workspace.folder + "a", "VersionId": "v"}]})
        stub.add_response("delete_objects", {"Errors": [{"Code": "AccessDenied", "Message": "a lock"}]})
        workspace.put("a", b"content")
        workspace.completed = True

        [left] = workspace.delete()

    where = f"s3://{deployment.bucket}/{workspace.folder}"
    assert left.startswith(f"objects in {where}. You lack the permission s3:DeleteObject and ")
    assert left.endswith("AWS says: a lock")


def test_messages_that_stay_in_progress_are_named(
    clients: Clients, deployment: Deployment, workspace: Workspace
) -> None:
    clients.sqs.send_message(QueueUrl=deployment.work_queue_url, MessageBody="somebody else's")
    workspace.put("a", b"content")

    [left] = workspace.delete()

    assert "About 1 messages are still in the work queue." in left
    assert messages_left(clients.sqs, deployment.work_queue_url) == (1, 0)


def test_only_own_messages_are_taken_from_a_queue_with_many(
    clients: Clients, deployment: Deployment, workspace: Workspace
) -> None:
    for number in range(25):
        about = workspace.name if number == 24 else "somebody else's"
        clients.sqs.send_message(QueueUrl=deployment.dead_letter_queue_url, MessageBody=f"message {number}, {about}")

    workspace.take_reports()

    assert messages_left(clients.sqs, deployment.dead_letter_queue_url) == (24, 0)
    assert [report.body for report in workspace.reports] == [f"message 24, {workspace.name}"]


def test_a_long_work_queue_is_left_alone(
    clients: Clients, deployment: Deployment, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspaces, "_MOST_RECALLED", 0)
    clients.sqs.send_message(QueueUrl=deployment.work_queue_url, MessageBody=workspace.name)
    workspace.put("a", b"content")

    [left] = workspace.delete()

    assert "About 1 messages are still in the work queue." in left
