"""`python -m verify` on a deployed stack: moto in place of AWS, the strict ECR, and the function behind its queue."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

from local.event_source import EventSource
from local.function_log import FunctionLog
from local.invocation import Invocation
from local.stack import Stack, create_bucket, queue_arn
from tests.conftest import ROOT, Load, messages_left, run_python, wait_until
from tests.documents import blocks
from tests.doubles.cloudformation import CloudFormationDouble, Described
from tests.doubles.dynamodb import DynamoDBDouble
from tests.doubles.ecr import MIN_PART_BYTES, EcrDouble
from tests.doubles.function import Function
from tests.doubles.server import Fault, QuietHandler, serving
from tests.template.rendering import actions, read_template
from verify.__main__ import main
from verify.clients import Clients
from verify.deployment import Deployment
from verify.failures import ACTIONS
from verify.probes import Probes
from verify.report import Report
from verify.workspace import Workspace

PART_SIZE = 64 * 1024
MIRRORED = ["a layer of 3 parts", "an OCI layout, index first", "a `docker save` archive"]
PARAMETERS = {"KeyPrefix": "layers/", "RepositoryPrefix": "mirror/"}
SETTINGS = {"KeyPrefix": "KEY_PREFIX", "RepositoryPrefix": "REPOSITORY_PREFIX"}
SOMEBODY_ELSES = json.dumps({"Records": ["somebody else's"]})


@dataclass
class Deployed:
    """A deployed stack. `before_invoking` is called before every invocation of its function."""

    name: str
    bucket: str
    stack: Stack
    ecr: EcrDouble
    before_invoking: Callable[[], None] = lambda: None

    def verify(self, *arguments: str) -> int:
        """Runs the command. Returns its exit code."""
        return main(["--stack", self.name, *arguments])

    def left_behind(self) -> list[str]:
        """The objects, repositories and messages that there are, except for somebody else's dead letter."""
        versions: Any = self.stack.s3.list_object_versions(Bucket=self.bucket)
        left = [version["Key"] for kind in ("Versions", "DeleteMarkers") for version in versions.get(kind, [])]
        left += [name for name in self.ecr.repositories if name != "app"]
        left += ["a message"] * sum(messages_left(self.stack.sqs, self.stack.queue_url))
        while messages := self.stack.sqs.receive_message(QueueUrl=self.stack.dead_letter_queue_url).get("Messages"):
            left += [message["Body"] for message in messages]
        left.remove(SOMEBODY_ELSES)  # visible, as before
        return left


