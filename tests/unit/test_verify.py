"""What `python -m verify` finds, says and deletes, as far as it takes no stack that works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import boto3
import pytest
from botocore.exceptions import ClientError

from operate import dead_letters, stacks
from s3_to_ecr.event_sources import sqs as function_queue
from tests.conftest import messages_left, run_python, stubbed
from tests.doubles.ecr import EcrDouble
from tests.template.rendering import read_template
from verify import workspace as workspaces
from verify.clients import Clients
from verify.deployment import Deployment
from verify.failures import Stopped, explained
from verify.report import Answer, Report
from verify.repository import Repository
from verify.workspace import Workspace

TEMPLATE = read_template()
SETTLING_SECONDS = workspaces.SETTLING_SECONDS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for messages."""
    monkeypatch.setattr(workspaces, "SETTLING_SECONDS", 0)
    monkeypatch.setattr(workspaces, "_BUSY_SECONDS", 0.01)
    monkeypatch.setattr(dead_letters, "_WAIT_SECONDS", 0)


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Clients of moto, without a network."""
    from moto import mock_aws  # noqa: PLC0415 (it takes 10 MB in every process)

    with mock_aws(), closing(Clients(boto3.Session())) as clients:
        yield clients


def deployment(**known: str) -> Deployment:
    """A deployment of which only this is known."""
    names = set(Deployment.__dataclass_fields__)
    return Deployment(**(dict.fromkeys(names, "") | known))


def found(monkeypatch: pytest.MonkeyPatch, *, without: str = "", **parameters: str) -> Deployment:
    """The deployment that is found where CloudFormation has these parameters, and all outputs but one."""
    defaults = {name: str(entry["Default"]) for name, entry in TEMPLATE["Parameters"].items()}
    outputs = {name: f"the {name}" for name in TEMPLATE["Outputs"] if name != without}
    monkeypatch.setattr(stacks, "find", lambda *_: stacks.Deployed(defaults | parameters, outputs))
    return Deployment.find(boto3.Session(), "a")


def test_a_stack_is_known_by_the_templates_outputs_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = found(monkeypatch)

    assert (deployed.bucket, deployed.function) == ("the BucketName", "the FunctionName")
    assert (deployed.key_prefix, deployed.repository_prefix, deployed.registry) == ("", "", {})


def test_another_accounts_registry_is_named_in_every_request_to_ecr(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = found(monkeypatch, RegistryId="123456789012")

    assert Workspace(clients, deployed).repository().members["registryId"] == "123456789012"


@pytest.mark.parametrize("missing", ["BucketName", "DeadLetterQueueUrl", "LogGroupName"])
def test_a_stack_without_the_templates_outputs_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    with pytest.raises(Stopped, match=f"The stack a has no {missing}. It is not one of s3-to-ecr"):
        found(monkeypatch, without=missing)


@pytest.mark.parametrize("versioned", [True, False])
def test_all_objects_of_the_folder_are_deleted_and_no_others(clients: Clients, versioned: bool) -> None:
    clients.s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    if versioned:
        clients.s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    queue = clients.sqs.create_queue(QueueName="q")["QueueUrl"]
    workspace = Workspace(
        clients, deployment(bucket="bucket", key_prefix="layers/", work_queue_url=queue, dead_letter_queue_url=queue)
    )
    clients.s3.put_object(Bucket="bucket", Key="layers/other", Body=b"")
    records = [workspace.put("file", b"content"), workspace.put("file", b"again")]
    workspace.completed = True
    clients.s3.delete_object(Bucket="bucket", Key=workspace.folder + "file")

    assert workspace.delete() == []

    listed = clients.s3.list_object_versions(Bucket="bucket")
    assert [version["Key"] for version in listed["Versions"]] == ["layers/other"]
    assert "DeleteMarkers" not in listed
    assert [("versionId" in record, record["size"]) for record in records] == [(versioned, 7), (versioned, 5)]


def test_an_object_that_cannot_be_deleted_is_named(clients: Clients) -> None:
    queue = clients.sqs.create_queue(QueueName="q")["QueueUrl"]
    workspace = Workspace(clients, deployment(bucket="bucket", work_queue_url=queue, dead_letter_queue_url=queue))
    with stubbed(clients.s3) as stub:
        stub.add_response("put_object", {"ETag": '"1"', "VersionId": "v"})
        stub.add_response("list_object_versions", {"Versions": [{"Key": workspace.folder + "a", "VersionId": "v"}]})
        stub.add_response("delete_objects", {"Errors": [{"Code": "AccessDenied", "Message": "a lock"}]})
        workspace.put("a", b"content")
        workspace.completed = True

        [left] = workspace.delete()

    assert left.startswith(f"objects in s3://bucket/{workspace.folder}. You lack the permission s3:DeleteObject and ")
    assert left.endswith("AWS says: a lock")


def test_messages_that_stay_in_progress_are_named(clients: Clients) -> None:
    queue = clients.sqs.create_queue(QueueName="q")["QueueUrl"]
    clients.sqs.send_message(QueueUrl=queue, MessageBody="somebody else's")
    clients.s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    workspace = Workspace(clients, deployment(bucket="bucket", work_queue_url=queue, dead_letter_queue_url=queue))
    workspace.put("a", b"content")

    [left] = workspace.delete()

    assert "About 1 messages are still in the work queue." in left
    assert messages_left(clients.sqs, queue) == (1, 0)


def test_only_own_messages_are_taken_from_a_queue_with_many(clients: Clients) -> None:
    queue = clients.sqs.create_queue(QueueName="q")["QueueUrl"]
    workspace = Workspace(clients, deployment(work_queue_url=queue, dead_letter_queue_url=queue))
    for number in range(25):
        about = workspace.name if number == 24 else "somebody else's"
        clients.sqs.send_message(QueueUrl=queue, MessageBody=f"message {number}, {about}")

    workspace.take_reports()

    assert messages_left(clients.sqs, queue) == (24, 0)
    assert [report.body for report in workspace.reports] == [f"message 24, {workspace.name}"]


def test_a_long_work_queue_is_left_alone(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "_MOST_RECALLED", 0)
    queue, dead = (clients.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("q", "dead"))
    clients.s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    workspace = Workspace(clients, deployment(bucket="bucket", work_queue_url=queue, dead_letter_queue_url=dead))
    clients.sqs.send_message(QueueUrl=queue, MessageBody=workspace.name)
    workspace.put("a", b"content")

    [left] = workspace.delete()

    assert "About 1 messages are still in the work queue." in left


def test_a_layer_that_cannot_be_downloaded_is_named() -> None:
    with EcrDouble(keep_content=False).create("app").running() as ecr:
        ecr.repositories["app"].layers["sha256:1"] = None
        with (
            closing(boto3.client("ecr", endpoint_url=ecr.url)) as client,
            pytest.raises(Stopped, match="HTTP Error 404"),
        ):
            Repository(client, {}, "app").layer("sha256:1")


def test_it_needs_neither_the_functions_code_nor_its_packages() -> None:
    done = run_python("-c", "import sys, verify.__main__; print(*{name.split('.')[0] for name in sys.modules})")

    loaded = set(done.stdout.split())
    assert not {"handler", "s3_to_ecr", "aws_lambda_powertools", "pybase64", "moto"} & loaded


def test_objects_stay_until_a_message_that_waited_is_back() -> None:
    assert SETTLING_SECONDS > function_queue._FIRST_DELAY_SECONDS


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("AccessDenied", "You lack the permission s3:PutObject, which docs/verify.md lists. AWS says: no."),
        ("NoSuchBucket", "PutObject failed. AWS says: no."),
    ],
)
def test_an_error_of_aws_is_explained(code: str, sentence: str) -> None:
    assert explained(ClientError({"Error": {"Code": code, "Message": "no."}}, "PutObject")) == sentence


def test_a_report_with_a_failure_or_a_difference_has_not_passed() -> None:
    good, failed, differing = Report(), Report(), Report()
    for report in (good, failed, differing):
        report.check("a | b", "seen", holds=report is not failed)
        report.answer(Answer("q", "assumed", "two\nlines", agrees=report is not differing))
        report.answer(Answer("of no account", "nothing", "any", agrees=None))

    assert [report.passed for report in (good, failed, differing)] == [True, False, False]
    text = differing.markdown(deployment(stack="a"))
    assert r"| ok | a \| b | seen |" in text
    assert "| DIFFERS | q | assumed | two lines |" in text
    assert "Checks that failed: 0. Answers of ECR that differ from what the function assumes: 1. Please report" in text
    assert "Checks that failed: 1." in failed.markdown(deployment())
    assert good.markdown(deployment()).endswith("\n\nEverything is as it should be.\n")
