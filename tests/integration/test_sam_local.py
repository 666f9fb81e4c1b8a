"""README's commands for one's own machine, with the real SAM CLI and containers, in a copy of the repository."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local import images
from local.layers import layer
from local.samples import SAMPLES
from local.stack import BUCKET, REGION, REPOSITORY, Stack, free_port
from tests.conftest import ROOT, messages_left, needed_engine, wait_until
from tests.doubles.checkout import copy_repository, run_in, shell_environment

INVOKE = "sam build && sam local invoke --config-env local -e events/s3-put.json"
START_LAMBDA = "sam local start-lambda --config-env local --warm-containers LAZY"


@dataclass
class Checkout:
    """A copy of the repository in which `make local` runs, with the variables that a shell there has."""

    folder: Path
    stack: Stack
    lambda_endpoint: str
    environment: dict[str, str]

    def layers(self, *digests: str) -> list[str]:
        """The availability of these layers in ECR."""
        checked = self.stack.ecr.batch_check_layer_availability(repositoryName=REPOSITORY, layerDigests=list(digests))
        return [entry["layerAvailability"] for entry in checked["layers"]]


@contextmanager
def sigint_enabled() -> Iterator[None]:
    """Programs that are started in this context end on SIGINT, even if the tests ignore it.

    A script's `make test &` ignores SIGINT, and its child processes inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str], until: str) -> Iterator[str]:
    """Runs a program in its own process group, and ends it as Ctrl-C does. Yields its output once `until` is in it."""
    with tempfile.TemporaryDirectory() as own:
        # A file, because a pipe that nobody reads fills up and blocks the program.
        output = Path(own, "output")
        with output.open("wb") as file, sigint_enabled():
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            while until not in (printed := output.read_text()):
                assert process.poll() is None, printed
                time.sleep(0.1)
            yield printed
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process group as Ctrl-C does, or by force if it takes too long."""
    with suppress(ProcessLookupError):  # it may have ended by itself
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_ctrl_c_ends_a_program_even_if_the_tests_ignore_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        start = time.monotonic()
        with started(
            [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(90)"],
            tmp_path,
            dict(os.environ),
            until="begun",
        ):
            pass
        assert time.monotonic() - start < 30
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_program_with_much_output_does_not_block(tmp_path: Path) -> None:
    script = "from pathlib import Path; print('begun', flush=True); print('.' * 1_000_000); Path('printed').touch()"
    with started([sys.executable, "-c", script], tmp_path, dict(os.environ), until="begun"):
        wait_until((tmp_path / "printed").exists)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    needed_engine()
    folder = tmp_path_factory.mktemp("checkout")
    copy_repository(folder)
    port, lambda_endpoint = free_port(), f"http://127.0.0.1:{free_port()}"
    environment = shell_environment() | {"AWS_ENDPOINT_URL_LAMBDA": lambda_endpoint}
    with started(["make", "local", f"PORT={port}"], folder, environment, until="export no_proxy") as printed:
        variables = dict(re.findall(r"^ *export (\w+)=(.*)$", printed, re.MULTILINE))
        stack = Stack(variables["AWS_ENDPOINT_URL"], variables["QUEUE_URL"], variables["DEAD_LETTER_QUEUE_URL"])
        yield Checkout(folder, stack, lambda_endpoint, environment)
    assert not list((folder / ".aws-sam").glob("local-*"))


def sample_digest(ending: str) -> str:
    return images.digest_of(next(sample.body for sample in SAMPLES if sample.key.endswith(ending)))


def test_readmes_command_uploads_the_sample_from_a_container(checkout: Checkout) -> None:
    assert INVOKE in (ROOT / "README.md").read_text()
    digest = sample_digest("put.layer")
    assert checkout.layers(digest) == []

    printed = run_in(checkout.folder, checkout.environment, "bash", "-c", INVOKE)

    [result] = json.loads(printed.splitlines()[-1])["results"]
    assert (result["action"], result["repository"], result["digest"]) == ("uploaded", REPOSITORY, digest)
    assert checkout.layers(digest) == ["AVAILABLE"]


@pytest.fixture(scope="module")
def served(checkout: Checkout) -> Iterator[Any]:
    """`sam local start-lambda`, and a client of it."""
    if not (checkout.folder / ".aws-sam/build").exists():
        run_in(checkout.folder, checkout.environment, "sam", "build")
    command = [*START_LAMBDA.split(), "--port", checkout.lambda_endpoint.rpartition(":")[2]]
    with started(command, checkout.folder, checkout.environment, until="Press CTRL+C"):
        client = boto3.client(
            "lambda",
            endpoint_url=checkout.lambda_endpoint,
            region_name=REGION,
            config=Config(proxies={}, read_timeout=120, retries={"total_max_attempts": 1}),
        )
        yield client
        client.close()


@pytest.mark.parametrize("path", sorted((ROOT / "events").glob("*.json")), ids=lambda path: path.stem)
def test_every_sample_event_is_mirrored_in_a_container(checkout: Checkout, served: Any, path: Path) -> None:
    if path.stem == "zstd" and platform.machine() == "x86_64":
        pytest.skip("the build is for arm64, and zstd has no module in Python 3.13 that runs on x86_64 as well")
    invoked = served.invoke(FunctionName="Function", Payload=path.read_bytes())

    answer = json.load(invoked["Payload"])
    assert "errorMessage" not in answer, answer
    if "batchItemFailures" in answer:
        assert answer["batchItemFailures"] == []
        # A rejected object would be in the dead-letter queue.
        assert "Messages" not in checkout.stack.sqs.receive_message(QueueUrl=checkout.stack.dead_letter_queue_url)
    elif "invocationSchemaVersion" in answer:
        assert {result["resultCode"] for result in answer["results"]} == {"Succeeded"}
    else:
        assert answer["results"]
    for result in answer.get("results", []):
        if result.get("images"):
            for image in result["images"]:
                checkout.stack.ecr.describe_images(
                    repositoryName=image["repository"], imageIds=[{"imageDigest": image["digest"]}]
                )
        elif "action" in result:
            folder = result["key"].endswith("/")
            assert checkout.layers(result["digest"]) == ["AVAILABLE"] if not folder else result["action"] == "ignored"


def test_an_object_in_the_local_bucket_is_uploaded_to_ecr(checkout: Checkout, served: Any) -> None:
    assert served
    assert START_LAMBDA in (ROOT / "docs/local.md").read_text()
    content = layer("srv/hello.txt", b"Hello, two terminals!\n")
    checkout.stack.s3.put_object(Bucket=BUCKET, Key=f"{REPOSITORY}/two terminals.layer", Body=content)

    deadline = time.monotonic() + 60
    while checkout.layers(images.digest_of(content)) != ["AVAILABLE"]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    # The function may still be busy, and `sam local` takes longer to end a busy container.
    wait_until(lambda: messages_left(checkout.stack.sqs, checkout.stack.queue_url) == (0, 0))
