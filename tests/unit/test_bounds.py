"""Whoever uploads an object decides how much work it is: every loop and every buffer has a bound."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local import images
from local.images import Built, Files
from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import Blob
from s3_to_ecr.errors import (
    BlobsMissing,
    BrokenArchive,
    BrokenManifest,
    ObjectArchived,
    OutOfTime,
    S3ToEcrError,
    UnsupportedManifest,
)
from s3_to_ecr.push.image_layers import ImageLayers
from s3_to_ecr.push.largest_first import LargestFirst
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.metrics import metrics
from tests.doubles.accounts import Accounts
from tests.doubles.invocation import Hourglass
from tests.doubles.tar import header, member

pytestmark = pytest.mark.slow  # most objects are as large as they may be

MIB = 1024 * 1024

# Time enough for everything: a test that takes less says so.
FOREVER = 100_000.0


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "add_metric", lambda *_: None)
    monkeypatch.setattr(logger.registered_handler, "stream", io.StringIO())


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def named(*digests: str, **annotations: str) -> bytes:
    """An index of these manifests."""
    entries = [{"digest": digest} | ({"annotations": annotations} if annotations else {}) for digest in digests]
    return json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}).encode()


def tagged(tags: dict[str, str]) -> bytes:
    """An index.json that gives each tag a digest."""
    entries = [
        {"digest": digest, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag, digest in tags.items()
    ]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


def layout(files: Files) -> dict[str, bytes]:
    return {f"app/{path}": content for path, content in files.items()}


def small_layers(number: int) -> Built:
    return images.image([b"%d" % n for n in range(number)])


def saved(configs: list[bytes], entries: list[dict[str, Any]]) -> bytes:
    """A `docker save` of entries that name configs `0.json` … and the one layer `l.tar`."""
    files = {f"{number}.json": config for number, config in enumerate(configs)} | {"l.tar": b"layer"}
    return images.tar(files | {"manifest.json": json.dumps(entries).encode()})


def config_of(diff_ids: list[str], **more: Any) -> bytes:
    return json.dumps({"rootfs": {"diff_ids": diff_ids}, **more}).encode()


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """A function that returns the most bytes that were allocated at once since the beginning."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def ends_in_time(objects: dict[str, bytes], key: str, seconds: float, notes: int = 0) -> Accounts:
    """Runs an invocation that is too short for the object, and must end by itself. Each call takes 0.1 s.

    `notes` is how many images wait for the object.
    """
    accounts = Accounts(objects, seconds_a_call=0.1)
    accounts.notes = [f"app{number}/index.json" for number in range(notes)]
    hourglass = Hourglass(seconds)
    with pytest.raises(OutOfTime):
        accounts.put(key, hourglass)
    assert hourglass.seconds >= 0
    return accounts


def test_an_archive_of_many_layers_ends_in_time() -> None:
    """Each layer that was left once took a lease and gave it back."""
    archive = images.tar(images.oci_layout({"1.0": small_layers(500)}))

    accounts = ends_in_time({"app/1.0.tar": archive}, "app/1.0.tar", 20)

    assert accounts.calls["CompleteLayerUpload"] > 10
    assert accounts.calls["UpdateItem"] <= 2 * accounts.calls["InitiateLayerUpload"] + 8


def test_the_notes_of_many_missing_images_end_in_time() -> None:
    index = tagged({f"v{number}": digest(number) for number in range(1000)})

    accounts = ends_in_time({"app/index.json": index}, "app/index.json", 180)

    assert 0 < accounts.calls["UpdateItem"] < 1000


def test_looking_for_many_layers_ends_in_time() -> None:
    manifests = [
        json.dumps({"schemaVersion": 2, "layers": [{"digest": digest(500 * n + m)} for m in range(500)]}).encode()
        for n in range(20)
    ]
    files = {f"app/manifests/{images.digest_of(manifest)}": manifest for manifest in manifests}
    index = {"app/manifests/1.0": named(*map(images.digest_of, manifests))}

    accounts = ends_in_time(files | index, "app/manifests/1.0", 10)

    assert 0 < accounts.calls["BatchCheckLayerAvailability"] < 100


def test_looking_for_many_images_ends_in_time() -> None:
    index = named(*map(digest, range(5000)))

    accounts = ends_in_time({"app/manifests/1.0": index}, "app/manifests/1.0", 4)

    assert 0 < accounts.calls["BatchGetImage"] < 50


