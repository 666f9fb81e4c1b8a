"""`make demo`: the main job on the local stack, told in plain words. Exits with 1 if anything is not as it should."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.invocation import Invocation
from local.layers import gzipped_layer
from local.stack import BUCKET, REPOSITORY, Stack, running

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

_MIB = 1024 * 1024
_LAYER_BYTES = 64 * _MIB
_KEY = f"{REPOSITORY}/demo-layer.tar.gz"
_EVENT_SECONDS = 30


class PartCounter:
    """Watches an ECR client: counts the parts it sends, and draws how far the layer is."""

    def __init__(self, size: int) -> None:
        self.parts = 0
        self._sent = 0
        self._size = size

    def watch(self, ecr: ECRClient) -> None:
        ecr.meta.events.register("after-call.ecr.UploadLayerPart", self._part_sent)

    def _part_sent(self, parsed: dict[str, Any], **_: object) -> None:
        self.parts += 1
        self._sent = parsed.get("lastByteReceived", self._sent - 1) + 1
        filled = 40 * self._sent // self._size
        line = f"   [{'#' * filled}{'.' * (40 - filled)}] {self._sent / _MIB:5.1f} of {self._size / _MIB:.1f} MiB"
        # A bar on a terminal is drawn over itself; in a file each line stands for itself.
        print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        if sys.stdout.isatty() and self._sent == self._size:
            print()


def main() -> int:
    """Runs the demonstration and returns the exit code."""
    started = time.monotonic()
    print("1. Starting S3, SQS, DynamoDB and ECR on this machine (moto).")
    with tempfile.TemporaryDirectory() as folder, running() as stack:
        file = Path(folder, "demo-layer.tar.gz")
        file.write_bytes(gzipped_layer(_LAYER_BYTES))
        size, digest = file.stat().st_size, f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        print(f"2. Putting a gzip'd tar layer of {size / _MIB:.1f} MiB at s3://{BUCKET}/{_KEY}")
        print(f"   sha256sum of the file:      {digest.removeprefix('sha256:')}")
        stack.s3.upload_file(str(file), BUCKET, _KEY)
        event = _event_from_queue(stack)
        print(f"3. S3 sent the event {event['Records'][0]['eventName']} to the queue. Running the handler on it:")

        os.environ.update(stack.environment)
        # The demonstration speaks for itself; logs and metrics would come between the lines.
        os.environ.update(POWERTOOLS_LOG_LEVEL="WARNING", POWERTOOLS_METRICS_DISABLED="true")
        sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
        import handler  # noqa: PLC0415 (it reads the environment when it is imported)

        counter = PartCounter(size)
        counter.watch(handler.ecr)
        first = handler.lambda_handler(event, Invocation())["results"][0]
        parts_at_first = counter.parts
        print(f"   The handler's answer: {json.dumps(first)}")

        layer = stack.ecr.batch_check_layer_availability(repositoryName=REPOSITORY, layerDigests=[digest])["layers"]
        print("4. ECR says, when asked with BatchCheckLayerAvailability for the digest of sha256sum:")
        print(f"   {json.dumps(layer)}")

        print("5. The same event again:")
        second = handler.lambda_handler(event, Invocation())["results"][0]
        parts_again = counter.parts - parts_at_first
        print(f"   The handler's answer: {json.dumps(second)}")
        print(f"   Parts sent the first time: {parts_at_first}; the second time: {parts_again}.")

    return _verdict(
        {
            "the handler uploaded the layer": first["action"] == "uploaded",
            "its digest is that of sha256sum": first["digest"] == digest,
            "ECR has the layer AVAILABLE": [entry["layerAvailability"] for entry in layer] == ["AVAILABLE"],
            "the repeat was skipped": second["action"] == "skipped",
            "the repeat sent no part": parts_again == 0,
        },
        time.monotonic() - started,
    )


def _event_from_queue(stack: Stack) -> dict[str, Any]:
    """The first event in the queue that S3 sent for an object."""
    deadline = time.monotonic() + _EVENT_SECONDS
    while time.monotonic() < deadline:
        answer = stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            event: dict[str, Any] = json.loads(message["Body"])
            if "Records" in event:
                return event
    raise RuntimeError(f"S3 sent no event to the queue within {_EVENT_SECONDS} s")


def _verdict(checks: dict[str, bool], seconds: float) -> int:
    print()
    for what, holds in checks.items():
        print(f"   {'yes' if holds else 'NO '}  {what}")
    works = all(checks.values())
    print(f"\n{'It works' if works else 'It does NOT work'}. {seconds:.0f} seconds.")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
