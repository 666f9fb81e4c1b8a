"""Makes the handler's calls to S3, ECR and DynamoDB fail in every way, right where botocore would send them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.httpsession import URLLib3Session

from s3_to_ecr.aws.clients import Clients
from tests.doubles.server import answer_to

# The faults that any call can have. With "after", the call has had its effect, and only the response is lost.
ANY_FAULT = (
    "throttled",
    "error 500",
    "cut before",
    "timeout before",
    "error 500 after",
    "cut after",
    "timeout after",
)

_THROTTLED = {
    "ecr": (400, "ThrottlingException"),
    "s3": (503, "SlowDown"),
    "dynamodb": (400, "ProvisionedThroughputExceededException"),
}
_ERROR_500 = {"ecr": "ServerException", "s3": "InternalError", "dynamodb": "InternalServerError"}

# S3's HTTP status for each error; the other services send 400.
_S3_STATUS = {
    "AccessDenied": 403,
    "InvalidObjectState": 403,
    "NoSuchKey": 404,
    "NoSuchVersion": 404,
    "NoSuchBucket": 404,
    "MethodNotAllowed": 405,
    "PreconditionFailed": 412,
    "InvalidRange": 416,
    "KeyTooLongError": 400,
    "InvalidArgument": 400,
}


class Gremlin:
    """Hooks into a function's clients. `calls` are the calls seen so far, as `service:Operation`, with retries."""

    def __init__(self, clients: Clients) -> None:
        self.calls: list[str] = []
        self._plans: list[Callable[[str], str | None]] = []
        self._lock = threading.Lock()
        # As botocore's clients do. Otherwise a body would wait 40 ms for the acknowledgement of its headers.
        no_delay: Any = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session = URLLib3Session(proxies={}, socket_options=[no_delay])
        for client in (clients.s3, clients.ecr, clients.dynamodb):
            client.meta.events.register(
                "before-send", cast("Any", self._send)
            )  # the type stubs know no handler that answers

    def fail(self, call: str, fault: str, *, nth: int = 1, times: int = 1) -> None:
        """Makes `times` calls fail, from the `nth` on. `call` is like `ecr:UploadLayerPart`, `ecr:*` or `*`."""
        self._plan(call, lambda: fault, range(nth, nth + times))

    def meddle(self, call: str, act: Callable[[], object], *, nth: int = 1, times: int = 1) -> None:
        """Runs `act` before `times` calls, from the `nth` on. The calls themselves succeed."""

        def without_fault() -> None:
            act()

        self._plan(call, without_fault, range(nth, nth + times))

    def _plan(self, call: str, act: Callable[[], str | None], when: range) -> None:
        seen = 0

        def plan(name: str) -> str | None:
            nonlocal seen
            if call not in ("*", name, name.partition(":")[0] + ":*"):
                return None
            seen += 1
            return act() if seen in when else None

        self._plans.append(plan)

    def rest(self) -> None:
        """Drops all faults, and forgets the calls."""
        with self._lock:
            self._plans.clear()
            self.calls.clear()

    def close(self) -> None:
        """Closes its own connections."""
        self._session.close()

    def _send(self, request: Any, event_name: str, **_: object) -> AWSResponse | None:
        name = event_name.removeprefix("before-send.").replace(".", ":")
        with self._lock:
            self.calls.append(name)
            fault = next(filter(None, [plan(name) for plan in self._plans]), None)
        if fault is None:
            return None
        if fault.endswith(" after"):
            answer = self._session.send(request)
            assert answer.status_code < 500
            answer.content  # noqa: B018 (reads the answer to its end, so that the connection can be used again)
        match fault.split():
            case ["cut", _]:
                raise ConnectionClosedError(endpoint_url=request.url)
            case ["timeout", _]:
                raise ReadTimeoutError(endpoint_url=request.url)
        return _refusal(request, name.partition(":")[0], fault)


def _refusal(request: Any, service: str, fault: str) -> AWSResponse:
    if fault == "throttled":
        status, code = _THROTTLED[service]
    elif fault.startswith("error 500"):
        status, code = 500, _ERROR_500[service]
    else:
        status, code = _S3_STATUS.get(fault, 400) if service == "s3" else 400, fault
    if service == "s3":
        body = f"<Error><Code>{code}</Code><Message>a fault on demand</Message></Error>".encode()
        body = b"" if request.method == "HEAD" else body
    else:
        body = json.dumps({"__type": code, "message": "a fault on demand"}).encode()
    return answer_to(request, status, body)
