"""`make local`: the stack, with the samples in its bucket, until Ctrl-C; for `sam local` and everything else."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from typing import Final

from local.containers import gateway, settings_for_sam
from local.event_source import EventSource
from local.samples import put_samples
from local.stack import BUCKET, REPOSITORY, Stack, running

_POLL_SECONDS: Final = 0.5


def main() -> None:
    """Serves on PORT, 5000 unless set; beside this machine to its containers, or else to HOST."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the server, too, as Ctrl-C does
    port = os.environ.get("PORT") or "5000"
    if not port.isdecimal():
        sys.exit(f"PORT is {port!r}: it takes a number, as in make local PORT=5001")
    host = os.environ.get("HOST") or gateway()
    with ExitStack() as opened:
        try:
            stack = opened.enter_context(running(int(port), *([host] if host else [])))
        except OSError as error:
            where = f"127.0.0.1 and {host}" if host else "127.0.0.1"
            sys.exit(
                f"Port {port} of {where} cannot be served on ({error.strerror}). Choose another: make local PORT=5001"
            )
        with suppress(KeyboardInterrupt):
            serve(stack)
    print("Stopped.")


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
