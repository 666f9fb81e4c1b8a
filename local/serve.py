"""`make local`: the stack, with the samples in its bucket, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time

from local.samples import put_samples
from local.stack import BUCKET, REPOSITORY, running


def main() -> None:
    """Serves on PORT, 5000 unless set."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the server, too, as Ctrl-C does
    port = int(os.environ.get("PORT", "5000"))
    try:
        serve(port)
    except KeyboardInterrupt:
        print("Stopped.")
    except OSError as error:
        sys.exit(f"Port {port} cannot be served on ({error.strerror}). Choose another: make local PORT=5001")


def serve(port: int) -> None:
    """Serves until it is interrupted."""
    with running(port) as stack:
        put_samples(stack.s3)
        print(f"The local stack serves at {stack.endpoint}, until Ctrl-C.")
        print(f"  bucket      {BUCKET}, with the objects of events/")
        print(f"  repository  {REPOSITORY}")
        print(f"  queue       {stack.queue_url}")
        print("A shell's variables for it:")
        for name, value in stack.environment.items():
            print(f"  export {name}={value}", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
