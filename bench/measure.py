"""Runs the measurements in rounds, each in its own process, and computes medians."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from bench.contestants import Measure, Task, peak_bytes
from bench.servers import ROOT, Servers
from bench.wire import digest_of
from local.runtime_emulator import (
    PYTHON,
    TEST_MESSAGE,
    build_for_this_machine,
    emulated,
    invoke,
    link_runtime_client,
)
from local.stack import REGION
from operate.build import compile_modules

MIB = 1024 * 1024
GIB = 1024 * MIB
FOLDER = "bench/"

# Free of the user's account, settings and proxy.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POWERTOOLS_"))} | {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
    "STATE_TABLE": "state",
}

K = TypeVar("K")
T = TypeVar("T")


class SkopeoFailed(RuntimeError):
    """skopeo's exit code was not 0. Its message is on standard error."""


def interleaved(rounds: int, runs: Mapping[K, Callable[[], T]]) -> dict[K, list[T]]:
    """The results of each run. The runs take turns, so that a disturbance of the machine affects all of them."""
    found: dict[K, list[T]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def median(measures: list[Measure]) -> Measure:
    """The median of each figure."""
    return Measure(
        statistics.median(measure.cpu_seconds for measure in measures),
        statistics.median(measure.wall_seconds for measure in measures),
        round(statistics.median(measure.peak_bytes for measure in measures)),
    )


def transfer(contestant: str, servers: Servers, size: int, *, known: bool, folder: str = FOLDER) -> Measure:
    """One transfer by a contestant. In the folder `VERIFIED` the sink checks every byte."""
    task = Task(servers.source, servers.sink, folder, size, digest_of(size), known)
    # Standard output has only the contestant's log.
    trusted = {"AWS_CA_BUNDLE": str(servers.trusted)} if servers.trusted else {}
    done = python("-m", "bench.contestants", contestant, json.dumps(asdict(task)), **trusted)
    return Measure(**json.loads(done.stderr.splitlines()[-1]))


def archive(what: str, servers: Servers, path: Path) -> Measure:
    """The cost to `push` an image archive, or only to `unpack` it."""
    done = python("-m", "bench.archives", what, str(path), servers.source, servers.sink)
    return Measure(**json.loads(done.stderr.splitlines()[-1]))


def pushed_images(servers: Servers, path: Path) -> Measure:
    """The cost to push the images of an OCI layout, which the source has as the file says."""
    done = python("-m", "bench.images", str(path), servers.source, servers.sink)
    return Measure(**json.loads(done.stderr.splitlines()[-1]))


def skopeo_archive(servers: Servers, path: Path) -> Measure:
    """`skopeo copy --preserve-digests` of an image archive to a registry, which takes its layers as they are."""
    return _skopeo(f"docker-archive:{path}", f"docker://{urlsplit(servers.sink).netloc}/{FOLDER}archive:latest")


def skopeo(servers: Servers, size: int, folder: str = FOLDER) -> Measure:
    """`skopeo copy --preserve-digests` of an image with that one layer, from registry to registry."""
    images = [f"docker://{urlsplit(url).netloc}/{folder}{size}:latest" for url in (servers.source, servers.sink)]
    return _skopeo(*images)


def _skopeo(*images: str) -> Measure:
    with tempfile.TemporaryDirectory() as home:
        command = ["skopeo", "copy", "--preserve-digests", "--insecure-policy", "--quiet", "--tmpdir", home]
        command += ["--src-tls-verify=false", "--dest-tls-verify=false", *images]
        started = time.monotonic()
        process = subprocess.Popen(command, env=_ENVIRONMENT | {"HOME": home, "XDG_DATA_HOME": home})
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, peak_bytes(str(process.pid)))
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SkopeoFailed(f"skopeo failed with exit code {process.returncode}")
    return Measure(usage.ru_utime + usage.ru_stime, time.monotonic() - started, peak)


def skopeo_version() -> str | None:
    """The version of the installed skopeo, if there is one."""
    if not shutil.which("skopeo"):
        return None
    return subprocess.run(["skopeo", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()  # noqa: S607


# A function that does nothing but what any function with these clients has to do.
_BOTO3 = """
import boto3

clients = [boto3.client(name) for name in ("s3", "ecr", "dynamodb")]


def lambda_handler(event, context):
    return {}
"""


class Functions:
    """The built function, without bytecode as `sam build` leaves it and with, and boto3's rival in the same folders."""

    def __init__(self, folder: Path) -> None:
        self._client = folder / "client"
        self._client.mkdir()
        link_runtime_client(self._client)
        built = build_for_this_machine(folder)
        (built / "three_clients.py").write_text(_BOTO3)
        self._folders = {False: built, True: folder / "compiled"}
        shutil.copytree(built, self._folders[True])
        if problem := compile_modules(self._folders[True], PYTHON):
            raise RuntimeError(problem)

    def cold_start(self, module: str, *, compiled: bool) -> float:
        """Seconds from the first request to a new function in Lambda's runtime emulator to its answer."""
        environment = {name: value for name, value in _ENVIRONMENT.items() if name != "PYTHONPATH"}
        with emulated(self._folders[compiled], self._client, environment, f"{module}.lambda_handler") as url:
            started = time.monotonic()
            answer = invoke(url, TEST_MESSAGE)
            seconds = time.monotonic() - started
        if "errorMessage" in answer:
            raise RuntimeError(f"The function {module} failed: {answer}")
        return seconds


def import_seconds(**environment: str) -> dict[str, float]:
    """Seconds that the handler's import takes for each group of modules, by `python -X importtime`."""
    report = python("-X", "importtime", "-c", "import handler", **environment).stderr
    found: dict[str, float] = {}
    for line in report.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            group = _GROUPS.get(name.strip().partition(".")[0], "the standard library and the rest")
            found[group] = found.get(group, 0) + int(own) / 1e6
    return found


_SDK = "boto3, botocore and their dependencies"
_GROUPS = {
    **dict.fromkeys(("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six"), _SDK),
    "aws_lambda_powertools": "Powertools",
    "s3_to_ecr": "this project's modules",
    "pybase64": "pybase64",
    "handler": "the handler itself: creating three clients",
}


def calls() -> dict[str, list[str]]:
    """The calls for one small object in each case."""
    found: dict[str, list[str]] = json.loads(python("-m", "bench.calls").stdout.splitlines()[-1])
    return found


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the function's modules in the bench's environment, extended by these variables."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=_ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"python {arguments[:3]} failed:\n{done.stderr[-3000:]}")
    return done
