"""A process that runs the handler like Lambda's: one invocation at a time, in parallel with others, killed on demand.

`Worker` is the test's side. The process reads one JSON line for each invocation, and answers with another:
`{"event": …, "kill": [n, "before" | "after"] | null, "clock": seconds}`. With `kill`, the invocation runs in a child
that kills itself at the n-th request to AWS, before it is sent or after the response. `clock` is how many seconds the
leases' clock is ahead, so that leases end without waiting.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from local.invocation import Invocation
from s3_to_ecr.errors import S3ToEcrError
from tests.doubles.function import Function

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """One such process. It must be closed."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.worker"],
            cwd=ROOT,
            env=os.environ
            | environment
            | {
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
                "POWERTOOLS_LOG_LEVEL": "CRITICAL",
                "POWERTOOLS_METRICS_DISABLED": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def invoke(self, event: dict[str, Any], kill: tuple[int, str] | None = None, clock: float = 0) -> Any:
        """The handler's answer; `"killed"`; or, when it raised, the error's name."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"event": event, "kill": kill, "clock": clock}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        assert self._process.returncode == 0


def _kill_at(function: Function, number: int, when: str) -> None:
    """Kills this process, like Lambda's timeout, at a request of the function's clients."""
    sent = 0
    lock = threading.Lock()

    def before(**_: object) -> None:
        nonlocal sent
        with lock:
            sent += 1
            if sent == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)

    def after(**_: object) -> None:
        if sent >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    clients = [function.clients.s3, function.clients.ecr, function.clients.dynamodb]
    if os.environ.get("OUTCOME_BUS"):
        clients.append(function.clients.events)
    for client in clients:
        client.meta.events.register("before-send", before)
        client.meta.events.register("response-received", after)


def _invoke(function: Function, event: dict[str, Any]) -> Any:
    try:
        return function.lambda_handler(event, Invocation())
    except S3ToEcrError as error:
        return type(error).__name__


def _invoke_and_be_killed(function: Function, event: dict[str, Any], kill: list[Any]) -> Any:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _kill_at(function, *kill)
        os.write(writer, json.dumps(_invoke(function, event)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        output = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(output) if os.waitstatus_to_exitcode(status) == 0 else "killed"


def main() -> None:
    function = Function()
    for line in sys.stdin:
        request = json.loads(line)
        function.clock_ahead = request["clock"]
        if request["kill"]:
            answer = _invoke_and_be_killed(function, request["event"], request["kill"])
        else:
            answer = _invoke(function, request["event"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
