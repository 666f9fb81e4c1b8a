"""`sam build` makes a function that runs behind Lambda's own runtime API, without other packages."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awslambdaric
import pytest

from local.samples import SAMPLES, put_samples
from local.stack import DIRECT, REPOSITORY, Stack, free_port
from tests.conftest import ROOT
from tests.doubles.checkout import SAM_VENV, run_in, shell_environment

ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def sam(*arguments: str) -> None:
    run_in(ROOT, shell_environment(), "sam", *arguments)


@pytest.fixture(scope="session", params=["arm64", "x86_64"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `sam build` makes for an architecture."""
    folder = tmp_path_factory.mktemp(f"build-{request.param}")
    sam("build", "--build-dir", str(folder), "--parameter-overrides", f"Architecture={request.param}")
    return folder / "Function"


@pytest.fixture(scope="session")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build for the Python and the processor of this machine: it contains compiled code."""
    folder = tmp_path_factory.mktemp("build")
    template = folder / "template.yaml"
    python = f"Runtime: python3.{sys.version_info.minor}"
    text = (ROOT / "template.yaml").read_text()
    assert text.count("Runtime: python3.13") == 1
    template.write_text(text.replace("Runtime: python3.13", python))
    sam(
        *("build", "--template-file", str(template), "--base-dir", str(ROOT), "--build-dir", str(folder / "build")),
        *("--config-file", str(ROOT / "samconfig.toml")),
        *("--parameter-overrides", f"Architecture={ARCHITECTURES[platform.machine()]}"),
    )
    return folder / "build" / "Function"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Lambda's runtime client alone, so the tests' packages cannot replace what the build lacks."""
    site = Path(awslambdaric.__file__).parent.parent
    for pattern in ("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py*"):
        for path in site.glob(pattern):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@contextmanager
def emulated(built: Path, runtime: Path, environment: dict[str, str]) -> Iterator[str]:
    """The built function behind Lambda's runtime interface emulator. Yields the URL for invocations."""
    [rapid] = SAM_VENV.glob("lib/python3.*/site-packages/samcli/local/rapid")
    emulator = rapid / f"aws-lambda-rie-{ARCHITECTURES[platform.machine()]}"
    port, api_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            emulator,
            f"--runtime-interface-emulator-address=127.0.0.1:{port}",
            f"--runtime-api-address=127.0.0.1:{api_port}",
            # -S: no site-packages. All imports come from the build or the runtime client.
            *(sys.executable, "-S", "-m", "awslambdaric", "handler.lambda_handler"),
        ],
        cwd=built,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{built}:{runtime}",
            "LAMBDA_TASK_ROOT": str(built),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def invoke(url: str, event: bytes) -> Any:
    deadline = time.monotonic() + 30
    while True:
        try:
            with DIRECT.open(url, data=event, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as failed:
            with failed:
                return json.load(failed)  # Lambda's report of a function that failed
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_the_built_function_uploads_the_sample_behind_lambdas_runtime_api(
    runnable: Path, runtime: Path, stack: Stack, fresh: dict[str, str]
) -> None:
    put_samples(stack.s3)
    sample = next(sample for sample in SAMPLES if sample.key.endswith("put.layer"))
    event = (ROOT / "events/s3-put.json").read_bytes()

    with emulated(runnable, runtime, fresh) as url:
        answer = invoke(url, event)

    [result] = answer["results"]
    assert (result["action"], result["key"], result["repository"]) == ("uploaded", sample.key, REPOSITORY)
    assert (result["digest"], result["size"]) == (
        f"sha256:{hashlib.sha256(sample.body).hexdigest()}",
        len(sample.body),
    )
    checked = stack.ecr.batch_check_layer_availability(repositoryName=REPOSITORY, layerDigests=[result["digest"]])
    assert [layer["layerAvailability"] for layer in checked["layers"]] == ["AVAILABLE"]


def test_the_built_function_reports_a_missing_setting(runnable: Path, runtime: Path, stack: Stack) -> None:
    environment = {name: value for name, value in stack.environment.items() if name != "STATE_TABLE"}

    with emulated(runnable, runtime, environment) as url:
        answer = invoke(url, b"{}")

    assert "STATE_TABLE is not set" in answer["errorMessage"]


def test_the_build_contains_only_what_ships(built: Path) -> None:
    shipped = {path.name.split("-")[0].lower() for path in built.glob("[!.]*")}

    assert shipped == {
        "handler.py", "s3_to_ecr", "requirements.txt", "bin", "aws_lambda_powertools", "boto3", "botocore", "dateutil",
        "jmespath", "pybase64", "python_dateutil", "s3transfer", "six", "six.py", "typing_extensions",
        "typing_extensions.py", "urllib3",
    }  # fmt: skip


def test_compiled_code_is_for_lambdas_python_and_the_functions_processor(
    built: Path, request: pytest.FixtureRequest
) -> None:
    processor = {"arm64": ("aarch64", b"\xb7\x00"), "x86_64": ("x86_64", b"\x3e\x00")}
    name, machine = processor[request.node.callspec.params["built"]]
    extensions = list(built.rglob("*.so"))

    assert [extension.parent.name for extension in extensions] == ["pybase64"]
    for extension in extensions:
        assert f"cpython-313-{name}" in extension.name
        assert extension.read_bytes()[18:20] == machine  # e_machine of the ELF header


def test_the_template_is_valid() -> None:
    sam("validate", "--lint")
