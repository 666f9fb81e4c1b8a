"""A part of a layer, written straight into the request that carries it, bypassing botocore's serialiser (ADR 3)."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pybase64


class LayerPart:
    """One UploadLayerPart request, made ready while the part's bytes arrive.

    Its body is JSON with the bytes in base64. It is written where it is sent from, so a part's bytes are in memory only
    once. It takes over the memory of a `used` part, if there is one. `members` are the request's other members. The
    part is the `length` bytes of the layer from `first_byte` on; `end` is the byte after the last one.
    """

    def __init__(self, members: Mapping[str, Any], first_byte: int, length: int, used: LayerPart | None = None) -> None:
        self.first_byte = first_byte
        self.end = first_byte + length
        self.members = {**members, "partFirstByte": first_byte, "partLastByte": self.end - 1}
        self._sha256 = hashlib.sha256()
        self._missing = length
        self._position = 0
        self._carried = b""
        # As botocore would write it, but with the blob last: then all else is known before its first byte.
        head = json.dumps({**self.members, "layerPartBlob": ""}).encode().removesuffix(_TAIL)
        size = len(head) + base64_bytes(length) + len(_TAIL)
        self.body: bytearray = _resized(used.body, size) if used else bytearray(size)
        self._append(head)

    def write(self, chunk: bytes) -> None:
        """Takes the part's next bytes, however many."""
        self._missing -= len(chunk)
        if self._carried:
            chunk = self._carried + chunk
        # Base64 turns 3 bytes into 4 characters; only the last group may be shorter.
        whole = len(chunk) - len(chunk) % 3
        self._carried = chunk[whole:]
        self._append(pybase64.b64encode(memoryview(chunk)[:whole]))

    def finish(self) -> str:
        """Ends the body, once all of its bytes are there. Returns its SHA-256 in hex."""
        if self._missing:
            raise ValueError(f"a part of {self.end - self.first_byte} bytes was written with {self._missing} missing")
        self._append(pybase64.b64encode(self._carried) + _TAIL)
        return self._sha256.hexdigest()

    def _append(self, text: bytes) -> None:
        """Adds to the body, and to its hash while the text is still in the processor's cache."""
        self._sha256.update(text)
        end = self._position + len(text)
        with memoryview(self.body) as body:
            body[self._position : end] = text
        self._position = end


# What follows the blob in a body.
_TAIL = b'"}'


def base64_bytes(length: int) -> int:
    """The length of so many bytes in base64: 4 characters for every 3 bytes or fewer."""
    return 4 * -(-length // 3)


def _resized(body: bytearray, size: int) -> bytearray:
    """The same memory with another size in bytes. The bodies of one upload differ by a few digits, but for the last."""
    try:
        del body[size:]
        body.extend(bytes(size - len(body)))
    except BufferError:
        # A TLS connection broke while the body was being sent. botocore has sent the body again since, but a traceback
        # still refers to it, in a cycle. Until that cycle is collected, its memory is not free.
        gc.collect()
        return bytearray(size)
    return body


# What follows lets botocore validate, sign, retry and send a LayerPart, but not serialise it. Turning its bytes into
# base64, a str and JSON would take most of a part's CPU time. Each call has its own context, so this is thread-safe.
def _set_part_aside(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Before botocore validates and serialises the members: replaces the part with no bytes."""
    context["layer_part"] = params["layerPartBlob"]
    params["layerPartBlob"] = b""


def _send_part_as_it_is(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Before botocore signs the request: gives it the part's own body.

    SigV4 takes the body's hash from the header, if there is one, instead of hashing the body again. The header is part
    of SigV4; the SDKs for JavaScript and Ruby send it to every service.
    """
    part: LayerPart = context["layer_part"]
    params["headers"]["X-Amz-Content-SHA256"] = part.finish()
    params["body"] = part.body


PART_HANDLERS: dict[str, Callable[..., None]] = {
    "before-parameter-build.ecr.UploadLayerPart": _set_part_aside,
    "before-call.ecr.UploadLayerPart": _send_part_as_it_is,
}