def test_setting_many_tags_ends_in_time() -> None:
    built = small_layers(1)
    tags = [f"app:v{number}" for number in range(1000)]

    accounts = ends_in_time({"app/1.tar": images.docker_save(tags, built)}, "app/1.tar", 30)

    assert 0 < accounts.calls["PutImage"] < 100


def test_claiming_many_tags_that_are_set_ends_in_time() -> None:
    tags = [f"app:v{number}" for number in range(1000)]
    archive = {"app/1.tar": images.docker_save(tags, small_layers(1))}
    pushed = Accounts(archive)
    pushed.put("app/1.tar", Hourglass(FOREVER))
    assert len(pushed.tags) == 1000

    hourglass = Hourglass(8)
    with pytest.raises(OutOfTime):
        pushed.put("app/1.tar", hourglass)
    assert hourglass.seconds >= 0


def test_looking_for_many_subjects_ends_in_time() -> None:
    artifacts = [images.image([b"%d" % n], subject={"digest": digest(n)}) for n in range(200)]
    files = images.oci_layout({"1.0": images.index(*artifacts)})

    accounts = ends_in_time(layout(files), "app/index.json", 90)

    assert accounts.calls["GetObject"] == 202
    assert accounts.calls["HeadObject"] > 250


def test_pushing_many_images_that_waited_ends_in_time() -> None:
    objects = {f"app{number}/index.json": named() for number in range(1000)}
    objects[f"app/blobs/{digest(1)}"] = b"layer"

    accounts = ends_in_time(objects, f"app/blobs/{digest(1)}", 10, notes=1000)

    assert accounts.calls["GetItem"] == 1


# What is beyond a bound is rejected before the first call to ECR or the table. The document itself takes two reads.
@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (named(*map(digest, range(1001))), "1,001 images, more than 1,000"),
        (tagged({f"v{number}": digest(1) for number in range(1001)}), "1,001 tags, more than 1,000"),
        (tagged({f"v{number}": digest(1) for number in range(20_000)}), "20,000 tags"),
    ],
)
def test_an_index_of_too_many_images_or_tags_is_rejected_before_the_first_call(index: bytes, reason: str) -> None:
    accounts = Accounts({"app/index.json": index})

    with pytest.raises(UnsupportedManifest, match=reason):
        accounts.put("app/index.json", Hourglass(FOREVER))

    assert accounts.calls == {"HeadObject": 1, "GetObject": 1}


def test_an_archive_of_too_many_tags_is_rejected_before_the_first_call() -> None:
    archive = images.docker_save([f"app:v{number}" for number in range(1001)], small_layers(1))
    accounts = Accounts({"app/1.tar": archive})

    with pytest.raises(UnsupportedManifest, match="1,001 tags"):
        accounts.put("app/1.tar", Hourglass(FOREVER))

    assert set(accounts.calls) == {"GetObject"}


def test_an_index_of_too_many_children_is_rejected_before_they_are_looked_for() -> None:
    accounts = Accounts({"app/manifests/1.0": named(*map(digest, range(5001)))})

    with pytest.raises(UnsupportedManifest, match="more than 5,000 manifests"):
        accounts.put("app/manifests/1.0", Hourglass(FOREVER))

    assert accounts.calls == {"HeadObject": 1, "GetObject": 1, "BatchGetImage": 1}


def test_fifteen_indexes_of_absent_children_take_a_call_for_ten_of_them_once() -> None:
    """They once took 14,791 calls, and those again by each delivery."""
    indexes = [named(*(digest(number * 1000 + child) for child in range(400))) for number in range(15)]
    files = {images.blob_path(images.digest_of(index)): index for index in indexes}
    accounts = Accounts(layout(files | {"index.json": named(*map(images.digest_of, indexes))}))

    with pytest.raises(UnsupportedManifest, match="more than 5,000 manifests"):
        accounts.put("app/index.json", Hourglass(FOREVER))

    assert accounts.calls["BatchGetImage"] <= 2 + 5000 / 10
    assert accounts.calls["UpdateItem"] == 0


