"""`make local`: serves the stack with the samples until Ctrl-C, for `sam local` and any other client."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import ExitStack, suppress
from typing import Final

from local.containers import gateway, own_address, settings_for_sam
from local.event_source import EventSource
from local.function_log import FunctionLog
from local.samples import put_samples
from local.stack import BUCKET, BUNDLE_REPOSITORIES, CHART_REPOSITORY, REPOSITORY, Stack, running

_POLL_SECONDS: Final = 0.5
_LAST_PORT: Final = 65535


def main() -> None:
    """Serves on PORT, by default 5000, at 127.0.0.1 and at the address that containers use."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # stops the server as well, like Ctrl-C
    port, host = _port(), _host()
    more_hosts = [host] if host and host != "127.0.0.1" else []
    with suppress(KeyboardInterrupt), ExitStack() as opened:
        try:
            stack = opened.enter_context(running(port, *more_hosts))
        except OSError as error:
            where = " and ".join(["127.0.0.1", *more_hosts])
            sys.exit(f"PORT {port} cannot be used on {where}: {error.strerror}. Choose another: make local PORT=5001")
        serve(stack)
    print("Stopped.")


def _port() -> int:
    given = os.environ.get("PORT") or "5000"
    if not re.fullmatch("[0-9]{1,5}", given) or int(given) > _LAST_PORT:
        sys.exit(f"PORT is {given!r}: it takes a number up to {_LAST_PORT}, as in make local PORT=5001")
    return int(given)


def _host() -> str | None:
    """The address at which containers reach this machine: HOST, or else the container engine's gateway."""
    given = os.environ.get("HOST")
    if not given:
        return gateway()
    return own_address(given) or sys.exit(
        f"HOST is {given!r}, which is not an IPv4 address of this machine. "
        "Use the address at which containers reach this machine, or leave HOST unset."
    )


def serve(stack: Stack) -> None:
    """Fills the stack, prints how to use it, and delivers messages to the function until interrupted."""
    with settings_for_sam(stack):
        put_samples(stack.s3)
        # The samples belong to the events in events/. The queue is for objects uploaded from now on.
        stack.sqs.purge_queue(QueueUrl=stack.queue_url)
        print(f"The local stack is running at {stack.endpoint}. Stop it with Ctrl-C.")
        print(f"  bucket      {BUCKET}, with the objects of events/")
        print(f"  repository  {', '.join([REPOSITORY, *BUNDLE_REPOSITORIES, CHART_REPOSITORY])}; others are created")
        print(f"  queue       {stack.queue_url}")
        print("  function    sam build && sam local invoke --config-env local -e events/s3-put.json")
        print("              or, to receive the queue's messages: sam local start-lambda --config-env local")
        print("Environment variables for a shell:")
        for name, value in stack.environment.items():
            print(f"  export {name}={value}", flush=True)
        source = EventSource(stack, FunctionLog())
        while True:
            line = source.deliver()
            if line:
                print(line, flush=True)
            else:
                time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
