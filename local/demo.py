"""`make demo`: runs the main jobs on the local stack and explains them. Exits with 1 if a check fails."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from local import images
from local.images import Files
from local.invocation import Invocation
from local.layers import gzipped_layer, layer
from local.stack import BUCKET, BUNDLE_REPOSITORIES, REPOSITORY, Stack, running

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient
    from types_boto3_ecr.type_defs import ImageDetailTypeDef

_MIB = 1024 * 1024
_LAYER_BYTES = 64 * _MIB
_KEY = f"{REPOSITORY}/demo-layer.tar.gz"
_EVENT_SECONDS = 30

_AMD64 = images.image([layer("srv/hello", b"Hello, amd64!\n")])
_ARM64 = images.image([layer("srv/hello", b"Hello, arm64!\n")], architecture="arm64")
_MULTI_ARCH = images.index(_AMD64, _ARM64)
_SAVED = images.image([layer("srv/hello", b"Hello, docker save!\n")])


class PartCounter:
    """Counts the parts that an ECR client sends, and draws a progress bar."""

    def __init__(self, size: int) -> None:
        self.parts = 0
        self._sent = 0
        self._size = size

    def watch(self, ecr: ECRClient) -> None:
        ecr.meta.events.register("after-call.ecr.UploadLayerPart", self._part_sent)

    def forget(self, ecr: ECRClient) -> None:
        ecr.meta.events.unregister("after-call.ecr.UploadLayerPart", self._part_sent)

    def _part_sent(self, parsed: dict[str, Any], **_: object) -> None:
        self.parts += 1
        self._sent = parsed.get("lastByteReceived", self._sent - 1) + 1
        filled = 40 * self._sent // self._size
        line = f"   [{'#' * filled}{'.' * (40 - filled)}] {self._sent / _MIB:5.1f} of {self._size / _MIB:.1f} MiB"
        # On a terminal the bar overwrites itself; in a file each state has its own line.
        print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        if sys.stdout.isatty() and self._sent == self._size:
            print()


def main() -> int:
    """Runs the demonstration and returns the exit code."""
    started = time.monotonic()
    print("The function runs on a local stack: S3, SQS, DynamoDB and ECR on this machine (moto).")
    with tempfile.TemporaryDirectory() as folder, running() as stack:
        os.environ.update(stack.environment)
        # Logs and metrics would clutter the demonstration's own lines.
        os.environ.update(POWERTOOLS_LOG_LEVEL="ERROR", POWERTOOLS_METRICS_DISABLED="true")
        sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
        import handler  # noqa: PLC0415 (it reads the environment when it is imported)

        checks = _a_layer(stack, handler, Path(folder)) | _a_layout(stack, handler)
        checks |= _an_archive(stack, handler) | _a_bundle(stack, handler)
    return _verdict(checks, time.monotonic() - started)


def _a_layer(stack: Stack, handler: Any, folder: Path) -> dict[str, bool]:
    file = folder / "demo-layer.tar.gz"
    file.write_bytes(gzipped_layer(_LAYER_BYTES))
    size, digest = file.stat().st_size, images.digest_of(file.read_bytes())
    print(f"\n1. A layer of {size / _MIB:.1f} MiB at s3://{BUCKET}/{_KEY}")
    print(f"   sha256sum says    {digest.removeprefix('sha256:')}")
    stack.s3.upload_file(str(file), BUCKET, _KEY)
    [event] = _events_from_queue(stack, [_KEY])
    print(f"   S3 sends          {event['Records'][0]['eventName']}")

    counter = PartCounter(size)
    counter.watch(handler.clients.ecr)
    first = _invoke(handler, event)
    parts_at_first = counter.parts
    print(f"   The function has  {_told(first)} in {parts_at_first} parts")

    found = stack.ecr.batch_check_layer_availability(repositoryName=REPOSITORY, layerDigests=[digest])["layers"]
    availability = [entry.get("layerAvailability") for entry in found]
    print(f"   ECR says          {', '.join(map(str, availability))}")

    second = _invoke(handler, event)
    parts_again = counter.parts - parts_at_first
    counter.forget(handler.clients.ecr)
    print(f"   The event again:  {_told(second)}, {parts_again} parts")
    return {
        "the handler uploaded the layer": first["action"] == "uploaded",
        "its digest matches sha256sum": first["digest"] == digest,
        "ECR reports the layer as AVAILABLE": availability == ["AVAILABLE"],
        "the repeated event was skipped": second["action"] == "skipped",
        "the repeated event sent no part": parts_again == 0,
    }


def _a_layout(stack: Stack, handler: Any) -> dict[str, bool]:
    files = images.oci_layout({"multi-arch": _MULTI_ARCH})
    from s3_to_ecr.errors import BlobsMissing  # noqa: PLC0415 (as the handler)

    print(f"\n2. An OCI layout of two architectures at s3://{BUCKET}/{REPOSITORY}/, its index first")
    for path, content in files.items():
        [event] = _put(stack, {path: content})
        try:
            answer = _invoke(handler, event)
            # A manifest is not pushed by itself: whatever names it pushes it.
            is_manifest = answer["action"] == "ignored" and path.startswith("blobs/")
            outcome = "waits for index.json" if is_manifest else answer["action"]
            outcome = "; ".join([outcome, *map(_told, answer.get("completed", []))])
        except BlobsMissing:
            outcome = "waits for its blobs"
        print(f"   {path[:26]:26}  {outcome}")
    found = _describe(stack, REPOSITORY, "multi-arch")
    return {
        "the layout's index is in ECR under its tag, with the same digest": found.get("imageDigest")
        == _MULTI_ARCH.digest,
        "the images of both architectures are in ECR, too": _has_images(stack, [_AMD64.digest, _ARM64.digest]),
    }


def _an_archive(stack: Stack, handler: Any) -> dict[str, bool]:
    print(f"\n3. A `docker save` archive at s3://{BUCKET}/{REPOSITORY}/saved.tar")
    [event] = _put(stack, {"saved.tar": images.docker_save(["team/app:1.0"], _SAVED)})
    answer = _invoke(handler, event)
    print(f"   The function has  {_told(answer)}")
    again = _invoke(handler, event)
    print(f"   The event again:  {_told(again)}")
    found = _describe(stack, REPOSITORY, "1.0")
    config = next(iter(_SAVED.blobs))
    image = stack.ecr.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "1.0"}])["images"][0]
    return {
        "the archive's image is in ECR under its tag": found.get("imageDigest") == answer["digest"],
        "it has the same config as in Docker": json.loads(image["imageManifest"])["config"]["digest"] == config,
        "the archive's repeated event was skipped": again["action"] == "skipped",
    }


def _a_bundle(stack: Stack, handler: Any) -> dict[str, bool]:
    print(f"\n4. A bundle of two repositories' images at s3://{BUCKET}/_/bundle.tar.gz")
    built = dict(zip(BUNDLE_REPOSITORIES, (_AMD64, _ARM64), strict=True))
    bundle = images.tar(images.oci_layout({f"docker.io/{name}:2.0": image for name, image in built.items()}))
    [event] = _put(stack, {"bundle.tar.gz": images.compress(bundle, "gzip")}, folder="_")
    answer = _invoke(handler, event)
    print(f"   The function has  {_told(answer)}")
    found = {name: _describe(stack, name, "2.0").get("imageDigest") for name in built}
    return {
        "each image of the bundle is in the repository that its reference names": found
        == {name: image.digest for name, image in built.items()},
    }


def _told(answer: dict[str, Any]) -> str:
    """What the function answered for an object, in words."""
    if answer["action"] == "skipped":
        return f"skipped it: {answer['reason']}"
    names = [f"{image['repository']}:{tag}" for image in answer.get("images", []) for tag in image["tags"]]
    return f"{answer['action']} {', '.join(names) or _short(answer['digest'])}"


def _short(digest: str) -> str:
    return digest[: len("sha256:") + 12]


def _put(stack: Stack, files: Files, folder: str = REPOSITORY) -> list[dict[str, Any]]:
    """Puts files into a folder, and returns the events about them."""
    for path, content in files.items():
        stack.s3.put_object(Bucket=BUCKET, Key=f"{folder}/{path}", Body=content)
    return _events_from_queue(stack, [f"{folder}/{path}" for path in files])


def _describe(stack: Stack, repository: str, tag: str) -> ImageDetailTypeDef:
    [found] = stack.ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
    print(f"   ECR has           {repository}:{tag} as {_short(found.get('imageDigest', 'nothing'))}")
    return found


def _has_images(stack: Stack, digests: list[str]) -> bool:
    image_ids: Any = [{"imageDigest": digest} for digest in digests]
    return len(stack.ecr.describe_images(repositoryName=REPOSITORY, imageIds=image_ids)["imageDetails"]) == len(digests)


def _invoke(handler: Any, event: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = handler.lambda_handler(event, Invocation())["results"][0]
    return answer


def _events_from_queue(stack: Stack, keys: list[str]) -> list[dict[str, Any]]:
    """The first event on the queue for each of these keys, in the order of the keys."""
    events: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + _EVENT_SECONDS
    while time.monotonic() < deadline:
        answer = stack.sqs.receive_message(QueueUrl=stack.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            stack.sqs.delete_message(QueueUrl=stack.queue_url, ReceiptHandle=message["ReceiptHandle"])
            event = json.loads(message["Body"])
            if "Records" in event:
                events.setdefault(unquote_plus(event["Records"][0]["s3"]["object"]["key"]), event)
        if events.keys() >= set(keys):
            return [events[key] for key in keys]
    raise RuntimeError(f"S3 did not send events for {set(keys) - events.keys()} within {_EVENT_SECONDS} s")


def _verdict(checks: dict[str, bool], seconds: float) -> int:
    print()
    for what, holds in checks.items():
        print(f"   {'yes' if holds else 'NO '}  {what}")
    works = all(checks.values())
    print(f"\n{'It works' if works else 'It does NOT work'}. {seconds:.0f} seconds.")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