def test_indexes_that_share_absent_children_do_not_ask_for_them_without_end() -> None:
    """Sixty of them once took 60,012 calls, and those again by each delivery."""
    children = [digest(number) for number in range(1000)]
    indexes = [named(*children, digest(5000 + number)) for number in range(60)]
    files = {images.blob_path(images.digest_of(index)): index for index in indexes}
    tags = tagged({f"v{number}": images.digest_of(index) for number, index in enumerate(indexes)})
    accounts = Accounts(layout(files | {"index.json": tags}))

    with pytest.raises(UnsupportedManifest, match="more than 5,000 manifests"):
        accounts.put("app/index.json", Hourglass(FOREVER))

    assert accounts.calls["BatchGetImage"] <= 20 + 20_000 / 10


def test_a_bundle_of_three_hundred_images_of_four_platforms_is_pushed() -> None:
    bundle = {
        f"v{number}": images.index(*(images.image([b"%d" % number], architecture=f"a{n}") for n in range(4)))
        for number in range(300)
    }
    accounts = Accounts({"app/bundle.tar": images.tar(images.oci_layout(bundle))})
    accounts.layers = {digest for built in bundle.values() for digest in built.all_blobs}

    [result] = accounts.put("app/bundle.tar", Hourglass(FOREVER))["results"]

    assert len(result["images"]) == len(accounts.tags) == 300
    assert accounts.calls["PutImage"] == 300 * 5
    assert accounts.calls["BatchGetImage"] <= 600 / 10 + 300 * 2


def saved_often(number: int, layers: int) -> bytes:
    """A `docker save` of so many images, which all name one config and its one layer so many times."""
    entry = {"Config": "0.json", "Layers": ["l.tar"] * layers}
    return saved([config_of([digest(n) for n in range(layers)])], [entry] * number)


def test_many_images_with_one_config_take_as_much_memory_as_one() -> None:
    """Of an archive of 4 MiB, 300 such images once took 1.3 GB."""
    archive = saved_often(20, 1000)
    accounts = Accounts({"app/1.tar": archive})

    with memory() as most:
        with pytest.raises(OutOfTime):
            accounts.put("app/1.tar", Hourglass(2.05))
        assert most() < 5 * MIB


def test_an_archive_of_too_many_layers_is_rejected_before_the_first_call() -> None:
    accounts = Accounts({"app/1.tar": saved_often(51, 1000)})

    with pytest.raises(BrokenArchive, match="more than 50,000 layers in all"):
        accounts.put("app/1.tar", Hourglass(FOREVER))

    assert set(accounts.calls) == {"GetObject"}


def test_an_archive_of_too_large_configs_is_rejected() -> None:
    configs = [config_of([digest(number)]).ljust(4 * MIB) for number in range(2)]
    entries = [{"Config": f"{n}.json", "Layers": ["l.tar"]} for n in range(2)]
    links = {f"{number}.json": f"{number % 2}.json" for number in range(2, 17)}
    entries += [{"Config": link, "Layers": ["l.tar"]} for link in links]
    files = {"0.json": configs[0], "1.json": configs[1], "l.tar": b"layer"}
    archive = images.tar(files | {"manifest.json": json.dumps(entries).encode()}, links)
    accounts = Accounts({"app/1.tar": archive})

    with pytest.raises(UnsupportedManifest, match="67,108,864 bytes in all"):
        accounts.put("app/1.tar", Hourglass(FOREVER))

    assert accounts.calls["GetObject"] <= 16 * 2 + 3


def test_what_indexes_say_about_their_children_takes_no_memory() -> None:
    """Their annotations once stayed in memory, thirty times as large as in the document: 3.5 GB of 58 MiB."""
    junk = [{"": 0}] * 20_000
    files = {}
    for number in range(10):
        entry = {"digest": digest(number), "annotations": {"junk": junk}}
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        files[f"manifests/{images.digest_of(index)}"] = index
    files["manifests/1.0"] = named(*(path.removeprefix("manifests/") for path in files))
    accounts = Accounts(layout(files))

    with memory() as most:
        with pytest.raises(BlobsMissing):
            accounts.put("app/manifests/1.0", Hourglass(FOREVER))
        assert most() < 12 * MIB