@pytest.fixture
def idle(
    stack: Stack,
    strict_ecr: EcrDouble,
    state: DynamoDBDouble,
    cloudformation: CloudFormationDouble,
    load_handler: Load,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployed]:
    """A deployed stack whose function is invoked by nobody but verify."""
    monkeypatch.setattr("s3_to_ecr.event_sources.sqs._FIRST_DELAY_SECONDS", 0)
    monkeypatch.setattr("verify.workspace.SETTLING_SECONDS", 0)
    monkeypatch.setattr("operate.dead_letters._WAIT_SECONDS", 0)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    strict_ecr.part_size = strict_ecr.min_part_bytes = PART_SIZE
    deployed = deploy(stack, strict_ecr, cloudformation)
    environment = stack.environment | {
        "STATE_TABLE": "state",
        "AWS_ENDPOINT_URL_DYNAMODB": state.url,
        "AWS_ENDPOINT_URL_ECR": strict_ecr.url,
        "QUEUE_URL": deployed.stack.queue_url,
        "DEAD_LETTER_QUEUE_URL": deployed.stack.dead_letter_queue_url,
    }
    function = load_handler(environment, **{SETTINGS[name]: value for name, value in PARAMETERS.items()})
    with serving(served(function, deployed)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        yield deployed


def deploy(stack: Stack, ecr: EcrDouble, cloudformation: CloudFormationDouble) -> Deployed:
    """A bucket, its queue with a dead-letter queue, and a CloudFormation stack with the template's outputs."""
    name = f"s3-to-ecr-{uuid.uuid4().hex[:8]}"
    queue = stack.sqs.create_queue(QueueName=f"{name}-work")["QueueUrl"]
    dead_letters = stack.sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    stack.sqs.send_message(QueueUrl=dead_letters, MessageBody=SOMEBODY_ELSES)
    create_bucket(stack.s3, name, queue_arn(stack.sqs, queue))
    [test_event] = stack.sqs.receive_message(QueueUrl=queue)["Messages"]
    stack.sqs.delete_message(QueueUrl=queue, ReceiptHandle=test_event["ReceiptHandle"])
    template = read_template()
    known = {"BucketName": name, "WorkQueueUrl": queue, "DeadLetterQueueUrl": dead_letters}
    parameters = {parameter: str(entry["Default"]) for parameter, entry in template["Parameters"].items()} | PARAMETERS
    outputs = {output: known.get(output, "unused") for output in template["Outputs"]}
    cloudformation.stacks[name] = Described(parameters, outputs)
    return Deployed(name, name, replace(stack, queue_url=queue, dead_letter_queue_url=dead_letters), ecr)


def served(function: Function, deployed: Deployed) -> type[QuietHandler]:
    """Lambda's API for the function."""
    alone = threading.Lock()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            event = json.loads(self.body())
            with alone:
                deployed.before_invoking()
                try:
                    answer, headers = function.lambda_handler(event, Invocation()), {}
                except Exception as error:  # noqa: BLE001 (as Lambda does)
                    answer, headers = {"errorMessage": str(error)}, {"X-Amz-Function-Error": "Unhandled"}
            self.reply(200, json.dumps(answer).encode(), headers)

    return Handler


@pytest.fixture
def deployed(idle: Deployed, tmp_path: Path) -> Iterator[Deployed]:
    """A deployed stack that works."""
    ended = threading.Event()
    source = EventSource(idle.stack, FunctionLog(tmp_path / "none.log"))

    def deliver() -> None:
        while not ended.is_set():
            if not source.deliver():
                ended.wait(0.02)

    thread = threading.Thread(target=deliver)
    thread.start()
    yield idle
    ended.set()
    thread.join()
    source._lambda.close()


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The operations of AWS that this thread calls. The function and its event source have threads of their own."""
    called: set[str] = set()
    call: Any = BaseClient._make_api_call  # type: ignore[attr-defined]
    this = threading.current_thread()

    def record(self: Any, operation: str, members: Any) -> Any:
        if threading.current_thread() is this:
            called.add(operation)
        return call(self, operation, members)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    return called


def policy(*sids: str) -> set[str]:
    """The actions that docs/verify.md asks for in these statements, or in all of them."""
    [document] = [json.loads(block) for block in blocks((ROOT / "docs/verify.md").read_text(), "json")]
    found = {statement["Sid"]: actions(statement) for statement in document["Statement"]}
    return set().union(*(found[sid] for sid in sids or found))


def rows(table: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their second column, without it, and without the titles."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {row[1]: [row[0], *row[2:]] for row in lines if row[0] not in ("", "---")}


def test_a_stack_that_works_passes_and_nothing_is_left_behind(
    deployed: Deployed, operations: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    calls_before: list[int] = []
    deployed.before_invoking = lambda: calls_before.append(len(deployed.ecr.calls))

    code = deployed.verify()

    report, progress = capsys.readouterr()
    found = rows(report)
    assert code == 0, progress
    assert "Everything is as it should be." in report
    assert [found[f"{title} is the same in ECR"][0] for title in MIRRORED] == ["ok"] * 3
    assert "DigestMismatch" in found["a layer under another digest is rejected as DigestMismatch"][1]
    assert found["the same 11 events again send nothing"] == ["ok", "skipped: 7, ignored: 4"]
    for step in ("created the repository mirror/s3-to-ecr-verify-", "a layer of 3 parts is in ECR", "deleting"):
        assert step in progress
    # The last invocation is the repetition.
    assert {"UploadLayerPart", "PutImage"} <= set(deployed.ecr.operations[: calls_before[-1]])
    assert not {"UploadLayerPart", "PutImage"} & set(deployed.ecr.operations[calls_before[-1] :])
    assert deployed.left_behind() == []
    needed = {action for operation in operations for action in ACTIONS[operation]}
    assert needed == policy("FindStack", "Objects", "Messages", "RepeatEvents", "Repositories")


def test_a_stack_that_works_passes_whatever_ecr_answers(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.ecr.missing_as = "unavailable"
    deployed.ecr.receipts = "stale"
    deployed.ecr.complete_seconds = 0.05
    deployed.ecr.converts_by_tag = True

    code = deployed.verify("--timeout", "60")

    assert code == 0, capsys.readouterr().err
    assert deployed.left_behind() == []


def test_a_byte_that_comes_back_different_is_named(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.ecr.damaged_byte = PART_SIZE + 5

    code = deployed.verify()

    verdict, seen = rows(capsys.readouterr().out)["a layer of 3 parts is the same in ECR"]
    assert (code, verdict) == (1, "**FAILED**")
    assert f"differs from byte {PART_SIZE + 5:,} on, in part 2" in seen
    assert deployed.left_behind() == []


def test_what_the_function_rejects_is_reported_with_its_reason(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.ecr.faults.add("PutImage", Fault("AccessDeniedException"), times=100)

    code = deployed.verify()

    found = rows(capsys.readouterr().out)
    assert code == 1
    for title in MIRRORED[1:]:
        assert found[f"{title} is mirrored"][0] == "**FAILED**"
        assert found[f"{title} is mirrored"][1].startswith("AccessDenied: ")
        assert "PutImage for ECR repository mirror/" in found[f"{title} is mirrored"][1]
    assert found[f"{MIRRORED[0]} is the same in ECR"][0] == "ok"
    assert deployed.left_behind() == []


def test_a_stack_that_never_answers_is_reported_with_where_to_look(
    idle: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    code = idle.verify("--timeout", "0.3")

    found = rows(capsys.readouterr().out)
    assert code == 1
    for title in MIRRORED:
        verdict, seen = found[f"{title} is mirrored"]
        assert verdict == "**FAILED**"
        assert "Not within 0 s. 12 messages wait in the work queue, and the function takes none" in seen
        assert "aws logs tail unused" in seen
    assert idle.left_behind() == []


# A request that is interrupted leaves its connection open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    invocations = itertools.count(1)
    delete_objects = Workspace._delete_objects

    def interrupt() -> None:
        if next(invocations) == 2:
            os.kill(os.getpid(), number)

    def interrupt_again(workspace: Workspace) -> None:
        signal.raise_signal(number)
        delete_objects(workspace)

    deployed.before_invoking = interrupt
    monkeypatch.setattr(Workspace, "_delete_objects", interrupt_again)
    # Letters that are being received when the signal comes stay hidden so long.
    monkeypatch.setattr("operate.dead_letters._HIDDEN_SECONDS", 5)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist may ignore Ctrl-C
    try:
        code = deployed.verify()
    finally:
        signal.signal(signal.SIGINT, handler)

    report, progress = capsys.readouterr()
    assert (code, report) == (1, "")
    assert progress.endswith("Interrupted.\n")
    assert next(invocations) > 2
    wait_until(lambda: messages_left(deployed.stack.sqs, deployed.stack.dead_letter_queue_url)[1] == 0)
    assert deployed.left_behind() == []


def test_a_repository_that_exists_already_is_left_alone(
    idle: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "12345678")
    idle.ecr.create("mirror/s3-to-ecr-verify-12345678")

    code = idle.verify()

    report = capsys.readouterr().out
    assert code == 1
    assert "The repository mirror/s3-to-ecr-verify-12345678 exists already" in report
    assert idle.left_behind() == ["mirror/s3-to-ecr-verify-12345678"]


def test_what_is_kept_is_named(idle: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    idle.verify("--keep", "--timeout", "0")

    progress = capsys.readouterr().err
    *objects, repository = [left for left in idle.left_behind() if left != "a message"]
    assert len(objects) == 12
    assert f"kept s3://{idle.bucket}/layers/{repository.removeprefix('mirror/')}/ and the repositories" in progress


def test_a_lacking_permission_is_named_and_so_is_what_is_left_behind(
    idle: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    idle.ecr.faults.add("DeleteRepository", Fault("AccessDeniedException"))

    code = idle.verify("--timeout", "0")

    [repository] = idle.left_behind()
    verdict, seen = rows(capsys.readouterr().out)["nothing is left behind"]
    assert (code, verdict) == (1, "**FAILED**")
    assert f"the repository {repository}. You lack the permission ecr:DeleteRepository" in seen


def test_without_a_permission_to_begin_with_nothing_is_left_behind(
    idle: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    idle.ecr.faults.add("CreateRepository", Fault("AccessDeniedException"))

    assert idle.verify() == 1
    assert "You lack the permission ecr:CreateRepository" in capsys.readouterr().out
    assert idle.left_behind() == []


def test_the_strict_ecr_answers_the_probes_as_the_function_assumes(
    idle: Deployed, operations: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    idle.ecr.part_size = idle.ecr.min_part_bytes = MIN_PART_BYTES

    idle.verify("--timeout", "0", "--probe", "--large-mib", "6")

    report, progress = capsys.readouterr()
    answers = rows(report.partition("## What ECR answers")[2])
    assert len(answers) > 20
    assert {answer[0] for answer in answers.values()} == {"agrees", "noted"}, report
    assert "sent 5 MiB of the large layer" in progress
    assert idle.left_behind() == []
    assert policy("Probe") < {action for operation in operations for action in ACTIONS[operation]} < policy()


@pytest.fixture
def probed(idle: Deployed) -> Callable[[], dict[str, list[str]]]:
    """Runs the probes only, and returns the answers by question."""

    def run() -> dict[str, list[str]]:
        report, session = Report(), boto3.Session()
        deployment = Deployment.find(session, idle.name)
        with closing(Clients(session)) as clients:
            Probes(Workspace(clients, deployment), report, large_bytes=1000).run()
        return rows(report.markdown(deployment).partition("## What ECR answers")[2])

    idle.ecr.part_size = idle.ecr.min_part_bytes = MIN_PART_BYTES
    return run


def test_an_answer_that_contradicts_an_assumption_is_reported(
    idle: Deployed, probed: Callable[[], dict[str, list[str]]]
) -> None:
    idle.ecr.faults.add("CompleteLayerUpload", Fault("InvalidLayerException"), nth=2)

    answers = probed()

    verdict, assumed, answered = answers["the same upload completed twice"]
    assert verdict == "DIFFERS"
    assert assumed == "UploadNotFoundException or LayerAlreadyExistsException"
    assert answered == "InvalidLayerException: a fault on demand"
    assert [row[0] for row in answers.values()].count("DIFFERS") == 1


def test_a_question_that_may_not_be_asked_is_no_answer(
    idle: Deployed, probed: Callable[[], dict[str, list[str]]]
) -> None:
    idle.ecr.faults.add("PutImage", Fault("AccessDeniedException"), times=100)

    answers = probed()

    verdict, _, answered = answers["an image whose layers are missing"]
    assert verdict == "DIFFERS"
    assert "Not asked. You lack the permission ecr:PutImage" in answered


@pytest.mark.usefixtures("cloudformation")
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "There is no AWS region. Set AWS_REGION"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "There are no AWS credentials."),
        ({"AWS_PROFILE": "nobody"}, "AWS could not be asked: The config profile (nobody) could not be found"),
        ({}, "There is no stack nowhere in eu-central-1."),
        ({"AWS_ENDPOINT_URL_CLOUDFORMATION": "http://127.0.0.1:9"}, "AWS could not be asked: Could not connect"),
    ],
)
def test_a_run_that_cannot_begin_ends_with_one_sentence(environment: dict[str, str], message: str) -> None:
    done = run_python("-m", "verify", "--stack", "nowhere", **environment)

    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
