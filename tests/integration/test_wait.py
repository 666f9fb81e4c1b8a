"""`make wait`, with the function between the doubles behind Lambda's API, and a double of CloudFormation."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local import images
from local.invocation import Invocation
from local.stack import BUCKET
from operate import wait
from tests.doubles.cloudformation import CloudFormationDouble, Described
from tests.doubles.function import Function
from tests.doubles.layouts import AMD64, put, put_all
from tests.doubles.s3 import S3Double
from tests.doubles.server import Fault, Faults, QuietHandler, serving

FUNCTION = "s3-to-ecr-Function-1"


class Lambda:
    """Lambda's API for invoking one function. Faults for "Invoke" with the status 200 are errors of the function."""

    def __init__(self, function: Function) -> None:
        self.faults = Faults()
        self.invocations = 0
        self._function = function

    def invoke(self, event: Any) -> tuple[int, dict[str, str], Any]:
        """The status, headers and payload of the answer to an invocation."""
        self.invocations += 1
        fault = self.faults.take("Invoke")
        if fault is None:
            return 200, {}, self._function.lambda_handler(event, Invocation())
        if fault.status == 200:
            return 200, {"X-Amz-Function-Error": "Unhandled"}, {"errorMessage": fault.code}
        return fault.status, {"x-amzn-ErrorType": str(fault.code)}, {"message": "a fault on demand"}


@pytest.fixture
def behind_lambda(
    handler: Function, cloudformation: CloudFormationDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lambda]:
    """The test's function as one of a deployed stack."""
    double = Lambda(handler)

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            assert self.path == f"/2015-03-31/functions/{FUNCTION}/invocations"
            status, headers, payload = double.invoke(json.loads(self.body()))
            self.reply(status, json.dumps(payload).encode(), headers)

    name = f"stack-{uuid.uuid4().hex}"
    cloudformation.stacks[name] = Described(outputs={"FunctionName": FUNCTION, "BucketName": BUCKET})
    monkeypatch.setenv("STACK", name)
    monkeypatch.setattr(wait, "_FIRST_PAUSE_SECONDS", 0)
    with serving(Handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        yield double


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs `make wait` with these variables. Returns what it prints, and what it tells while it waits."""

    def run_with(**variables: str) -> tuple[str, str]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            wait.main()
        printed = capsys.readouterr()
        return "".join(line for line in printed.out.splitlines(True) if not line.startswith("{")), printed.err

    return run_with


def test_an_object_is_waited_for_whether_it_is_done_already_or_not(
    behind_lambda: Lambda, run: Callable[..., tuple[str, str]], s3_double: S3Double
) -> None:
    put(s3_double, "app/a b+ä", b"a layer")

    for action in ("uploaded", "skipped"):
        printed, _ = run(KEY="app/a b+ä")
        assert printed.startswith(f"s3://{BUCKET}/app/a b+ä: {action}, app, sha256:")
    assert behind_lambda.invocations == 2


def test_what_an_image_waits_for_is_told_until_it_comes(
    behind_lambda: Lambda,
    run: Callable[..., tuple[str, str]],
    s3_double: S3Double,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_all(s3_double, images.oci_layout({"1.0": AMD64}))
    complete = dict(s3_double.objects)
    for digest in AMD64.blobs:
        del s3_double.objects[f"app/blobs/{digest.replace(':', '/')}"]
    monkeypatch.setattr("operate.wait.time.sleep", lambda _: s3_double.objects.update(complete))

    printed, told = run(KEY="app/index.json")

    assert printed == f"s3://{BUCKET}/app/index.json: pushed, app, {AMD64.digest}\n"
    [line] = [line for line in told.splitlines() if line.startswith("waits: ")]
    assert line.startswith("waits: BlobsMissing: ")
    assert behind_lambda.invocations == 2


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("app/empty", "REJECTED EmptyBlob: "),
        ("app/missing", "REJECTED ObjectMissing: "),
        ("app/folder/", "ignored, a folder marker"),
    ],
)
@pytest.mark.usefixtures("behind_lambda")
def test_an_object_that_is_not_mirrored_fails_with_the_reason(
    run: Callable[..., tuple[str, str]], s3_double: S3Double, key: str, said: str
) -> None:
    for name in ("app/empty", "app/folder/"):
        put(s3_double, name, b"")

    with pytest.raises(SystemExit) as stopped:
        run(KEY=key)
    assert str(stopped.value.code).startswith(f"s3://{BUCKET}/{key}: {said}")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("TooManyRequestsException", status=429), "waits: the function is at its limit of concurrency"),
        (Fault("Task timed out", status=200), "waits: the function failed: Task timed out"),
    ],
)
def test_an_invocation_that_fails_is_repeated(
    behind_lambda: Lambda, run: Callable[..., tuple[str, str]], s3_double: S3Double, fault: Fault, said: str
) -> None:
    put(s3_double, "app/x", b"a layer")
    behind_lambda.faults.add("Invoke", fault, times=2)

    printed, told = run(KEY="app/x")

    assert "uploaded, app" in printed
    assert told.count(said) == 1
    assert behind_lambda.invocations == 3


def test_waiting_ends_with_the_timeout(
    behind_lambda: Lambda, run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_FIRST_PAUSE_SECONDS", 1)
    behind_lambda.faults.add("Invoke", Fault("Task timed out", status=200))

    with pytest.raises(SystemExit, match=r"app/x: not mirrored within 0 seconds\. the function failed: Task timed out"):
        run(KEY="app/x", TIMEOUT="0")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "KEY is missing. Usage: make wait KEY="),
        ({"KEY": "app/x", "TIMEOUT": "5m"}, "TIMEOUT is '5m': it takes a number of seconds."),
        ({"KEY": "app/x", "STACK": "nosuch"}, "There is no stack nosuch in "),
    ],
)
def test_a_request_that_is_not_clear_asks_nothing(
    behind_lambda: Lambda, run: Callable[..., tuple[str, str]], variables: dict[str, str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(**variables)

    assert str(stopped.value.code).startswith(said)
    assert behind_lambda.invocations == 0


def test_a_function_that_may_not_be_invoked_is_reported(
    behind_lambda: Lambda, run: Callable[..., tuple[str, str]]
) -> None:
    behind_lambda.faults.add("Invoke", Fault("AccessDeniedException", status=403))

    with pytest.raises(SystemExit, match="AWS refused Invoke: a fault on demand"):
        run(KEY="app/x")