@pytest.mark.parametrize("value", ["{}", "[]"])
def test_a_document_of_too_many_values_is_not_parsed(value: str) -> None:
    """4 MiB of them take 125 MB in memory."""
    values = ",".join([value] * 50_000)
    index, description = f'{{"manifests": [], "junk": [{values}]}}', f"[{values}]"
    archive = images.tar({"0" * 64 + ".json": b"", "manifest.json": description.encode()})
    accounts = Accounts({"app/index.json": index.encode(), "app/1.tar": archive})

    for key in accounts.objects:
        with memory() as most:
            with pytest.raises(BrokenManifest, match="more than 50,000 objects and lists"):
                accounts.put(key, Hourglass(FOREVER))
            assert most() < MIB


def test_a_document_of_too_many_texts_is_not_parsed() -> None:
    """4 MiB of them take 54 MB in memory."""
    texts = ",".join(['"ab"'] * 200_001)
    accounts = Accounts({"app/index.json": f'{{"manifests": [], "junk": [{texts}]}}'.encode()})

    with memory() as most:
        with pytest.raises(BrokenManifest, match="more than 200,000 values"):
            accounts.put("app/index.json", Hourglass(FOREVER))
        assert most() < 3 * MIB


def test_the_manifests_of_an_image_take_as_much_memory_as_four_of_the_largest() -> None:
    children = [images.image([b"%d" % number], junk="x" * (4 * MIB - 1000)) for number in range(5)]
    static = images.static_registry("1.0", images.index(*children))
    accounts = Accounts(layout(static))

    with memory() as most:
        with pytest.raises(UnsupportedManifest, match="the image's manifests have more than 16,777,216 bytes"):
            accounts.put("app/manifests/1.0", Hourglass(FOREVER))
        assert most() < 36 * MIB


def test_images_that_fail_leave_their_manifests() -> None:
    """Twenty images that shared 54 MiB of manifests once took 1.2 GB."""
    children = [images.image([b"layer"], junk="x" * 2 * MIB), images.image([b"%d" % n for n in range(501)])]
    built = {f"v{number}": images.index(*children, number=number) for number in range(20)}
    accounts = Accounts(layout(images.oci_layout(built)))

    with memory() as most:
        with pytest.raises(UnsupportedManifest, match=r"20 failures: .* 501 layers"):
            accounts.put("app/index.json", Hourglass(FOREVER))
        assert most() < 12 * MIB


def test_layers_that_fail_leave_their_parts() -> None:
    """Thirty images with one layer each, all archived, once took 900 MB. Each left two parts of 14 MB."""
    layer = bytes(2 * MIB)
    layers = {f"app/{images.blob_path(digest(number))}": layer for number in range(30)}
    built = {
        f"v{number}": Built(json.dumps({"schemaVersion": 2, "layers": [{"digest": digest(number)}]}).encode())
        for number in range(30)
    }
    accounts = Accounts(layers | layout(images.oci_layout(built)))
    accounts.archived = set(layers)

    with memory() as most:
        with pytest.raises(ObjectArchived, match="30 failures"):
            accounts.put("app/index.json", Hourglass(FOREVER))
        # As many as are uploaded at a time.
        assert most() < 16 * 3 * MIB


def test_layers_that_are_uploaded_leave_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once left 3.8 KB, and an invocation can upload 70,000 of them."""
    accounts = Accounts({"app/1.0.tar": images.tar(images.oci_layout({"1.0": small_layers(200)}))})
    left: list[int] = []

    def put_image(**_: Any) -> None:
        gc.collect()
        left.append(sum(isinstance(found, ObjectRange) for found in gc.get_objects()))

    monkeypatch.setattr(accounts.ecr, "put_image", put_image)

    accounts.put("app/1.0.tar", Hourglass(FOREVER))

    # The archive, and what the threads have just had in hand.
    assert left[0] < 40


def test_an_image_for_many_repositories_takes_as_much_memory_as_one_pass_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 10,000 layers for thirty repositories, in 100 KB of zstd, once took 180 MB, and a thousand are allowed."""
    built = small_layers(50)
    names = [f"example.com/app/{number}:1.0" for number in range(20)]
    archive = images.compress(images.docker_save(names, built), "zstd")
    accounts = Accounts({"_/bundle.tar": archive})
    passes: list[int] = []
    push_in_order = ImageLayers.push_in_order

    def noted(layers: ImageLayers, blobs: dict[tuple[str, str], Blob], document_key: str) -> Any:
        passes.append(len(blobs))
        return push_in_order(layers, blobs, document_key)

    monkeypatch.setattr(ImageLayers, "push_in_order", noted)
    monkeypatch.setattr("s3_to_ecr.push.image._MOST_IN_A_PASS", 200)

    [result] = accounts.put("_/bundle.tar", Hourglass(FOREVER))["results"]

    assert len(result["images"]) == 20
    assert len(passes) > 1
    assert max(passes) <= 200 + len(built.blobs)


