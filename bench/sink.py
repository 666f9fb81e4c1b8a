"""The sink: an ECR to upload to, the DynamoDB for the function's state, and a registry for skopeo."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pybase64

from bench.wire import Answer, Connection, Request, options, serve

PART_SIZE = 10_485_760
# Layers for repositories in this folder are decoded and hashed. Elsewhere only the parts' offsets and sizes are
# checked, to leave the cores to the client.
VERIFIED = "verified/"
# The JSON members of an UploadLayerPart are this close to the beginning or the end of its body.
_MARGIN_BYTES = 4096


@dataclass
class Upload:
    """An upload in progress."""

    verified: bool
    received: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)


class Refused(Exception):
    """A request that ECR would refuse."""


class Sink:
    """Answers requests to ECR's layer API, to DynamoDB and to the registry. Each part takes `part_seconds`."""

    def __init__(self, part_seconds: float) -> None:
        self._part_seconds = part_seconds
        self._uploads: dict[str, Upload] = {}
        self._layers: set[str] = set()

    def answer(self, request: Request, connection: Connection) -> Answer:
        if request.path.startswith("/v2/"):
            return self._registry(request, connection)
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        try:
            if operation == "UploadLayerPart":
                found = self._upload_part(request.length, connection)
            else:
                members = json.loads(connection.read(request.length))
                found = self._call(operation, members)
        except Refused as refused:
            kind, _, message = str(refused).partition(": ")
            return Answer(400, json.dumps({"__type": kind, "message": message}).encode())
        return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    def _call(self, operation: str, members: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "BatchCheckLayerAvailability":
                return {"layers": [], "failures": []}
            case "InitiateLayerUpload":
                upload_id = str(uuid.uuid4())
                self._uploads[upload_id] = Upload(verified=members["repositoryName"].startswith(VERIFIED))
                return {"uploadId": upload_id, "partSize": PART_SIZE}
            case "CompleteLayerUpload":
                upload = self._uploads.pop(members["uploadId"])
                [digest] = members["layerDigests"]
                if upload.verified and digest != f"sha256:{upload.sha256.hexdigest()}":
                    raise Refused(f"InvalidLayerException: the layer does not have the digest {digest}")
                return {"uploadId": members["uploadId"], "layerDigest": digest}
        return {"Attributes": {"taken": {"N": "1"}}}  # DynamoDB: every row is new, and every write succeeds

    def _upload_part(self, length: int, connection: Connection) -> dict[str, Any]:
        began = time.monotonic()
        text = connection.read(min(length, _MARGIN_BYTES))
        verified = f'"{VERIFIED}'.encode() in text
        if not verified:
            connection.skip(max(0, length - 2 * _MARGIN_BYTES))
        text += connection.read(length - len(text) if verified else min(length - len(text), _MARGIN_BYTES))
        time.sleep(max(0, self._part_seconds - (time.monotonic() - began)))
        upload_id = _member(text, rb'"uploadId": ?"([^"]+)"').decode()
        first, last = int(_member(text, rb'"partFirstByte": ?(\d+)')), int(_member(text, rb'"partLastByte": ?(\d+)'))
        upload = self._uploads[upload_id]
        if first != upload.received:
            raise Refused(f"InvalidLayerPartException: byte {first} was sent, but byte {upload.received} is next")
        if upload.verified:
            blob = pybase64.b64decode(json.loads(text)["layerPartBlob"], validate=True)
            if len(blob) != last - first + 1:
                raise Refused("InvalidLayerPartException: the part's length does not match its offsets")
            upload.sha256.update(blob)
        elif length < 4 * (last - first + 1) // 3:
            raise Refused("InvalidLayerPartException: the part is shorter than its bytes in base64")
        upload.received = last + 1
        return {"uploadId": upload_id, "lastByteReceived": last}

    def _registry(self, request: Request, connection: Connection) -> Answer:
        verified = request.path.startswith(f"/v2/{VERIFIED}")
        found = f"sha256:{connection.drain(request, hashed=verified)}"
        match request.method:
            case "GET" | "HEAD":
                return Answer(200 if request.path == "/v2/" else 404)
            case "POST":
                return Answer(202, headers={"Location": f"{request.path}{uuid.uuid4()}", "Range": "0-0"})
            case "PATCH":
                self._layers.add(found)
                return Answer(202, headers={"Location": request.path, "Range": "0-0"})
            case _:
                digest = parse_qs(urlsplit(request.target).query).get("digest", [found])[0]
                if verified and "/blobs/" in request.path and digest not in self._layers:
                    return Answer(400)
                return Answer(201, headers={"Location": request.path, "Docker-Content-Digest": digest})


def _member(text: bytearray, pattern: bytes) -> bytes:
    found = re.search(pattern, text)
    if not found:
        raise Refused("SerializationException: a member is missing")
    return found[1]


if __name__ == "__main__":
    chosen = options()
    serve(Sink(part_seconds=chosen.seconds).answer, None, chosen.certificate)
