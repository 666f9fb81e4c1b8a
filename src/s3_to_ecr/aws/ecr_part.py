"""A part of a layer as the request that carries it, past botocore's own serialising of it (ADR 3)."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pybase64


class LayerPart:
    """One UploadLayerPart request, made ready while the part's bytes arrive.

    Its body, JSON with the bytes in base64, is written where it is sent from, so the bytes of a part are in memory
    once; in the memory of a `used` part, if there is one. `members` are the request's other members. The part is the
    `length` bytes of the layer from `first_byte` on, `end` being the byte after the last.
    """

    def __init__(self, members: Mapping[str, Any], first_byte: int, length: int, used: LayerPart | None = None) -> None:
        self.first_byte = first_byte
        self.end = first_byte + length
        self.members = {**members, "partFirstByte": first_byte, "partLastByte": self.end - 1}
        self._sha256 = hashlib.sha256()
        self._missing = length
        self._position = 0
        self._carried = b""
        # As botocore would write it. The blob goes last: then all else is known before its first byte.
        head = json.dumps({**self.members, "layerPartBlob": ""}).encode().removesuffix(_TAIL)
        size = len(head) + base64_bytes(length) + len(_TAIL)
        self.body: bytearray = _resized(used.body, size) if used else bytearray(size)
        self._append(head)

    def write(self, chunk: bytes) -> None:
        """Takes the part's next bytes, any number."""
        self._missing -= len(chunk)
        if self._carried:
            chunk = self._carried + chunk
        # Base64 turns 3 bytes into 4 characters, and only the last ones may be fewer.
        whole = len(chunk) - len(chunk) % 3
        self._carried = chunk[whole:]
        self._append(pybase64.b64encode(memoryview(chunk)[:whole]))

    def finish(self) -> str:
        """Ends the body, once its bytes are all there. Returns its SHA-256 in hex."""
        if self._missing:
            raise ValueError(f"a part of {self.end - self.first_byte} bytes was written with {self._missing} missing")
        self._append(pybase64.b64encode(self._carried) + _TAIL)
        return self._sha256.hexdigest()

    def _append(self, text: bytes) -> None:
        """Adds to the body, and to its hash while the text is in the core's cache."""
        self._sha256.update(text)
        end = self._position + len(text)
        with memoryview(self.body) as body:
            body[self._position : end] = text
        self._position = end


# What ends a body, after its blob.
_TAIL = b'"}'


def base64_bytes(length: int) -> int:
    """How long so many bytes are in base64: 4 characters for every 3 begun."""
    return 4 * -(-length // 3)


def _resized(body: bytearray, size: int) -> bytearray:
    """The same memory with that size in bytes. One upload's bodies differ in size by few digits, but for the last."""
    try:
        del body[size:]
        body.extend(bytes(size - len(body)))
    except BufferError:
        # A TLS connection broke while the body was sent. botocore has sent it again since, but the traceback holds on
        # to it, in a cycle: that has to go, or the memory would stay.
        gc.collect()
        return bytearray(size)
    return body


# What follows lets botocore validate, sign, retry and send a LayerPart, but not serialise it: the detour of its bytes
# over base64, str and JSON takes most of a part's CPU time. A call's context is its own, so threads do not meet here.
def _set_part_aside(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Before botocore validates and serialises the members: puts no bytes where the part is."""
    context["layer_part"] = params["layerPartBlob"]
    params["layerPartBlob"] = b""


def _send_part_as_it_is(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Before botocore signs the request: puts the part's own body into it.

    SigV4 takes the body's hash from the header if there is one, instead of hashing the body again; the header itself
    is part of SigV4, sent to every service by the SDKs for JavaScript and Ruby.
    """
    part: LayerPart = context["layer_part"]
    params["headers"]["X-Amz-Content-SHA256"] = part.finish()
    params["body"] = part.body


PART_HANDLERS = {
    "before-parameter-build.ecr.UploadLayerPart": _set_part_aside,
    "before-call.ecr.UploadLayerPart": _send_part_as_it_is,
}