def test_what_a_compressed_archive_keeps_in_memory_leaves_less_of_it_for_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms: list[int] = []

    class Noted(LargestFirst):
        def __init__(self, most: int, room: int) -> None:
            rooms.append(room)
            super().__init__(most, room)

    monkeypatch.setattr("s3_to_ecr.push.image_layers.LargestFirst", Noted)
    plain = images.tar(images.oci_layout({"1.0": images.image([b"layer"], junk="x" * MIB)}))
    for content in (plain, images.compress(plain, "gzip")):
        Accounts({"app/1.0.tar": content}).put("app/1.0.tar", Hourglass(FOREVER))

    assert rooms[0] == 1024 * MIB // 7
    assert MIB < rooms[0] - rooms[1] < 1.1 * MIB


def test_a_media_type_is_as_long_as_one_can_be() -> None:
    long = json.dumps({"schemaVersion": 2, "mediaType": "x" * 256, "layers": []}).encode()
    accounts = Accounts({"app/manifests/1.0": long})

    with pytest.raises(S3ToEcrError, match="media type of 256 characters"):
        accounts.put("app/manifests/1.0", Hourglass(FOREVER))


def test_the_names_in_an_archive_take_as_much_memory_as_a_million_characters() -> None:
    name = "x" * 1_000_000
    archive = images.tar({"0" * 64 + ".json": b""} | {f"{number}{name}": b"" for number in range(5)})
    accounts = Accounts({"app/1.tar": archive})

    with pytest.raises(BrokenArchive, match="4,194,304 characters in all"):
        accounts.put("app/1.tar", Hourglass(FOREVER))


def test_a_name_that_is_no_text_can_be_answered() -> None:
    files = {"half \udcff.json": b"no config", "l.tar": b"", "manifest.json": b""}
    files["manifest.json"] = json.dumps([{"Config": "half \udcff.json", "Layers": ["l.tar"]}]).encode()
    accounts = Accounts({"app/1.tar": images.tar(files)})

    with pytest.raises(BrokenManifest, match=r"config half \\udcff.json is not JSON") as raised:
        accounts.put("app/1.tar", Hourglass(FOREVER))

    assert str(raised.value).encode().decode().isprintable()


def test_an_index_of_no_images_is_logged(logs: Callable[[], list[dict[str, Any]]]) -> None:
    accounts = Accounts({"app/index.json": named()})

    [result] = accounts.put("app/index.json", Hourglass(FOREVER))["results"]

    assert (result["action"], result["reason"]) == ("skipped", "it names no images")
    assert [(line["message"], line["reason"]) for line in logs()] == [("Nothing to push", "it names no images")]


# Names and values of any text, with lone surrogates, which JSON and tar archives can hold.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(["1.0", "", "../x", "a" * 300])
NUMBERS = st.integers(0, 12)
NAMES = TEXT.map(lambda name: name[:50]) | st.sampled_from(["a/" * 300, "web/values.yaml", "x" * 5000, "/etc/passwd"])
COMPRESSIONS = st.sampled_from(["gzip", "zstd", "xz", "bzip2"])
OF_AN_IMAGE = "0" * 64 + "/layer.tar"


