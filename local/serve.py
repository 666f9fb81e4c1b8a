"""`make local`: the stack, with the samples in its bucket, until Ctrl-C; for `sam local` and everything else."""

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
from local.samples import put_samples
from local.stack import BUCKET, REPOSITORY, Stack, running

_POLL_SECONDS: Final = 0.5
_LAST_PORT: Final = 65535


def main() -> None:
    """Serves on PORT, 5000 unless set; beside this machine to its containers, or else to HOST."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the server, too, as Ctrl-C does
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
    """Where containers see this machine: as HOST says, or else as the container engine does."""
    given = os.environ.get("HOST")
    if not given:
        return gateway()
    return own_address(given) or sys.exit(
        f"HOST is {given!r}, which is not an IPv4 address of this machine. "
        "Name the one at which its containers see it, or leave HOST out."
    )


def serve(stack: Stack) -> None:
    """Fills the stack, tells about it, and brings messages to the function until it is interrupted."""
    with settings_for_sam(stack):
        put_samples(stack.s3)
        # The samples are there for the events of events/: what is put from now on is the queue's.
        stack.sqs.purge_queue(QueueUrl=stack.queue_url)
        print(f"The local stack serves at {stack.endpoint}, until Ctrl-C.")
        print(f"  bucket      {BUCKET}, with the objects of events/")
        print(f"  repository  {REPOSITORY}")
        print(f"  queue       {stack.queue_url}")
        print("  function    sam build && sam local invoke --config-env local -e events/s3-put.json")
        print("              or, to have the queue's messages brought to it: sam local start-lambda --config-env local")
        print("A shell's variables for it:")
        for name, value in stack.environment.items():
            print(f"  export {name}={value}", flush=True)
        source = EventSource(stack)
        while True:
            told = source.deliver()
            if told:
                print(told, flush=True)
            else:
                time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
