from __future__ import annotations

import base64
import gc
import json
from collections.abc import Iterator

import pytest

from s3_to_ecr.ecr.layer_part import LayerPart

MEMBERS = {"repositoryName": "app", "uploadId": "u"}


def part(body: bytes, first_byte: int = 0, used: LayerPart | None = None) -> LayerPart:
    made = LayerPart(MEMBERS, first_byte, len(body), used)
    for start in range(0, len(body), 5):
        made.write(body[start : start + 5])
    made.finish()
    return made


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_part_is_the_request_that_botocore_would_send() -> None:
    assert json.loads(part(b"0123456789", 20).body) == {
        **MEMBERS,
        "partFirstByte": 20,
        "partLastByte": 29,
        "layerPartBlob": base64.b64encode(b"0123456789").decode(),
    }


def test_a_part_reuses_the_memory_of_a_used_one() -> None:
    used = part(b"0123456789")

    assert part(b"abcdefgh", 10, used).body is used.body


@pytest.mark.usefixtures("_no_garbage_collection")
def test_memory_that_a_broken_connection_still_refers_to_is_freed_at_once() -> None:
    """The traceback of a broken TLS connection refers to the memory in a cycle, which would keep 14 MiB for long."""
    used = part(b"0123456789")
    held: list[object] = [memoryview(used.body)]
    held.append(held)
    del held

    assert part(b"abcdefgh", 10, used).body is not used.body
    used.body.clear()  # raises BufferError while anything refers to the memory


def test_a_part_that_was_not_written_in_full_is_not_sent() -> None:
    with pytest.raises(ValueError, match="with 3 missing"):
        LayerPart(MEMBERS, 0, 3).finish()
