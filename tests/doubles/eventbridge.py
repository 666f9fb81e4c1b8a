"""An EventBridge that takes events as PutEvents does, and keeps them. It holds callers to EventBridge's limits."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.doubles.server import Fault, Faults, QuietHandler, answer_in_process, serving

MOST_ENTRIES = 10
MOST_BYTES = 256 * 1024

# What EventBridge adds to an event on the way to its targets.
_ENVELOPE_BYTES = 1024


class EventBridgeDouble:
    """The `events` that were taken, and how many each of the `calls` had.

    `faults` concern calls, as `PutEvents`, and single events, as `Event`: those with a code are refused.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self.faults = Faults()
        self.url = ""
        self._lock = threading.Lock()

    @property
    def told(self) -> Counter[tuple[str, str]]:
        """How many events there were of each detail type about each key."""
        return Counter((event["DetailType"], event["Detail"]["key"]) for event in self.events)

    @contextmanager
    def running(self) -> Iterator[EventBridgeDouble]:
        """Serves the double over HTTP at `url`."""
        double = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                answered = double.answer(json.loads(self.body())["Entries"])
                if answered is None:
                    self.cut()
                else:
                    self.reply(answered[0], json.dumps(answered[1]).encode())

        with serving(Handler) as url:
            self.url = url
            yield self

    def attach(self, client: Any) -> None:
        """Answers the client's calls without a network."""
        answer_in_process(client, lambda _, members: self.answer(members["Entries"]))

    def answer(self, entries: list[dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
        """The HTTP status and the body of the answer to a call, or `None` to cut the connection."""
        with self._lock:
            fault = self.faults.take("PutEvents")
            if fault and fault.code:
                return fault.status, {"__type": fault.code, "message": "a fault on demand"}
            if fault and not fault.after:
                return None
            self.calls.append(len(entries))
            if not 1 <= len(entries) <= MOST_ENTRIES or sum(map(_size, entries)) + _ENVELOPE_BYTES > MOST_BYTES:
                return 400, {"__type": "ValidationException", "message": "too many entries, or too large"}
            answers = [self._take(entry, self.faults.take("Event")) for entry in entries]
            if fault:
                return None
            return 200, {"FailedEntryCount": sum("ErrorCode" in each for each in answers), "Entries": answers}

    def _take(self, entry: dict[str, Any], fault: Fault | None) -> dict[str, str]:
        if fault and fault.code:
            return {"ErrorCode": fault.code, "ErrorMessage": "a fault on demand"}
        detail = json.loads(entry["Detail"])
        if not isinstance(detail, dict):
            return {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
        self.events.append(entry | {"Detail": detail})
        return {"EventId": str(len(self.events))}


def _size(entry: Mapping[str, Any]) -> int:
    """The size of an entry, as EventBridge's user guide calculates it."""
    texts = [entry["Source"], entry["DetailType"], entry["Detail"], *entry.get("Resources", [])]
    return sum(len(text.encode()) for text in texts)
