"""What `python -m verify` finds, says and deletes, as far as it takes no stack that works."""

from __future__ import annotations

from contextlib import closing

import boto3
import pytest
from botocore.exceptions import ClientError

from operate import stacks
from s3_to_ecr.event_sources import sqs as function_queue
from tests.conftest import run_python
from tests.doubles.ecr import EcrDouble
from tests.template.rendering import read_template
from verify.clients import Clients
from verify.deployment import Deployment
from verify.failures import Stopped, explained
from verify.report import Answer, Report
from verify.repository import Repository
from verify.workspace import SETTLING_SECONDS, Workspace

TEMPLATE = read_template()


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


def test_another_accounts_registry_is_named_in_every_request_to_ecr(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = found(monkeypatch, RegistryId="123456789012")

    with closing(Clients(boto3.Session())) as clients:
        assert Workspace(clients, deployed).repository().members["registryId"] == "123456789012"


@pytest.mark.parametrize("missing", ["BucketName", "DeadLetterQueueUrl", "LogGroupName"])
def test_a_stack_without_the_templates_outputs_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    with pytest.raises(Stopped, match=f"The stack a has no {missing}. It is not one of s3-to-ecr"):
        found(monkeypatch, without=missing)


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
