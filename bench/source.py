"""The source: an S3 with objects of any size, and for skopeo a registry with the same bytes."""

from __future__ import annotations

import json
import re
import time
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from bench.wire import Answer, Connection, Content, FileContent, Request, digest_of, options, serve, sha256_of

ETAG = "0123456789abcdef0123456789abcdef"


class Source:
    """S3: the key `<folder>/<size>/<name>` is an object of that size, and the layer of the image `<folder>/<size>`.

    If there is a `file`, every key is an object with its content. If its name ends in `.json`, it holds the objects by
    key instead: a text, or an object's size.
    """

    def __init__(self, first_byte_seconds: float, file: Path | None = None) -> None:
        self._objects: dict[str, str | int] = {}
        if file and file.suffix == ".json":
            self._objects, file = json.loads(file.read_text()), None
        self._first_byte_seconds = first_byte_seconds
        self._file = file
        self.content = FileContent(file) if file else Content()

    def answer(self, request: Request, connection: Connection) -> Answer:
        connection.drain(request)
        if self._first_byte_seconds:
            time.sleep(self._first_byte_seconds)
        if request.path.startswith("/v2/"):
            return self._registry(request)
        known = self._objects.get(unquote(request.path).split("/", 2)[2])
        text = known.encode() if isinstance(known, str) else b""
        size = known if isinstance(known, int) else len(text)
        if known is None:
            size = self._file.stat().st_size if self._file else size_of(request.path)
        span = (0, size)
        headers = {"ETag": f'"{ETAG}"', "Accept-Ranges": "bytes", "Last-Modified": formatdate(usegmt=True)}
        if request.method == "HEAD":
            return Answer(200, headers=headers | {"Content-Length": str(size)})
        if requested := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")):
            span = (int(requested[1]), min(int(requested[2]) + 1, size))
            headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
            if text:
                return Answer(206, text[span[0] : span[1]], headers)
            return Answer(206, headers=headers, span=span)
        return Answer(200, headers=headers, span=span)

    @staticmethod
    def _registry(request: Request) -> Answer:
        if request.path == "/v2/":
            return Answer(200, b"{}")
        kind, reference = request.path.split("/")[-2:]
        size = int(request.path.split("/")[-3])
        config, manifest = image_of(size)
        if kind == "manifests":
            headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            return Answer(200, manifest, headers | {"Docker-Content-Digest": sha256_of(manifest)})
        headers = {"Content-Type": "application/octet-stream"}
        if reference == sha256_of(config):
            return Answer(200, config, headers)
        return Answer(200, headers=headers, span=(0, size))


def size_of(path: str) -> int:
    """The size of the object that a path names."""
    return int(path.split("/")[-2])


def image_of(size: int) -> tuple[bytes, bytes]:
    """Config and manifest of the image whose only layer is the source's object of that size."""
    # The content is no tar archive, but nothing unpacks it: an uncompressed layer is copied unchanged.
    digest = digest_of(size)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}}
    body = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256_of(body),
            "size": len(body),
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}],
    }
    return body, json.dumps(manifest).encode()


if __name__ == "__main__":
    chosen = options()
    served = Source(chosen.seconds, chosen.file)
    serve(served.answer, served.content, chosen.certificate)
