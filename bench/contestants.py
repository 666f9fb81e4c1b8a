"""The contestants: ways to copy one blob from S3 to ECR. Each runs in its own process, which reports its cost.

Only the transfer is measured, from the first call to the last. Imports and creating clients count as the cold start. A
`known` digest is in the key; otherwise each contestant computes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pybase64

from bench.sink import PART_SIZE
from bench.source import ETAG
from local.invocation import Invocation, put_event


@dataclass(frozen=True)
class Task:
    """What to transfer: the source's object of `size` bytes, to the folder's repository of that size."""

    source: str
    sink: str
    folder: str
    size: int
    digest: str
    known: bool

    @property
    def repository(self) -> str:
        return f"{self.folder}{self.size}"

    @property
    def key(self) -> str:
        return f"{self.repository}/{self.digest if self.known else 'layer'}"


@dataclass(frozen=True)
class Measure:
    """The cost of a transfer. `peak_bytes` is the process's largest resident memory."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def plain(task: Task) -> Callable[[], str]:
    """The obvious loop with boto3: one GET, then read a part and send it."""
    s3 = boto3.client("s3", endpoint_url=task.source)
    ecr = boto3.client("ecr", endpoint_url=task.sink)

    def run() -> str:
        digest = task.digest
        sha256 = hashlib.sha256()
        upload = ecr.initiate_layer_upload(repositoryName=task.repository)
        body = s3.get_object(Bucket="bucket", Key=task.key)["Body"]
        first = 0
        while part := body.read(upload["partSize"]):
            if not task.known:
                sha256.update(part)
            ecr.upload_layer_part(
                repositoryName=task.repository,
                uploadId=upload["uploadId"],
                partFirstByte=first,
                partLastByte=first + len(part) - 1,
                layerPartBlob=part,
            )
            first += len(part)
        if not task.known:
            digest = f"sha256:{sha256.hexdigest()}"
        done = ecr.complete_layer_upload(
            repositoryName=task.repository, uploadId=upload["uploadId"], layerDigests=[digest]
        )
        return done["layerDigest"]

    return run


def s3_to_ecr(task: Task) -> Callable[[], str]:
    """The handler of this project, called with S3's event as Lambda does."""
    os.environ.update(
        AWS_ENDPOINT_URL_S3=task.source,
        AWS_ENDPOINT_URL_ECR=task.sink,
        AWS_ENDPOINT_URL_DYNAMODB=task.sink,
        STATE_TABLE="state",
    )
    import handler  # noqa: PLC0415 (it reads the environment when it is imported)

    def run() -> str:
        [result] = handler.lambda_handler(put_event(task.key, task.size, ETAG), Invocation())["results"]
        return str(result["digest"]) if result["action"] == "uploaded" else "nothing"

    return run


def floor(task: Task) -> Callable[[], str]:
    """The lower bound: bare sockets, SIMD base64, one SHA-256 of each request's body. No error handling or retries."""
    source, sink = _connected(task.source), _connected(task.sink)
    part = memoryview(bytearray(PART_SIZE))

    def run() -> str:
        digest = task.digest
        sha256 = hashlib.sha256()
        upload = _call(sink, "InitiateLayerUpload", {"repositoryName": task.repository})
        for first in range(0, task.size, PART_SIZE):
            length = min(PART_SIZE, task.size - first)
            span = f"bytes={first}-{first + length - 1}"
            source.sendall(f"GET /bucket/{task.key} HTTP/1.1\r\nHost: s3\r\nRange: {span}\r\n\r\n".encode())
            _, begun = _head(source)
            part[: len(begun)] = begun
            filled = len(begun)
            while filled < length:
                filled += source.recv_into(part[filled:length])
            if not task.known:
                sha256.update(part[:length])
            members = {
                "repositoryName": task.repository,
                "uploadId": upload["uploadId"],
                "partFirstByte": first,
                "partLastByte": first + length - 1,
                "layerPartBlob": "",
            }
            before, after = json.dumps(members).encode()[:-2], b'"}'
            _answer_to(sink, "UploadLayerPart", before, pybase64.b64encode(part[:length]), after)
        if not task.known:
            digest = f"sha256:{sha256.hexdigest()}"
        done = _call(sink, "CompleteLayerUpload", {"uploadId": upload["uploadId"], "layerDigests": [digest]})
        return str(done["layerDigest"])

    return run


def _connected(url: str) -> socket.socket:
    at = urlsplit(url)
    peer = socket.create_connection((at.hostname, at.port or 80))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if at.scheme == "https":
        trusted = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        return trusted.wrap_socket(peer, server_hostname=at.hostname)
    return peer


def _head(peer: socket.socket) -> tuple[int, bytes]:
    """A response's content length, and the beginning of its body that came with the head."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += peer.recv(65536)
    head, _, begun = received.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return int(length), begun


def _call(peer: socket.socket, operation: str, members: dict[str, Any]) -> dict[str, Any]:
    return _answer_to(peer, operation, json.dumps(members).encode())


def _answer_to(peer: socket.socket, operation: str, *body: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256()
    for piece in body:
        sha256.update(piece)
    head = (
        f"POST / HTTP/1.1\r\nHost: ecr\r\nX-Amz-Target: AmazonEC2ContainerRegistry_V20150921.{operation}\r\n"
        f"X-Amz-Content-SHA256: {sha256.hexdigest()}\r\nContent-Length: {sum(map(len, body))}\r\n\r\n"
    )
    for piece in (head.encode(), *body):
        peer.sendall(piece)
    length, answer = _head(peer)
    while len(answer) < length:
        answer += peer.recv(65536)
    result: dict[str, Any] = json.loads(answer)
    if "__type" in result:
        raise RuntimeError(f"{operation}: {result}")
    return result


CONTESTANTS = {"plain": plain, "s3-to-ecr": s3_to_ecr, "floor": floor}


def main() -> None:
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    run = CONTESTANTS[name](task)
    cpu, wall = time.process_time(), time.monotonic()
    digest = run()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    if digest != task.digest:
        raise RuntimeError(f"{name} ended with {digest}, not {task.digest}")
    print(json.dumps(asdict(Measure(cpu, wall, peak_bytes("self")))), file=sys.stderr)


def peak_bytes(process: str) -> int:
    """A process's VmHWM. Unlike ru_maxrss, it excludes the parent's memory before exec."""
    for line in Path("/proc", process, "status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0  # the process has just ended


if __name__ == "__main__":
    main()
