"""SDK clients, and the SDK's errors in our own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from s3_to_ecr.errors import AccessDenied, RequestRefused, S3ToEcrError, ServiceUnavailable

# One attempt and three retries with botocore's exponential back-off, in its `standard` mode: throttling, 5xx,
# cut connections and timeouts. What outlasts them goes back on the queue as `ServiceUnavailable`.
CLIENT_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=10, read_timeout=60)

# S3 begins to answer within milliseconds, and a read that hangs is better begun anew soon: others may wait for its end.
# Connections for four layers at a time, of each of which three parts are being read.
S3_CONFIG = CLIENT_CONFIG.merge(Config(read_timeout=10, max_pool_connections=16))

# What an AWS error code means: a class of ours, and what to do about it.
Codes = Mapping[str, tuple[type[S3ToEcrError], str]]

_DENIED = "Allow the call in the function's role and, for another account's resource, in its policy."

# Codes that mean the same for every service. Anything not listed here or by the caller may work later.
_COMMON_CODES: Codes = {
    "AccessDenied": (AccessDenied, _DENIED),
    "AccessDeniedException": (AccessDenied, _DENIED),
    "403": (AccessDenied, _DENIED),
    "AllAccessDisabled": (AccessDenied, _DENIED),
    "InvalidParameterException": (RequestRefused, ""),
    "ValidationException": (RequestRefused, ""),
    "SerializationException": (RequestRefused, ""),
}


@contextmanager
def translated(doing: str, codes: Codes) -> Iterator[None]:
    """Raises the SDK's errors as ours, by `codes` first. `doing` begins the message: "reading s3://bucket/key".

    Codes that nobody listed, and failures without an answer, are `ServiceUnavailable`: to try again is safe, to give
    up is not.
    """
    try:
        yield
    except ClientError as error:
        code = error.response["Error"].get("Code", "unknown")
        message = error.response["Error"].get("Message", "")
        kind, advice = codes.get(code) or _COMMON_CODES.get(code, (ServiceUnavailable, ""))
        raise kind(f"{doing} failed with {code}: {message} {advice}".strip()) from error
    except ParamValidationError as error:
        raise RequestRefused(f"{doing} failed: {error}") from error
    except BotoCoreError as error:
        raise ServiceUnavailable(f"{doing} failed: {error}") from error
