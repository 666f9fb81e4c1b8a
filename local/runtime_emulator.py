"""Lambda's runtime interface emulator: runs a built function behind Lambda's own runtime API, without a container."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import awslambdaric

from local.stack import DIRECT, free_port

ROOT: Final = Path(__file__).parent.parent
SAM_VENV: Final = ROOT / ".venv/sam"
ARCHITECTURE: Final = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]

# The Python that runs this: a function that runs here has to be built for it.
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

# S3 sends it to a new queue. The function answers it without a call to AWS.
TEST_MESSAGE: Final = json.dumps(
    {"Records": [{"eventSource": "aws:sqs", "messageId": "1", "body": json.dumps({"Event": "s3:TestEvent"})}]}
).encode()


def build_for_this_machine(folder: Path) -> Path:
    """Builds the function with the SAM CLI on the PATH for this machine's processor and Python. Returns where it is."""
    template, built = folder / "template.yaml", folder / "build"
    text = (ROOT / "template.yaml").read_text()
    if text.count("Runtime: python3.13") != 1:
        raise ValueError("template.yaml names another runtime than Python 3.13")
    template.write_text(text.replace("Runtime: python3.13", f"Runtime: python{PYTHON}"))
    command = ["sam", "build", "--template-file", str(template), "--base-dir", str(ROOT), "--build-dir", str(built)]
    command += ["--config-file", str(ROOT / "samconfig.toml"), "--parameter-overrides", f"Architecture={ARCHITECTURE}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        command, env=environment | {"SAM_CLI_TELEMETRY": "0"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"sam build failed:\n{done.stdout}{done.stderr}")
    return built / "Function"


def link_runtime_client(folder: Path) -> None:
    """Links Lambda's runtime client alone, so the other packages here cannot replace what a build lacks."""
    site = Path(awslambdaric.__file__).parent.parent
    for pattern in ("awslambdaric", "runtime_client*", "simplejson", "snapshot_restore_py*"):
        for path in site.glob(pattern):
            (folder / path.name).symlink_to(path)


@contextmanager
def emulated(
    built: Path, client: Path, environment: Mapping[str, str], handler: str = "handler.lambda_handler"
) -> Iterator[str]:
    """The built function in the emulator, with Lambda's runtime client in the folder `client`. Yields its URL.

    The function starts with the first invocation.
    """
    [rapid] = SAM_VENV.glob("lib/python3.*/site-packages/samcli/local/rapid")
    port, api_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            rapid / f"aws-lambda-rie-{ARCHITECTURE}",
            f"--runtime-interface-emulator-address=127.0.0.1:{port}",
            f"--runtime-api-address=127.0.0.1:{api_port}",
            # -S: no site-packages. All imports come from the build or the runtime client.
            *(sys.executable, "-S", "-m", "awslambdaric", handler),
        ],
        cwd=built,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{built}:{client}",
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
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def invoke(url: str, event: bytes) -> Any:
    """Invokes the function. Returns its answer, or Lambda's report of what it raised."""
    try:
        with DIRECT.open(url, data=event, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as failed:
        with failed:
            return json.load(failed)


def _wait_for(port: int) -> None:
    """Returns once a program listens on the port. Raises `OSError` if none does within half a minute."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
