"""HTTP at C speed, so that the servers are never the bottleneck. Without TLS, `sendfile` sends."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import os
import random
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local.certificate import Certificate

# Content repeats a block whose length shares no factor with the part size, so no two parts are alike.
_BLOCK_BYTES = 33_554_467
_BUFFER_BYTES = 1024 * 1024
_TLS_HANDSHAKE = b"\x16"


@dataclass
class Request:
    """The head of an HTTP request."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


@dataclass
class Answer:
    """An HTTP response. `span` is a range of the content to send instead of `body`."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    span: tuple[int, int] | None = None


class Connection:
    """One client's connection, which receives requests and sends answers."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer
        self._pending = bytearray()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def receive(self) -> Request | None:
        """The next request, or `None` when the client is done."""
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if self._pending.startswith(_TLS_HANDSHAKE):
                return None  # skopeo tries TLS first, even with TLS verification off
            if not (more := self._peer.recv(65536)):
                return None
            self._pending += more
        line, *fields = self._pending[:end].decode("latin-1").split("\r\n")
        del self._pending[: end + 4]
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in fields)}
        if headers.get("expect") == "100-continue":
            self._peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, target, headers)

    def drain(self, request: Request, *, hashed: bool = False) -> str:
        """Receives a whole body, chunked or not, and drops it. Returns its SHA-256 in hex if it is to be `hashed`."""
        sha256 = hashlib.sha256()
        if request.headers.get("transfer-encoding") == "chunked":
            while length := int(self._line(), 16):
                self._take(length, sha256 if hashed else None)
                self._line()
            self._line()
        else:
            self._take(request.length, sha256 if hashed else None)
        return sha256.hexdigest()

    def _take(self, length: int, sha256: Any) -> None:
        if sha256:
            sha256.update(self.read(length))
        else:
            self.skip(length)

    def read(self, length: int) -> bytearray:
        """The next bytes of a body."""
        body = bytearray(length)
        filled = min(length, len(self._pending))
        body[:filled] = self._pending[:filled]
        del self._pending[:filled]
        with memoryview(body) as view:
            while filled < length:
                filled += self._received(self._peer.recv_into(view[filled:]))
        return body

    def skip(self, length: int) -> None:
        """Skips the next bytes of a body. Without TLS the kernel drops them, which costs less than copying them."""
        flags = 0 if isinstance(self._peer, ssl.SSLSocket) else socket.MSG_TRUNC
        dropped = min(length, len(self._pending))
        del self._pending[:dropped]
        while dropped < length:
            size = min(length - dropped, len(self._buffer))
            dropped += self._received(self._peer.recv_into(self._buffer[:size], 0, flags))

    @staticmethod
    def _received(length: int) -> int:
        if not length:
            raise ConnectionError("the client closed the connection")
        return length

    def _line(self) -> bytes:
        while (end := self._pending.find(b"\r\n")) < 0:
            more = self._peer.recv(65536)
            self._received(len(more))
            self._pending += more
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        return line

    def send(self, answer: Answer, content: Content | None) -> None:
        length = answer.span[1] - answer.span[0] if answer.span else len(answer.body)
        headers = {"Content-Length": str(length), **answer.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._peer.sendall(f"HTTP/1.1 {answer.status} Bench\r\n{head}\r\n".encode("latin-1") + answer.body)
        if answer.span and content:
            content.send(self._peer, *answer.span)


class Content:
    """Bytes of any size from one random block, which is a file in memory for `sendfile`."""

    def __init__(self) -> None:
        self._file = os.memfd_create("content")
        os.write(self._file, _block())

    def send(self, peer: socket.socket, first: int, end: int) -> None:
        while first < end:
            offset = first % _BLOCK_BYTES
            first += _sent(peer, self._file, offset, min(end - first, _BLOCK_BYTES - offset))


@functools.cache
def _block() -> bytes:
    return random.Random(0).randbytes(_BLOCK_BYTES)  # noqa: S311 (not a secret)


class FileContent(Content):
    """The bytes of a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def send(self, peer: socket.socket, first: int, end: int) -> None:
        while first < end:
            first += _sent(peer, self._file, first, end - first)


def _sent(peer: socket.socket, file: int, offset: int, length: int) -> int:
    """Sends bytes of a file, as many as go at once. Returns their number."""
    if isinstance(peer, ssl.SSLSocket):
        piece = os.pread(file, min(length, _BUFFER_BYTES), offset)
        peer.sendall(piece)
        return len(piece)
    return os.sendfile(peer.fileno(), file, offset, length)


@functools.cache
def digest_of(size: int) -> str:
    """The digest of the source's object of that size."""
    sha256 = hashlib.sha256()
    for first in range(0, size, _BLOCK_BYTES):
        sha256.update(memoryview(_block())[: size - first])
    return f"sha256:{sha256.hexdigest()}"


def sha256_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def options() -> argparse.Namespace:
    """What a server is started with: its delay, and perhaps the content, and a certificate for TLS."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--certificate", type=lambda folder: Certificate(Path(folder)))
    return parser.parse_args()


def serve(
    answer: Callable[[Request, Connection], Answer], content: Content | None, certificate: Certificate | None
) -> None:
    """Prints a URL with a free port of 127.0.0.1, and serves until standard input ends. A certificate means TLS."""
    tls = certificate.server() if certificate else None
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    sys.stdout.write(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()

    def converse(peer: socket.socket) -> None:
        # A client may disconnect at any time.
        with peer, contextlib.suppress(ConnectionError):
            connection = Connection(tls.wrap_socket(peer, server_side=True) if tls else peer)
            while request := connection.receive():
                connection.send(answer(request, connection), content)

    def accept() -> None:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=converse, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
