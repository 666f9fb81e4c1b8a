from __future__ import annotations

import tests.environment  # noqa: F401 (it must precede all that reads the environment)

# isort: split
import fcntl
import functools
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import hypothesis
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from local.event import message
from local.invocation import Invocation
from local.stack import Stack, create_state_table, running
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.cloudformation import CloudFormationDouble
from tests.doubles.dynamodb import DynamoDBDouble
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.s3 import S3Double

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient
    from types_boto3_ecr.client import ECRClient
    from types_boto3_s3.client import S3Client
    from types_boto3_sqs.client import SQSClient

ROOT = Path(__file__).parent.parent

# The type of `load_handler`, which creates a function in an environment.
Load = Callable[..., Function]

# botocore would read a service's model once for each session, which takes 10 MB. The tests make hundreds of sessions.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# The duration of an example depends on the machine more than on the code.
hypothesis.settings.register_profile("s3-to-ecr", deadline=None)
hypothesis.settings.load_profile("s3-to-ecr")


def sqs_message(body: str, number: int = 1, received: int = 1) -> dict[str, Any]:
    """One record of the event that Lambda makes of the messages it polled."""
    [record] = message(body, f"message-{number}", f"receipt-{number}", received)["Records"]
    return dict(record)


def messages_left(sqs: SQSClient, queue_url: str) -> tuple[int, int]:
    """The numbers of visible and of waiting messages on a queue."""
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes: Any = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return int(attributes[names[0]]), int(attributes[names[1]])


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of the repository, with these variables added to the tests' environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits at most ten seconds for another thread to make the condition true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def needed(found: bool, what: str) -> None:
    """Skips a test on a machine without a tool; under CI a missing tool is a failure."""
    if not found:
        assert os.environ.get("CI") != "true", what
        pytest.skip(what)


def needed_engine() -> None:
    """The same for a container engine that answers."""
    asked = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False)  # noqa: S607 (the machine's)
    needed(bool(asked and asked.returncode == 0), "no container engine answers")


def pytest_collection_finish() -> None:
    """Collects garbage less often, and never in imported modules. Making clients would cause many collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


# For clients that must not retry errors.
ONE_ATTEMPT = Config(retries={"mode": "standard", "total_max_attempts": 1})


@contextmanager
def stubbed(client: S3Client | SQSClient) -> Iterator[Stubber]:
    """A stub of the client. All of its responses must be used."""
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


@pytest.fixture
def much_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For a test whose processes take hundreds of megabytes: no other such test runs at the same time."""
    with Path(tmp_path_factory.getbasetemp().parent, "much-memory").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def context() -> Invocation:
    return Invocation()


@pytest.fixture
def ecr() -> EcrDouble:
    """An ECR without a network, with the repository `app` and parts of 4 bytes."""
    return EcrDouble(part_size=4).create("app")


@pytest.fixture
def ecr_client(ecr: EcrDouble) -> ECRClient:
    client = boto3.client("ecr", config=Config(retries={"mode": "standard", "total_max_attempts": 2}))
    ecr.attach(client)
    return client


@pytest.fixture
def dynamodb() -> DynamoDBClient:
    """A DynamoDB without a network, with the table `state`."""
    double = DynamoDBDouble()
    double.tables["state"] = {}
    client = boto3.client("dynamodb", config=ONE_ATTEMPT)
    double.attach(client)
    return client


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """A function that returns the lines logged so far."""
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def metrics(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    """A function that returns the metrics emitted since its last call, each as a sum or as its values."""

    def emitted() -> dict[str, Any]:
        sums: dict[str, Any] = {}
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("{") and "_aws" in (entry := json.loads(line)):
                for metric in entry["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                    sums[metric["Name"]] = sums.get(metric["Name"], 0) + sum(entry[metric["Name"]])
        return sums

    return emitted


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The local stack, shared by all tests. Each test uses its own keys."""
    with running() as stack:
        yield stack


@pytest.fixture
def fresh(stack: Stack) -> Iterator[dict[str, str]]:
    """The stack's environment, with a new, empty state table."""
    table = f"state-{uuid.uuid4().hex}"
    create_state_table(stack.dynamodb, table)
    yield stack.environment | {"STATE_TABLE": table}
    stack.dynamodb.delete_table(TableName=table)


@pytest.fixture
def strict_ecr() -> Iterator[EcrDouble]:
    """A strict ECR over HTTP, with the repository `app` and parts of ECR's size."""
    with EcrDouble().create("app").running() as double:
        yield double


@pytest.fixture
def s3_double() -> Iterator[S3Double]:
    with S3Double().running() as double:
        yield double


@pytest.fixture
def state() -> Iterator[DynamoDBDouble]:
    """A DynamoDB over HTTP, with the table `state`."""
    with DynamoDBDouble().running() as double:
        double.tables["state"] = {}
        yield double


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudFormationDouble]:
    """A CloudFormation over HTTP, without stacks, for all clients that the test makes."""
    with CloudFormationDouble().running() as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", double.url)
        yield double


@pytest.fixture
def doubled(stack: Stack, s3_double: S3Double, strict_ecr: EcrDouble, state: DynamoDBDouble) -> dict[str, str]:
    """The environment of a function between the doubles, with the stack's queues."""
    return stack.environment | {
        "STATE_TABLE": "state",
        "AWS_ENDPOINT_URL_S3": s3_double.url,
        "AWS_ENDPOINT_URL_ECR": strict_ecr.url,
        "AWS_ENDPOINT_URL_DYNAMODB": state.url,
    }


# Keeps layers of many parts small.
SMALL_PART = 1000


@pytest.fixture
def small_parts(strict_ecr: EcrDouble) -> None:
    """Sets the strict ECR's part size to `SMALL_PART`."""
    strict_ecr.part_size = strict_ecr.min_part_bytes = SMALL_PART


@pytest.fixture
def handler(doubled: dict[str, str], load_handler: Load) -> Function:
    """The function between the doubles."""
    return load_handler(doubled)


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the SDK's waits between attempts."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.fixture
def gremlin(handler: Function) -> Iterator[Gremlin]:
    """A gremlin in the clients of the test's `handler`."""
    gremlin = Gremlin(handler.clients)
    yield gremlin
    gremlin.close()


@pytest.fixture
def load_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Creates functions, each in the given environment."""
    loaded: list[Function] = []

    def load(environment: dict[str, str], **more: str) -> Function:
        for name, value in (environment | more).items():
            monkeypatch.setenv(name, value)
        loaded.append(Function())
        return loaded[-1]

    yield load
    for function in loaded:
        function.close()
    loaded.clear()


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcomes]:
    """The outcomes of each invocation so far."""
    made: list[Outcomes] = []

    def make() -> Outcomes:
        made.append(Outcomes())
        return made[-1]

    monkeypatch.setattr("s3_to_ecr.app.Outcomes", make)
    return made
