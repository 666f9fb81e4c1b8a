"""What became of a message, as the log of the function in `sam local start-lambda` tells it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

# `samconfig.toml` names it, too.
LOG: Final = Path(__file__).parent.parent / ".aws-sam/function.log"

# What Lambda's runtime writes after the last line of an invocation. It may come after the answer.
_END: Final = "REPORT RequestId"
_END_SECONDS: Final = 2.0

# The function's log messages, and what they mean to somebody who waits for an object.
_FAILURES: Final = {
    "Rejected": "REJECTED ",
    "Given up": "GIVEN UP ",
    "Will be retried": "",
    "Unexpected error, will be retried": "",
}
_IMAGES: Final = {"Image pushed": "pushed", "Image skipped": "skipped"}
_LAYERS: Final = {"Layer uploaded": "uploaded", "Layer skipped": "skipped"}


class FunctionLog:
    """The log at `path`, which may not exist."""

    def __init__(self, path: Path = LOG) -> None:
        self._path = path
        self._position = 0

    def begin(self) -> None:
        """Marks the end of what has been logged so far, before the function is invoked."""
        self._position = self._path.stat().st_size if self._path.exists() else 0

    def outcomes(self) -> list[str]:
        """What became of the objects since `begin`, in words. Empty if nothing has been logged."""
        entries = self._entries()
        told = [text for entry in entries if (text := _told(entry))]
        # An image's layers are no news beside the image.
        return told or [text for entry in entries if (text := _told_of_layer(entry))]

    def _entries(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + _END_SECONDS
        while _END not in (text := self._read()) and self._path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        found = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line of Lambda's runtime
            if isinstance(entry, dict):
                found.append(entry)
        return found

    def _read(self) -> str:
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            file.seek(self._position)
            return file.read().decode(errors="replace")


def _told(entry: dict[str, Any]) -> str | None:
    message = str(entry.get("message"))
    if message in _FAILURES:
        return f"{_FAILURES[message]}{entry.get('error_type')}: {entry.get('reason')}"
    if message in _IMAGES:
        return f"{_IMAGES[message]} {', '.join(_names(entry))}"
    return f"ignored: {entry.get('reason')}" if message == "Ignored" else None


def _names(entry: dict[str, Any]) -> list[str]:
    """An image's names: by its tags, or by its digest if it has none."""
    repository = entry.get("repository")
    return [f"{repository}:{tag}" for tag in entry.get("tags") or []] or [f"{repository}@{entry.get('digest')}"]


def _told_of_layer(entry: dict[str, Any]) -> str | None:
    message = str(entry.get("message"))
    return f"{_LAYERS[message]} {entry.get('repository')}@{entry.get('digest')}" if message in _LAYERS else None
