"""`make wait KEY=…`: waits until an object is mirrored, and fails if it is rejected.

Nobody else has to answer for this: no event bus, no queue and no log. The function itself is asked, with a task as S3
Batch Operations sends them. It answers what has become of the object. If that is still to come, it does it now.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote_plus

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from operate import stacks

_USAGE: Final = "Usage: make wait KEY=team/app/1.0.tar [STACK=…] [TIMEOUT=seconds]"

# An invocation takes up to 15 minutes. The SDK must neither lose patience before that, nor start a second one.
_CONFIG: Final = Config(read_timeout=910, tcp_keepalive=True, retries={"total_max_attempts": 1})

# The first pause between two questions. Each is twice as long as the one before, up to the longest.
_FIRST_PAUSE_SECONDS: Final = 2
_LONGEST_PAUSE_SECONDS: Final = 30

_DEFAULT_TIMEOUT_SECONDS: Final = 3600


class Waiting:
    """Asks the function `name` about the object `key` in the `bucket`. `functions` is a client of Lambda."""

    def __init__(self, functions: Any, name: str, bucket: str, key: str) -> None:
        self._functions = functions
        self._name = name
        self._task = {"taskId": "make-wait", "s3Bucket": bucket, "s3Key": quote_plus(key), "s3VersionId": None}

    def ask(self) -> tuple[str, str]:
        """The result of the task: its code as in S3 Batch Operations, and a sentence.

        An invocation that was refused, killed or lost counts as a `TemporaryFailure`.
        """
        event = {
            "invocationSchemaVersion": "2.0",
            "invocationId": "make-wait",
            "job": {"id": "make-wait"},
            "tasks": [self._task],
        }
        try:
            answer = self._functions.invoke(FunctionName=self._name, Payload=json.dumps(event))
        except ClientError as error:
            if error.response["Error"]["Code"] != "TooManyRequestsException":
                raise
            return "TemporaryFailure", "the function is at its limit of concurrency"
        except BotoCoreError as error:
            return "TemporaryFailure", f"the function could not be asked: {error}"
        payload = json.load(answer["Payload"])
        if "FunctionError" in answer:
            return "TemporaryFailure", f"the function failed: {payload.get('errorMessage', payload)}"
        [result] = payload["results"]
        return result["resultCode"], result["resultString"]


def wait(ask: Callable[[], tuple[str, str]], timeout: float, say: Callable[[str], None]) -> tuple[bool, str]:
    """Asks until the object is mirrored or rejected, for `timeout` seconds.

    Returns whether it is mirrored, and a sentence about it. What it waits for is said whenever that changes.
    """
    end = time.monotonic() + timeout
    pause: float = _FIRST_PAUSE_SECONDS
    said = ""
    while True:
        code, reason = ask()
        if code == "Succeeded":
            return not reason.startswith("ignored"), reason
        if code == "PermanentFailure":
            return False, f"REJECTED {reason}"
        if time.monotonic() + pause > end:
            return False, f"not mirrored within {timeout:g} seconds. {reason}"
        if reason != said:
            say(f"waits: {reason}")
            said = reason
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def main() -> None:
    """Waits for the object KEY of the stack STACK. The exit status is 1 unless it is mirrored."""
    key, timeout = _given()
    with stacks.errors_in_one_line():
        session = stacks.open_session()
        function, bucket = stacks.outputs(session, "FunctionName", "BucketName")
        asked = Waiting(session.client("lambda", config=_CONFIG), function, bucket, key)
        mirrored, outcome = wait(asked.ask, timeout, _say)
    sentence = stacks.printable(f"s3://{bucket}/{key}: {outcome}")
    if not mirrored:
        sys.exit(sentence)
    print(sentence)


def _say(sentence: str) -> None:
    print(stacks.printable(sentence), file=sys.stderr, flush=True)


def _given() -> tuple[str, float]:
    """The key and the timeout in seconds."""
    key, timeout = os.environ.get("KEY"), os.environ.get("TIMEOUT") or str(_DEFAULT_TIMEOUT_SECONDS)
    if not key:
        sys.exit(f"KEY is missing. {_USAGE}")
    if not timeout.isdecimal():
        sys.exit(f"TIMEOUT is {timeout!r}: it takes a number of seconds. {_USAGE}")
    return key, float(timeout)


if __name__ == "__main__":
    main()
