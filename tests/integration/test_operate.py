"""`make deploy` and `make dead-letters`, on moto's SQS, with doubles of CloudFormation and the SAM CLI."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.event import notification
from local.stack import REGION, Stack
from operate import dead_letters, deploy
from tests.conftest import ROOT, messages_left, needed
from tests.doubles.checkout import SAM_VENV
from tests.doubles.cloudformation import CloudFormationDouble, Described


@dataclass
class Deployment:
    """A stack, and its queues."""

    name: str
    sqs: Any
    work_queue: str
    dead_letter_queue: str

    def report(self, key: str, kind: str) -> None:
        """Sends what the function reports of a rejected object."""
        values = {"ErrorType": kind, "Reason": f"about {key}", "Bucket": "bucket", "Key": key}
        self.sqs.send_message(
            QueueUrl=self.dead_letter_queue,
            MessageBody=json.dumps(notification("bucket", key)),
            MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in values.items()},
        )

    @property
    def redriven(self) -> list[str]:
        """The keys of the messages on the work queue."""
        received = self.sqs.receive_message(QueueUrl=self.work_queue, MaxNumberOfMessages=10)
        return [
            json.loads(message["Body"])["Records"][0]["s3"]["object"]["key"] for message in received.get("Messages", [])
        ]

    @property
    def left(self) -> list[str]:
        """The keys of the dead letters, none of which may be hidden."""
        received = self.sqs.receive_message(
            QueueUrl=self.dead_letter_queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageAttributeNames=["All"],
        )
        assert messages_left(self.sqs, self.dead_letter_queue)[1] == 0
        return sorted(message["MessageAttributes"]["Key"]["StringValue"] for message in received.get("Messages", []))


@pytest.fixture
def deployment(
    stack: Stack, cloudformation: CloudFormationDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """A stack with three dead letters, in the environment of somebody who signed in."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("QUEUE_URL")
    monkeypatch.delenv("DEAD_LETTER_QUEUE_URL")
    monkeypatch.setattr(dead_letters, "_WAIT_SECONDS", 0)
    name = f"stack-{uuid.uuid4().hex}"
    monkeypatch.setenv("STACK", name)
    queues = [stack.sqs.create_queue(QueueName=f"{name}-{kind}")["QueueUrl"] for kind in ("work", "dead")]
    parameters = {"Architecture": "x86_64", "ExistingBucket": "first"}
    outputs = dict(zip(("WorkQueueUrl", "DeadLetterQueueUrl"), queues, strict=True))
    cloudformation.stacks[name] = Described(parameters, outputs)
    found = Deployment(name, stack.sqs, *queues)
    found.report("team/one", "RepositoryMissing")
    found.report("team/two", "TagTaken")
    found.report("other/three", "RepositoryMissing")
    yield found
    for queue in queues:
        stack.sqs.delete_queue(QueueUrl=queue)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `make dead-letters` with these variables, and returns what it prints."""

    def run_with(**variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            dead_letters.main()
        return capsys.readouterr().out

    return run_with


ALL = ["other/three", "team/one", "team/two"]


def test_dead_letters_are_listed_and_stay_visible(deployment: Deployment, run: Callable[..., str]) -> None:
    printed = run()

    for key in ALL:
        assert f"s3://bucket/{key}\n          about {key}\n" in printed
    assert "3 dead letters.\nTo retry them, add REDRIVE=1" in printed
    assert deployment.left == ALL
    assert run(KEY="team/*", TYPE="TagTaken").count("s3://") == 1


def test_the_chosen_letters_are_redriven(deployment: Deployment, run: Callable[..., str]) -> None:
    printed = run(REDRIVE="1", TYPE="RepositoryMissing")

    assert printed.count("Redriven: ") == 2
    assert sorted(deployment.redriven) == ["other/three", "team/one"]
    assert deployment.left == ["team/two"]


def test_a_letter_is_deleted_by_the_id_that_was_listed(deployment: Deployment, run: Callable[..., str]) -> None:
    [line] = [line for line in run().splitlines() if "team/one" in line and "s3://" in line]

    run(DELETE="1", YES="1", ID=line.split()[0])

    assert deployment.left == ["other/three", "team/two"]
    assert deployment.redriven == []


@pytest.mark.parametrize(("answer", "left"), [("y", ["other/three"]), ("", ALL), ("no", ALL)])
def test_deleting_asks_first_and_deletes_no_letter_that_was_not_listed(
    deployment: Deployment, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, answer: str, left: list[str]
) -> None:
    def reply(question: str) -> str:
        assert question.startswith("Delete these 2?")
        deployment.report("team/new", "TagTaken")  # it would be chosen, too
        return answer

    monkeypatch.setattr("builtins.input", reply)

    run(DELETE="1", KEY="team/*")

    assert deployment.left == sorted([*left, "team/new"])


def test_where_nobody_can_answer_nothing_is_deleted(deployment: Deployment, run: Callable[..., str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.input", lambda _: (_ for _ in ()).throw(EOFError))
        assert "Nothing was deleted." in run(DELETE="1", ALL="1")

    assert deployment.left == ALL


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DELETE": "1"}, "Nothing was done. Choose the dead letters with KEY='team/app/*'"),
        ({"REDRIVE": "1"}, "Nothing was done. Choose the dead letters with KEY='team/app/*'"),
        ({"REDRIVE": "1", "DELETE": "1", "ALL": "1"}, "REDRIVE=1 and DELETE=1 exclude each other"),
        ({"REDRIVE": "yes", "ALL": "1"}, "REDRIVE is 'yes'. It takes 1."),
        ({"DELETE": "1", "YES": "1", "ID": "nosuch"}, "There is no dead letter nosuch. Nothing was done."),
        ({"STACK": "nosuch"}, f"There is no stack nosuch in {REGION}."),
    ],
)
def test_a_request_that_is_not_clear_changes_nothing(
    deployment: Deployment, run: Callable[..., str], variables: dict[str, str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(**variables)

    assert said in str(stopped.value.code)
    assert deployment.left == ALL
    assert deployment.redriven == []


def test_a_letter_that_cannot_be_redriven_stays(
    deployment: Deployment, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the local stack, whose queues the variables name that `make local` prints."""
    monkeypatch.delenv("STACK")

    with pytest.raises(SystemExit, match="AWS refused SendMessage: "):
        run(
            REDRIVE="1",
            ALL="1",
            DEAD_LETTER_QUEUE_URL=deployment.dead_letter_queue,
            QUEUE_URL=f"{deployment.work_queue}-gone",
        )

    assert deployment.left == ALL