@st.composite
def trees(draw: st.DrawFn, levels: int = 3) -> Built:
    """An image, or an index of some. Documents have junk in them."""
    junk = {draw(TEXT): [{"": draw(TEXT)}] * draw(NUMBERS)}
    if levels and draw(st.booleans()):
        children = draw(st.lists(trees(levels=levels - 1), max_size=4))
        for _ in range(draw(st.sampled_from([0, 0, 1, 17]))):
            children = [images.index(*children)]
        return images.index(*children, **junk)
    layers = [b"%d" % number for number in range(draw(NUMBERS | st.just(80)))] * draw(st.sampled_from([1, 1, 20]))
    return images.image(layers, annotations=junk)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, dict[str, bytes], int]:
    """Images in an OCI layout, its archive, or a static registry, of which some files may be missing or others."""
    built = draw(st.dictionaries(TEXT, trees(), max_size=5)) | {"last": draw(trees())}
    copies = draw(st.sampled_from([1, 1, 1, 30]))
    built |= {f"{tag}{number}": image for tag, image in built.items() for number in range(copies)}
    files = images.oci_layout(built)
    for path in draw(st.lists(st.sampled_from(sorted(files)[:-1]), max_size=3)):
        if draw(st.booleans()):
            files[path] = draw(st.binary(max_size=100))
        elif path != "index.json":
            files.pop(path, None)
    things = sum(1 + len(image.manifests) + len(image.all_blobs) for image in built.values())
    if draw(st.booleans()):
        return "app/1.0.tar", {"app/1.0.tar": images.tar(files)}, things + len(files)
    if draw(st.booleans()):
        static = images.static_registry("1.0", built["last"])
        return "app/manifests/1.0", layout(static), things
    return "app/index.json", layout(files), things


@st.composite
def saves(draw: st.DrawFn) -> tuple[str, dict[str, bytes], int]:
    """A `docker save` whose entries name what they like."""
    numbers = draw(st.lists(NUMBERS, min_size=1, max_size=5))
    configs = [config_of([digest(n) for n in range(number)], junk=[{"": 0}] * number) for number in numbers]
    paths = st.sampled_from(["0.json", "0.json", "1.json", "l.tar", "../l.tar", "manifest.json"])
    entry: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({
        "Config": paths | st.none(),
        "Layers": st.just(["l.tar"] * numbers[0]) | st.lists(paths, max_size=20),
        "RepoTags": st.lists(TEXT.map("app:{}".format) | TEXT, max_size=5) | st.none(),
    })  # fmt: skip
    entries = draw(st.lists(entry, min_size=1, max_size=5)) * draw(st.sampled_from([1, 1, 100, 300]))
    things = sum(1 + len(entry["Layers"]) + len(entry["RepoTags"] or []) for entry in entries)
    return "app/1.0.tar", {"app/1.0.tar": saved(configs, entries)}, things + len(configs) + 2


@st.composite
def archives(draw: st.DrawFn) -> tuple[str, dict[str, bytes], int]:
    """Headers of any kind, name and size, with whatever follows them."""
    kinds = st.sampled_from(
        [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME]
    )
    data = st.sampled_from([
        b"", b"x" * 512, b"[]".ljust(512), b"30 path=../half \xff\n".ljust(512, b"\0"),
        b"21 size=99999999999\n".ljust(512, b"\0"), b"9 path=x\n" * 50 + bytes(62),
    ])  # fmt: skip
    parts: list[bytes] = []
    for _ in range(draw(NUMBERS)):
        name = draw(NAMES | st.sampled_from(["oci-layout", "index.json", "manifest.json", "0" * 64 + ".json"]))
        size = draw(st.sampled_from([0, 1, 512, 1024, 70_000, 2**21, 2**33]))
        copies = draw(st.sampled_from([1, 1, 1, 200]))
        parts += [header(name, size, draw(kinds), draw(TEXT)[:50]) + draw(data)] * copies
    archive = b"".join(parts) + bytes(1024)
    return "app/1.0.tar", {"app/1.0.tar": archive}, len(archive) // 512


@cache
def bomb(kind: str) -> bytes:
    """A member of 32 MiB that takes a few KiB."""
    return images.compress(header(OF_AN_IMAGE, 32 * MIB) + bytes(32 * MIB), kind)


@cache
def crowd(kind: str) -> bytes:
    """Many members."""
    return images.compress(header(OF_AN_IMAGE, 0) * 3000, kind)


