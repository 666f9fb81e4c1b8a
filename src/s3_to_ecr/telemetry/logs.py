"""The function's logger. Log lines are JSON; level and service come from Powertools' own variables."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aws_lambda_powertools import Logger

from s3_to_ecr.text import MOST_CHARACTERS, shortened

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "s3-to-ecr")

# The two fields of a stack trace are for us, who need more of them.
_MOST_OF_A_STACK_TRACE = 16 * 1024
_STACK_TRACE = {"exception", "stack_trace"}


def _serialized(line: dict[str, Any]) -> str:
    """A log line as JSON, no field of it longer than it may be."""
    text = json.dumps(
        {name: _bounded(name, value) for name, value in line.items()},
        default=str,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    # Half of a surrogate pair cannot be written. This is how JSON escapes it.
    return text.encode(errors="backslashreplace").decode()


def _bounded(name: str, value: object) -> object:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    most = _MOST_OF_A_STACK_TRACE if name in _STACK_TRACE else MOST_CHARACTERS
    return value if len(text) <= most else shortened(text, most)


# Lambda takes a line whose timestamp is not RFC 3339 for INFO, whatever its level.
logger = Logger(service=SERVICE, use_rfc3339=True, json_serializer=_serialized)

# Powertools gives way to Lambda's own level, which cannot be WARN: Lambda would then drop the metrics, too, since their
# lines have no level. So ours is set past Powertools.
if _level := os.environ.get("POWERTOOLS_LOG_LEVEL"):
    logging.getLogger(logger.name).setLevel(_level.upper())


@contextmanager
def object_context() -> Iterator[None]:
    """The log context of one object: what `log_with` adds inside is forgotten at the end."""
    before = logger.thread_safe_get_current_keys()
    try:
        yield
    finally:
        logger.thread_safe_clear_keys()
        logger.thread_safe_append_keys(**before)


def log_with(**keys: str) -> None:
    """Adds `bucket`, `key`, `repository`, `digest` or `upload_id` to the log lines that follow in this context.

    A thread that runs in a copy of its parent's context starts with the parent's keys, and keeps its own to itself.
    """
    logger.thread_safe_append_keys(**keys)