@pytest.mark.usefixtures("deployment")
def test_a_stack_of_something_else_is_reported(run: Callable[..., str], cloudformation: CloudFormationDouble) -> None:
    cloudformation.stacks["other"] = Described()

    with pytest.raises(SystemExit, match="The stack other has no output DeadLetterQueueUrl"):
        run(STACK="other")


@pytest.mark.usefixtures("deployment")
def test_a_stack_that_was_never_made_is_none(run: Callable[..., str], cloudformation: CloudFormationDouble) -> None:
    cloudformation.stacks["begun"] = Described(status="REVIEW_IN_PROGRESS")

    for name in ("begun", "absent"):
        with pytest.raises(SystemExit, match=f"There is no stack {name} in"):
            run(STACK=name)


@pytest.fixture
def sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """A SAM CLI that succeeds. The fixture returns a function that returns the arguments of its calls.

    The uv beside it compiles nothing, since nothing was built.
    """
    calls = tmp_path / "calls"
    program = tmp_path / "sam"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]), file=open('{calls}', 'a'))"
    )
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    for command in (program, tmp_path / "uv"):
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(deploy, "cloned_from", lambda: "")
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_a_stack_is_updated_as_it_was_deployed_with_what_is_given(
    deployment: Deployment, sam: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARAMETERS", "RepositoryPrefix=mirror/ AlarmTopic=")
    monkeypatch.setenv("DEPLOY_FLAGS", "--no-confirm-changeset --tags 'team=a b'")

    deploy.main()

    assert sam() == [
        ["build", "--parameter-overrides", "Architecture=x86_64"],
        [
            "deploy", "--stack-name", deployment.name, "--region", REGION, "--parameter-overrides",
            "Architecture=x86_64", "RepositoryPrefix=mirror/", 'AlarmTopic=""', "--no-confirm-changeset",
            "--tags", "team=a b",
        ],
    ]  # fmt: skip


@pytest.mark.usefixtures("deployment")
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("RepositoryPrefx=mirror/", "Did you mean RepositoryPrefix?\nNothing was built or deployed."),
        ("ExistingBucket=second", "mirrors first, and would mirror second instead."),
    ],
)
def test_what_would_go_wrong_quietly_is_said_before_anything_runs(
    sam: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch, parameters: str, said: str
) -> None:
    monkeypatch.setenv("PARAMETERS", parameters)

    with pytest.raises(SystemExit) as stopped:
        deploy.main()

    assert said in str(stopped.value.code)
    assert sam() == []


@pytest.mark.usefixtures("deployment")
def test_a_stack_may_change_its_bucket_on_purpose(
    sam: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARAMETERS", "ExistingBucket=second")
    monkeypatch.setenv("CHANGE_BUCKET", "1")

    deploy.main()

    assert "ExistingBucket=second" in sam()[-1]


def test_without_a_region_nothing_is_asked(sam: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)

    with pytest.raises(SystemExit, match="There is no AWS region"):
        deploy.main()
    assert sam() == []


def test_without_credentials_the_error_says_what_to_do(
    sam: Callable[[], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")

    with pytest.raises(SystemExit, match="There are no AWS credentials"):
        deploy.main()
    assert sam() == []


def test_the_commands_run_with_the_sam_clis_packages_and_it_reads_what_they_pass() -> None:
    needed((SAM_VENV / "bin/python").exists(), "the SAM CLI is not installed: run `make test`")
    script = (
        "import operate.build, operate.dead_letters, operate.deploy, operate.wait\n"
        "from operate.parameters import override\n"
        "from samcli.cli.types import CfnParameterOverridesType\n"
        "given = {'RepositoryPrefix': 'mirror/', 'AlarmTopic': '', 'RunbookUrl': 'https://a.example/~b/c+d%20e'}\n"
        "passed = [override(*parameter) for parameter in given.items()]\n"
        "assert CfnParameterOverridesType().convert(passed, None, None) == given, passed\n"
    )
    done = subprocess.run(
        [SAM_VENV / "bin/python", "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