def compressed(draw: st.DrawFn, content: bytes, kind: str) -> bytes:
    """The content, compressed. It may be damaged, or not all that is compressed, or not all that there is."""
    whole = images.compress(content, kind)
    position, other = draw(st.integers(0, len(whole) - 1)), draw(COMPRESSIONS)
    promise = header(OF_AN_IMAGE, 2 ** draw(st.integers(20, 62)))
    padding = bytes(draw(st.sampled_from([100, 5 * MIB])))
    before: list[Callable[[], bytes]] = [
        lambda: images.compress(promise, kind),
        lambda: bomb(kind),
        lambda: crowd(kind),
    ]
    after: list[Callable[[], bytes]] = [lambda: b"garbage", lambda: padding, lambda: bomb(kind), lambda: bomb(other)]
    found: Callable[[], bytes] = draw(st.sampled_from([
        lambda: whole,
        lambda: whole[:position],
        lambda: whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :],
        lambda: whole + whole,
        lambda: images.compress(whole, other),
        lambda: images.compress(content + padding, kind),
        lambda: draw(st.sampled_from(before))() + whole,
        lambda: whole + draw(st.sampled_from(after))(),
    ]))  # fmt: skip
    return found()


@st.composite
def packed(draw: st.DrawFn) -> tuple[str, dict[str, bytes], int]:
    """Compressed archives."""
    _, objects, things = draw((layouts() | saves() | archives()).filter(lambda hostile: "app/1.0.tar" in hostile[1]))
    content = compressed(draw, objects["app/1.0.tar"], draw(COMPRESSIONS))
    key = draw(st.sampled_from(["app/1.0.tar", "app/1.0.tgz", "app/1.0"]))
    return key, {key: content}, things


@st.composite
def charts(draw: st.DrawFn) -> tuple[str, dict[str, bytes], int]:
    """Charts whose files are called as they like, and whose YAML refers to itself. There may be a provenance."""
    text = (TEXT | st.sampled_from(["web", "1.0.0", "x" * 50_000])).map(json.dumps)
    fields = st.sampled_from(["name", "version", "description", "type", "annotations", "dependencies", "keywords", "x"])
    value: st.SearchStrategy[str] = st.recursive(
        text.map("&a {}".format)
        | st.sampled_from(["*a", "&b [*a, *a]", "*b", "1.10", "~", "2" * 400, "!!set {}", "["]),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found * 300)}]")
            | st.dictionaries(text, inner, max_size=3).map(
                lambda found: f"{{{', '.join(map(': '.join, found.items()))}}}"
            )
            | inner.map("{{<<: {}}}".format)
        ),
        max_leaves=4,
    )
    lines = draw(st.lists(st.tuples(fields, value).map(": ".join), max_size=6))
    chart_yaml = "\n".join([*draw(st.sampled_from([["name: web", "version: 1.0.0"], []])), *lines]).encode()
    files = draw(st.lists(st.tuples(NAMES, st.binary(max_size=100)), max_size=3))
    files.insert(
        draw(st.integers(0, len(files))), (draw(st.sampled_from(["web/Chart.yaml", "Chart.yaml"])), chart_yaml)
    )
    archive = b"".join(member(name, file) for name, file in files)
    objects = {"app/web.tgz": compressed(draw, archive + bytes(1024), "gzip")}
    if draw(st.booleans()):
        objects["app/web.tgz.prov"] = b"-----BEGIN PGP SIGNED MESSAGE-----" + draw(st.binary(max_size=100))
    return draw(st.sampled_from(sorted(objects))), objects, 4


@settings(max_examples=80, derandomize=True, suppress_health_check=list(HealthCheck))
@given(layouts() | saves() | archives() | packed() | charts(), st.floats(2.5, 200), st.booleans())
def test_any_object_gets_an_answer_in_time_within_bounds(
    hostile: tuple[str, dict[str, bytes], int], seconds: float, lasts: bool
) -> None:
    key, objects, things = hostile
    accounts = Accounts(objects, seconds_a_call=0.05)
    hourglass = Hourglass(FOREVER if lasts else seconds)

    with memory() as most:
        try:
            answer, reason = accounts.put(key, hourglass), ""
        except S3ToEcrError as error:
            answer, reason = str(error), error.reason
        taken = most()

    assert "this is a bug" not in reason
    assert len(reason) <= 1024
    json.dumps(answer, ensure_ascii=False).encode()  # as Lambda's runtime does
    assert hourglass.seconds >= 0
    # A blob takes eight calls, a tag or a manifest fewer; what waits for a missing object is tried twice.
    assert accounts.calls.total() <= 20 + 2 * 8 * things, accounts.calls
    assert taken <= 8 * MIB + 40 * sum(map(len, objects.values()))
