"""What the doubles share: an HTTP server on a free port, and faults on demand."""

from __future__ import annotations

import io
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError


@dataclass(frozen=True)
class Fault:
    """A fault that replaces the response to one call.

    With a `code`, the call is refused with the code and the HTTP `status`. Without one, the connection is cut: before
    the call takes effect, or `after` it has.
    """

    code: str | None = None
    status: int = 400
    after: bool = False
    members: dict[str, Any] = field(default_factory=dict)


class Faults:
    """Planned faults by operation. Each is for the n-th call after it was added, counted from 1."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, Fault]] = []
        self._lock = threading.Lock()

    def add(self, operation: str, fault: Fault, *, nth: int = 1, times: int = 1) -> None:
        """Makes `times` calls fail, from the `nth` on."""
        with self._lock:
            self._waiting += [(operation, nth + i, fault) for i in range(times)]

    def rest(self) -> None:
        """Drops the remaining faults."""
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
    """A body as botocore expects it from urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk


def answer_in_process(
    client: BaseClient, answer: Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]] | None]
) -> None:
    """Answers a client's calls without a network, right where botocore would send them.

    `answer` gets the operation and its members. It returns the HTTP status and the body, or `None` to cut
    the connection.
    """

    def send(request: Any, **_: Any) -> AWSResponse:
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        answered = answer(operation, json.loads(request.body))
        if answered is None:
            raise ConnectionClosedError(endpoint_url=request.url)
        status, body = answered
        return answer_to(request, status, json.dumps(body).encode())

    # The type stubs do not know handlers that answer.
    client.meta.events.register("before-send", cast("Any", send))


def answer_to(request: Any, status: int, body: bytes) -> AWSResponse:
    """What a handler of botocore's `before-send` returns for a request that must not be sent."""
    return AWSResponse(request.url, status, HTTPHeaders(), cast("Any", _Raw(body)))


class QuietHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections and without a log."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes. The second would wait 40 ms for the acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    def body(self) -> bytes:
        """The body of the request."""
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
        """Closes the connection instead of answering."""
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error: in some tests the client disconnects early."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves on a free port in a thread, over `tls` if given. Yields the URL."""
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
