"""The SDK's errors, translated into the tree of `errors`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError

from s3_to_ecr.errors import AccessDenied, RequestRefused, S3ToEcrError, ServiceUnavailable

# What an AWS error code means: one of our errors, and what to do about it.
Codes = Mapping[str, tuple[type[S3ToEcrError], str]]

_DENIED = "Allow the call in the function's role and, for another account's resource, in its policy."

# Codes that mean the same in every service. A code that is not listed here or by the caller may work later.
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
    """Raises the SDK's errors as ours; `codes` come first. `doing` begins the message: "reading s3://bucket/key".

    Unlisted codes and calls without an answer become `ServiceUnavailable`: retrying is safe, giving up is not.
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
        if isinstance(error, HTTPClientError):
            vars(error)["request"] = None  # its body may be a part of a layer
        raise ServiceUnavailable(f"{doing} failed: {error}") from error
