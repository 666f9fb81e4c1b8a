from __future__ import annotations

import random
import tarfile
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import images
from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.errors import Rejected
from s3_to_ecr.images.image_archive import images_in
from s3_to_ecr.images.references import Reference
from s3_to_ecr.images.tar import read_archive
from tests.doubles.invocation import DEADLINE
from tests.doubles.s3 import Bytes, S3Double, Stored

if TYPE_CHECKING:
    from collections.abc import Generator

    from types_boto3_s3.client import S3Client

IMAGE = images.image([b"layer" * 40_000, b"another"])
MEMORY = 1 << 30
SAVED = images.docker_save(["app:1.0"], IMAGE)


class Local(ObjectRange):
    """A blob in memory. It records the requested ranges, and refuses any past its end."""

    content: bytes
    requested: list[tuple[int, int]]

    @classmethod
    def of(cls, content: bytes) -> Local:
        blob = cls(cast("Any", None), "bucket", "app/1.tar", None, "etag", len(content), object_size=len(content))
        object.__setattr__(blob, "content", content)
        object.__setattr__(blob, "requested", [])
        return blob

    def read(self, first: int, length: int) -> Generator[bytes]:
        assert 0 <= first < first + length <= self.size
        self.requested.append((first, length))
        yield self.content[first : first + length]

    def within(self, offset: int, size: int) -> ObjectRange:
        return Local.of(self.content[offset : offset + size])


def test_members_are_ranges_of_the_object(s3_double: S3Double) -> None:
    s3_double.objects["app/1.tar"] = Stored(Bytes(SAVED), "e7a6", "null")
    client: S3Client = boto3.client("s3", endpoint_url=s3_double.url)
    blob = ObjectRange(client, "bucket", "app/1.tar", None, "e7a6", len(SAVED), object_size=len(SAVED))

    archive = read_archive(blob, DEADLINE, MEMORY)

    assert archive
    member = archive.file("manifest.json")
    assert isinstance(member, ObjectRange)
    assert SAVED[member.offset : member.offset + member.size] == member.read_all()
    assert (member.object_size, member.etag) == (len(SAVED), "e7a6")
    assert str(member.offset) in member.identity
    assert member.identity != blob.identity
    client.close()


def test_only_windows_around_the_headers_are_read() -> None:
    blob = Local.of(SAVED)

    archive = read_archive(blob, DEADLINE, MEMORY)

    assert archive
    found = images_in(archive, blob, "name", DEADLINE)
    assert found
    assert found.images[0].references == (Reference("1.0", "app"),)
    # The large layer is skipped; small members close together are read at once.
    assert sum(length for _, length in blob.requested) < len(SAVED) - 60_000
    assert len(blob.requested) == 2


def test_a_layer_of_many_files_is_recognised_by_its_first() -> None:
    blob = Local.of(images.tar({f"usr/bin/{number}": b"x" * 1000 for number in range(1000)}))

    assert read_archive(blob, DEADLINE, MEMORY) is None
    assert len(blob.requested) == 1


def test_as_many_members_as_an_image_may_have_are_read_with_their_pax_headers() -> None:
    """Python's own `tarfile` writes one for each member whose time has a fraction of a second."""
    header = tarfile.TarInfo("0" * 64 + ".json")
    header.mtime = 0.5
    member = header.tobuf(tarfile.PAX_FORMAT)
    assert len(member) == 3 * tarfile.BLOCKSIZE

    assert read_archive(Local.of(member * 20_000 + bytes(1024)), DEADLINE, MEMORY)


@pytest.mark.parametrize("size", [512 * 20, 512 * 20 + 512])
def test_nothing_past_the_end_is_read(size: int) -> None:
    """A tar whose size is a multiple of a window's, or of a block's."""
    content = images.tar({"manifest.json": b"[]"}).ljust(size, b"\0")
    blob = Local.of(content)

    assert read_archive(blob, DEADLINE, MEMORY) is not None
    assert all(first + length <= len(content) for first, length in blob.requested)


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_damaged_archive_is_read_or_rejected(seed: int, damages: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (not a secret)
    content = bytearray(chance.choice([SAVED, images.docker_save_25(["app:1.0"], IMAGE)]))
    # Only headers and documents are damaged, not a layer's own bytes.
    small = [at for at in range(len(content)) if content[at] and at % 512 < 300]
    for _ in range(damages):
        content[chance.choice(small)] = chance.choice([0, 45, 48, 255, chance.randrange(256)])
    del content[chance.choice([len(content), chance.randrange(1, len(content))]) :]
    blob = Local.of(bytes(content))
    try:
        archive = read_archive(blob, DEADLINE, MEMORY)
        if archive:
            images_in(archive, blob, "name", DEADLINE)
    except Rejected:
        pass
