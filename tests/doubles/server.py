"""What the doubles share: an HTTP server on a free port, and faults on demand."""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders


@dataclass(frozen=True)
class Fault:
    """What happens to one call instead of its answer.

    With a `code` the call is refused with it and the HTTP `status`. Without, the connection is cut: before the call has
    had any effect or, `after`, when it has.
    """

    code: str | None = None
    status: int = 400
    after: bool = False
    members: dict[str, Any] = field(default_factory=dict)


class Faults:
    """Faults in waiting, by operation: each is for the n-th call from when it is set, counted from 1."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, Fault]] = []
        self._lock = threading.Lock()

    def add(self, operation: str, fault: Fault, *, nth: int = 1, times: int = 1) -> None:
        """Lets the calls from the `nth` on fail, so many `times`."""
        with self._lock:
            self._waiting += [(operation, nth + i, fault) for i in range(times)]

    def rest(self) -> None:
        """Forgets the faults that are waiting."""
        with self._lock:
            self._waiting.clear()

    def take(self, operation: str) -> Fault | None:
        """The fault for this call of the operation, if one is due."""
        with self._lock:
            mine = [(n, fault) for name, n, fault in self._waiting if name == operation]
            others = [waiting for waiting in self._waiting if waiting[0] != operation]
            self._waiting = others + [(operation, n - 1, fault) for n, fault in mine if n > 1]
            return next((fault for n, fault in mine if n == 1), None)


class _Raw(io.BytesIO):
    """A body as botocore expects it of urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk


def answer_to(request: Any, status: int, body: bytes) -> AWSResponse:
    """What a handler of botocore's `before-send` returns for a request that is not to be sent."""
    return AWSResponse(request.url, status, HTTPHeaders(), cast("Any", _Raw(body)))


class QuietHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections kept, no log."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, and the second would wait 40 ms for the first one's receipt.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    def body(self) -> bytes:
        """What was sent with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends one complete answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """Closes the connection where an answer should be."""
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of some tests."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves on a free port in a thread, over TLS if told to; gives the URL."""
    server = _Server(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
