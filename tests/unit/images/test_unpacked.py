"""Compressed archives are read as if they were plain, in bounded memory and time."""

from __future__ import annotations

import lzma
import random
import struct
import sys
import tarfile
import threading
from collections.abc import Generator
from typing import Any

import pytest

from local import images
from s3_to_ecr.errors import BrokenArchive, OutOfTime, S3ToEcrError, UnsupportedArchive
from s3_to_ecr.images import compression, unpacked
from s3_to_ecr.images.tar import Archive, may_hold_images, read_archive
from tests.doubles.invocation import Hourglass, deadline_of
from tests.unit.images.test_tar import MEMORY, Local

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KINDS = ["gzip", "zstd", "xz", "bzip2"]
CHANCE = random.Random(17)  # noqa: S311 (not a secret)
IMAGE = images.image([CHANCE.randbytes(160_000), b"small" * 50, CHANCE.randbytes(80_000)])
SAVED = images.docker_save(["app:1.0"], IMAGE)


def read(content: bytes, invocation: Hourglass | None = None, memory: int = MEMORY) -> tuple[Archive, Local]:
    blob = Local.of(content)
    archive = read_archive(blob, deadline_of(invocation or Hourglass()), memory)
    assert archive
    return archive, blob


def assert_same(archive: Archive, saved: bytes) -> None:
    """The archive's members are those of the plain one, byte for byte."""
    plain, _ = read(saved)
    assert list(archive) == list(plain)
    for path in plain:
        found, expected = archive.file(path), plain.file(path)
        assert (found and found.read_all()) == (expected and expected.read_all())
        assert archive.magic(path) == plain.magic(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("save", [images.docker_save, images.docker_save_25])
def test_members_of_a_compressed_archive_are_those_of_the_plain_one(save: Any, kind: str) -> None:
    saved = save(["app:1.0"], IMAGE)

    archive, _ = read(images.compress(saved, kind))

    assert_same(archive, saved)


def test_the_members_of_gzip_can_be_read_in_any_order_and_those_of_the_others_are_streams() -> None:
    for kind in KINDS:
        archive, _ = read(images.compress(SAVED, kind))
        layer = archive.file(next(path for path in archive if path.endswith("layer.tar")))
        document = archive.file("manifest.json")

        assert layer
        assert document
        assert layer.seekable == (kind == "gzip")
        assert document.seekable  # it is kept
        assert layer.identity.startswith(f"{layer.size} bytes from byte {layer.offset} on, unpacked, ")


def pieces(saved: bytes) -> list[bytes]:
    return [saved[:700], saved[700:90_001], saved[90_001:]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [b"", bytes(512)], ids=["unpadded", "padded"])
def test_members_frames_and_streams_one_after_another_are_one_archive(kind: str, padding: bytes) -> None:
    packed = padding.join(images.compress(piece, kind) for piece in pieces(SAVED)) + padding

    archive, _ = read(packed)

    assert_same(archive, SAVED)


def test_skippable_frames_of_zstd_are_skipped() -> None:
    """pzstd begins with one, and the seekable format ends with one."""
    skippable = struct.pack("<II", 0x184D2A5E, 5) + b"\0hey\0"
    packed = skippable + skippable.join(images.compress(piece, "zstd") for piece in pieces(SAVED)) + skippable

    archive, _ = read(packed)

    assert_same(archive, SAVED)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes checkpoints for small parts, and returns their size in bytes."""
    monkeypatch.setattr(unpacked, "_PART_BYTES", 8_000)
    monkeypatch.setattr(unpacked, "_LEAST_SPACING", 4_000)
    monkeypatch.setattr(unpacked, "_SCANNED_PIECE_BYTES", 500)
    return 8_000


def large_layers(archive: Archive) -> list[Any]:
    return [found for path in archive if (found := archive.file(path)) and found.size > 50_000]


def test_a_part_of_gzip_takes_no_more_than_its_own_bytes(small_parts: int) -> None:
    archive, blob = read(images.compress(SAVED, "gzip"))
    blob.requested.clear()

    for layer in large_layers(archive):
        for first in range(0, layer.size, small_parts):
            length = min(small_parts, layer.size - first)
            plain = SAVED[layer.offset + first : layer.offset + first + length]
            assert b"".join(layer.read(first, length)) == plain

    # The sample does not shrink. What follows the last checkpoint is requested, but not read further than needed.
    *whole, _ = sorted(length for _, length in blob.requested)
    assert len(whole) > 20
    assert max(whole) < 2 * small_parts


def test_any_range_of_gzip_is_read_by_several_threads_at_once(small_parts: int) -> None:
    archive, _ = read(b"".join(images.compress(piece, "gzip") for piece in pieces(SAVED)))
    [first_layer, second_layer] = large_layers(archive)
    wrong: list[tuple[int, int]] = []

    def reads(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 (not a secret)
        for _ in range(40):
            layer = chance.choice([first_layer, second_layer])
            first = chance.randrange(layer.size)
            length = chance.randrange(1, min(3 * small_parts, layer.size - first) + 1)
            start = layer.offset + first
            if b"".join(layer.read(first, length)) != SAVED[start : start + length]:
                wrong.append((first, length))

    threads = [threading.Thread(target=reads, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.usefixtures("small_parts")
def test_checkpoints_take_no_more_than_their_share_of_the_memory() -> None:
    few = 4 * 12 * unpacked._CHECKPOINT_BYTES
    archive, _ = read(images.compress(SAVED, "gzip"), memory=few)
    [layer, _] = large_layers(archive)

    assert isinstance(layer, unpacked.UnpackedRange)
    assert 2 <= len(layer.whole._checkpoints._found) <= 4
    assert_same(archive, SAVED)


@pytest.mark.parametrize("kind", ["zstd", "xz", "bzip2"])
def test_a_stream_is_passed_once_for_what_is_in_it_and_once_for_its_layers(kind: str) -> None:
    archive, blob = read(images.compress(SAVED, kind))
    first, second = large_layers(archive)
    document = archive.file("manifest.json")
    assert document
    blob.requested.clear()

    list(first.read(0, 0))
    assert b"".join(first.read(0, 1000)) == SAVED[first.offset :][:1000]
    assert b"".join(first.read(1000, 5000)) == SAVED[first.offset + 1000 :][:5000]
    document.read_all()
    assert b"".join(second.read(70_000, 10)) == SAVED[second.offset + 70_000 :][:10]
    assert len(blob.requested) == 1

    assert first.read_all() == SAVED[first.offset :][: first.size]
    assert len(blob.requested) == 2


def damaged(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes(40) + packed[at + 40 :]


def member(size: int, kind: bytes = b"0") -> bytes:
    header = tarfile.TarInfo("a" * 64 + ".tar")
    header.size, header.type = size, kind
    return header.tobuf(tarfile.GNU_FORMAT)


def with_dictionary() -> bytes:
    dictionary = zstd.train_dict([b"some sample %d words" % number * 5 for number in range(500)], 4096)
    return zstd.compress(SAVED, zstd_dict=dictionary)


def with_window(log: int) -> bytes:
    parameter = zstd.CompressionParameter
    # Small tables, or the compressor would take 130 MB.
    options: dict[int, int] = {parameter.window_log: log, parameter.hash_log: 10, parameter.chain_log: 10}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(SAVED) + compressor.flush()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda packed, _: packed[:-20], BrokenArchive, "truncated|damaged"),
        (lambda packed, _: packed[: len(packed) * 3 // 4], BrokenArchive, "truncated"),
        (lambda packed, _: damaged(packed, len(packed) // 2), BrokenArchive, "damaged before byte"),
        (lambda packed, _: packed + b"something else", BrokenArchive, "something else follows"),
        (
            lambda packed, kind: packed + images.compress(bytes(5_000_000), kind),
            BrokenArchive,
            "something else follows",
        ),
        (images.compress, UnsupportedArchive, "compressed twice, with .* Decompress it once"),
    ],
    ids=["truncated at the end", "truncated", "damaged", "garbage", "padding without end", "twice"],
)
def test_what_is_wrong_with_compressed_data_is_said(
    change: Any, error: type[S3ToEcrError], reason: str, kind: str
) -> None:
    packed = change(images.compress(SAVED, kind), kind)

    assert may_hold_images(packed)
    with pytest.raises(error, match=reason):
        read(packed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("header", [member(100 << 30), member(0) + member(100 << 30, b"Z")], ids=["file", "unknown"])
def test_a_bomb_is_rejected_before_it_is_unpacked(header: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedArchive, match=r"unpack to more than 1,07.*no image archive does"):
        read(images.compress(header + bytes(100_000), kind))


def test_zstd_that_takes_a_dictionary_or_too_large_a_window_is_rejected() -> None:
    assert_same(read(with_window(27))[0], SAVED)
    for packed, reason in ((with_dictionary(), "ictionary"), (with_window(31), "too much memory.*128 MiB")):
        assert may_hold_images(packed)
        with pytest.raises(UnsupportedArchive, match=reason):
            read(packed)


def test_xz_that_takes_too_much_memory_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(SAVED, preset=2)
    monkeypatch.setattr(compression, "_XZ_MEMORY", 1_000_000)

    with pytest.raises(UnsupportedArchive, match="xz: 64 MiB"):
        read(packed)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_resemble_a_compressed_archive_stay_layers(kind: str) -> None:
    for files in (
        {"manifest.json": b'{"name": "an app"}'},
        {"blobs/picture": b"x", "index.json": b"{}"},
        {f"usr/bin/{number}": b"x" * 900 for number in range(300)},
    ):
        packed = images.compress(images.tar(files), kind)
        assert not may_hold_images(packed)
        assert read_archive(Local.of(packed), deadline_of(Hourglass()), MEMORY) is None
    assert not may_hold_images(images.compress(b"hello", kind))
    assert not may_hold_images(images.compress(SAVED, kind)[:12])


class Slow(Local):
    """A blob that takes a second for every 4,000 bytes, once its beginning has been looked at in two requests."""

    def read(self, first: int, length: int) -> Generator[bytes]:
        seconds = len(self.requested) >= 2
        for chunk in super().read(first, length):
            for start in range(0, len(chunk), 4_000):
                yield chunk[start : start + 4_000]
                INVOCATIONS[-1].pass_by(seconds)


INVOCATIONS: list[Hourglass] = []


def read_slowly(packed: bytes, seconds: float, spent: float = 0) -> Archive:
    """Reads an archive in an invocation, of which some time is `spent`."""
    invocation = Hourglass(seconds)
    INVOCATIONS.append(invocation)
    deadline = deadline_of(invocation)
    invocation.pass_by(spent)
    archive = read_archive(Slow.of(packed), deadline, MEMORY)
    assert archive
    return archive


def test_what_no_invocation_can_unpack_is_rejected_instead_of_tried_again() -> None:
    # Small frames, so that time passes in small steps. It takes about a minute.
    packed = b"".join(images.compress(SAVED[start : start + 4_000], "zstd") for start in range(0, len(SAVED), 4_000))
    seconds = len(packed) / 4_000

    with pytest.raises(UnsupportedArchive, match=r"takes about \d\d s, and an invocation has 38"):
        read_slowly(packed, 40)
    # This invocation has spent its time on something else; the next one will do.
    with pytest.raises(OutOfTime):
        read_slowly(packed, 40, spent=30)
    with pytest.raises(OutOfTime):
        read_slowly(packed, 120, spent=90)

    # The last layer takes another pass.
    *_, last = large_layers(read_slowly(packed, seconds + 20))
    with pytest.raises(UnsupportedArchive, match=r"takes about \d+ s"):
        list(last.read(0, 0))
    *_, last = large_layers(read_slowly(packed, 2 * seconds + 40, spent=70))
    with pytest.raises(OutOfTime):
        list(last.read(0, 0))
