"""An S3 that serves reads over HTTP: ranged GET and HEAD, pinned by version or ETag, with faults on demand.

moto reads a whole object for every range, which takes too long for 2 GiB; and it never breaks off a response.
"""

from __future__ import annotations

import hashlib
import random
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property, lru_cache
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.doubles.server import Faults, QuietHandler, serving


class Content(Protocol):
    """An object's bytes, by range."""

    def __len__(self) -> int: ...
    def slice(self, first: int, end: int) -> bytes: ...


@dataclass(frozen=True)
class Bytes:
    """Content in memory."""

    body: bytes

    def __len__(self) -> int:
        return len(self.body)

    def slice(self, first: int, end: int) -> bytes:
        return self.body[first:end]


class Pattern:
    """Content of any size from one random block. Parts never align with the block, so no two are alike."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._block = _block(seed)

    def __len__(self) -> int:
        return self._size

    def slice(self, first: int, end: int) -> bytes:
        pieces = []
        while first < end:
            start = first % len(self._block)
            pieces.append(memoryview(self._block)[start : start + end - first])
            first += len(pieces[-1])
        return b"".join(pieces)

    @cached_property
    def digest(self) -> str:
        """The digest of the whole content."""
        sha256 = hashlib.sha256()
        for first in range(0, self._size, 1 << 24):
            sha256.update(self.slice(first, min(first + (1 << 24), self._size)))
        return f"sha256:{sha256.hexdigest()}"


@lru_cache(maxsize=8)
def _block(seed: int) -> bytes:
    return random.Random(seed).randbytes(1_000_003)  # noqa: S311 (not a secret)


@dataclass(frozen=True)
class Stored:
    """A stored object."""

    content: Content
    etag: str = "0123456789abcdef0123456789abcdef"
    version_id: str = "v1"
    modified: int = 1_700_000_000


@dataclass(frozen=True)
class Read:
    """A received request."""

    method: str
    key: str
    range: tuple[int, int] | None
    version_id: str | None
    if_match: str | None


class S3Double:
    """The store: one bucket with any name. `versions` are older ones, by key and id; `reads` holds all requests.

    Faults for "GetObject" apply to any request; those for "BreakBody" break its body off halfway.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.versions: dict[tuple[str, str], Stored] = {}
        self.reads: list[Read] = []
        self.faults = Faults()
        self.url = ""

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[S3Double]:
        """Serves the double over HTTP or HTTPS at `url`."""
        double = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                double._serve(self)

            def do_HEAD(self) -> None:
                double._serve(self)

        with serving(Handler, tls) as url:
            self.url = url
            yield self
        # The handler refers to the double, in a cycle. What the double holds may be large, so it is freed now.
        for held in (self.objects, self.versions, self.reads):
            held.clear()

    def _serve(self, request: QuietHandler) -> None:
        parts = urlsplit(request.path)
        key = unquote(parts.path).split("/", 2)[2]
        version = parse_qs(parts.query).get("versionId", [None])[0]
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        span = (int(requested[1]), int(requested[2])) if requested else None
        if_match = request.headers.get("If-Match")
        self.reads.append(Read(request.command, key, span, version, if_match))

        fault = self.faults.take("GetObject")
        if fault:
            if fault.code:
                self._refuse(request, fault.status, fault.code)
            else:
                request.cut()
            return
        stored = self.versions.get((key, version or "")) or self.objects.get(key)
        if stored is None:
            self._refuse(request, 404, "NoSuchKey")
        elif version not in (None, stored.version_id):
            self._refuse(request, 404, "NoSuchVersion")
        elif if_match not in (None, f'"{stored.etag}"'):
            self._refuse(request, 412, "PreconditionFailed")
        elif span and span[0] >= len(stored.content):
            self._refuse(request, 416, "InvalidRange")
        else:
            self._send(request, stored, span)

    def _send(self, request: QuietHandler, stored: Stored, span: tuple[int, int] | None) -> None:
        headers = {"ETag": f'"{stored.etag}"', "x-amz-version-id": stored.version_id}
        headers["Last-Modified"] = formatdate(stored.modified, usegmt=True)
        size = len(stored.content)
        first, end = (span[0], min(span[1] + 1, size)) if span else (0, size)
        headers["Content-Length"] = str(end - first)
        if span:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        body = stored.content.slice(first, end) if request.command == "GET" else b""
        if self.faults.take("BreakBody"):
            body = body[: len(body) // 2]
            request.cut()
        request.reply(206 if span else 200, body, headers)

    @staticmethod
    def _refuse(request: QuietHandler, status: int, code: str) -> None:
        body = f"<Error><Code>{escape(code)}</Code><Message>a refusal</Message></Error>".encode()
        request.reply(status, body, {"Content-Type": "application/xml"})
