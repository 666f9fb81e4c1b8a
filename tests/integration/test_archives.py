"""Images in archives, as the tools write them."""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest

from local import images
from local.images import Built, Files
from local.layers import gzipped_layer, layer
from s3_to_ecr.errors import DigestMismatch, EmptyBlob, OutOfTime, UnsupportedManifest
from s3_to_ecr.push import image_layers
from tests.conftest import SMALL_PART
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import Hourglass, let_parts_take
from tests.doubles.layouts import (
    AMD64,
    LAYERS,
    MULTI_ARCH,
    assert_pullable,
    invoke,
    put,
)
from tests.doubles.s3 import S3Double

pytestmark = pytest.mark.usefixtures("no_backoff")


A, B = "a" * 64, "b" * 64


GZIPPED = [gzipped_layer(100, seed) for seed in range(2)]


def config_of(layers: list[bytes]) -> bytes:
    return next(iter(images.image(layers).blobs.values()))


def described_archive(config: str, layers: Files) -> bytes:
    description = [{"Config": config, "RepoTags": ["app:1.0"], "Layers": list(layers)}]
    files = {config: config_of(list(layers.values())), **layers, "manifest.json": json.dumps(description).encode()}
    return images.tar(files)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    # crane and jib name compressed layers by their digests. crane also names the config by its digest.
    "crane": lambda: described_archive(
        images.digest_of(config_of(GZIPPED)),
        {f"{images.digest_of(blob).removeprefix('sha256:')}.tar.gz": blob for blob in GZIPPED},
    ),
    "jib": lambda: described_archive(
        "config.json", {f"{images.digest_of(blob).removeprefix('sha256:')}.tar.gz": blob for blob in GZIPPED}
    ),
    "compressed layers under any name": lambda: described_archive(
        "config.json", {f"layer-{number}.tar.gz": blob for number, blob in enumerate(GZIPPED)}
    ),
    "names that begin with a dot": lambda: described_archive(
        "./config.json", {f"./{number:064}/layer.tar": blob for number, blob in enumerate(GZIPPED)}
    ),
    "names longer than a header": lambda: described_archive(
        "config.json", {f"{'0' * 64}/{'long' * 40}-{number}.tar.gz": blob for number, blob in enumerate(GZIPPED)}
    ),
}


def test_docker_save_before_docker_25_becomes_an_image_with_its_config_and_layers(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put(s3_double, "app/any.tar", images.docker_save(["team/app:1.0", "app:latest"], AMD64))

    [result] = invoke(handler, [event])

    repository = strict_ecr.repositories["app"]
    assert repository.tags == {"1.0": result["digest"], "latest": result["digest"]}
    manifest = json.loads(repository.images[result["digest"]].manifest)
    config, *layers = AMD64.blobs
    assert manifest["config"]["digest"] == config
    assert [entry["digest"] for entry in manifest["layers"]] == layers
    assert {entry["mediaType"] for entry in manifest["layers"]} == {images.OCI_LAYER}
    assert repository.layers == AMD64.blobs
    assert [entry["size"] for entry in manifest["layers"]] == [len(AMD64.blobs[digest]) for digest in layers]
    assert invoke(handler, [event])[0]["action"] == "skipped"


def test_docker_save_since_docker_25_keeps_its_manifest(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put(s3_double, "app/any.tar", images.docker_save_25(["app:1.0", "app:latest"], AMD64))

    [result] = invoke(handler, [event])

    assert result["images"] == [{"repository": "app", "digest": AMD64.digest, "tags": ["1.0", "latest"]}]
    assert_pullable(strict_ecr, "1.0", AMD64)
    assert_pullable(strict_ecr, "latest", AMD64)


@pytest.mark.parametrize("save", [images.docker_save, images.docker_save_25])
def test_an_archive_without_a_tag_is_tagged_by_its_name(
    save: Callable[..., bytes], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    [result] = invoke(handler, [put(s3_double, "app/v2.tar", save([], AMD64))])

    assert strict_ecr.repositories["app"].tags == {"v2": result["digest"]}


def test_an_image_without_layers_is_rejected_and_stops_no_other(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """Docker's `FROM scratch` with nothing but a label, which ECR does not accept."""
    empty = b'{"config": {}, "rootfs": {"type": "layers", "diff_ids": null}}'
    config = config_of(LAYERS[:1])
    description = [
        {"Config": "empty.json", "RepoTags": ["app:empty"], "Layers": None},
        {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["any folder/layer.tar"]},
    ]
    files = {"empty.json": empty, "config.json": config, "any folder/layer.tar": LAYERS[0]}
    archive = images.tar(files | {"manifest.json": json.dumps(description).encode()})

    with pytest.raises(UnsupportedManifest, match="it has no layers, and ECR requires one"):
        invoke(handler, [put(s3_double, "app/x.tar", archive)])

    assert sorted(strict_ecr.repositories["app"].tags) == ["1"]


def test_an_archive_may_begin_with_other_files_in_folders(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = {"notes/readme": b"x", "a/b/c": b"y"} | images.oci_layout({"1.0": AMD64})

    invoke(handler, [put(s3_double, "app/x.tar", images.tar(files))])

    assert_pullable(strict_ecr, "1.0", AMD64)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_of_other_tools_keep_their_compressed_layers(
    kind: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    [result] = invoke(handler, [put(s3_double, "app/any.tar", ARCHIVES[kind]())])

    repository = strict_ecr.repositories["app"]
    assert repository.tags == {"1.0": result["digest"]}
    manifest = json.loads(repository.images[result["digest"]].manifest)
    assert [entry["digest"] for entry in manifest["layers"]] == [images.digest_of(blob) for blob in GZIPPED]
    assert {entry["mediaType"] for entry in manifest["layers"]} == {f"{images.OCI_LAYER}+gzip"}


def test_a_layer_that_is_a_link_to_another_is_followed(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    config, first, *_ = images.image([LAYERS[0], LAYERS[0]]).blobs.values()
    description = [{"Config": "c.json", "RepoTags": None, "Layers": [f"{A}/layer.tar", f"{B}/layer.tar"]}]
    files = {"c.json": config, f"{A}/layer.tar": first, "manifest.json": json.dumps(description).encode()}

    [result] = invoke(
        handler, [put(s3_double, "app/1.tar", images.tar(files, {f"{B}/layer.tar": f"../{A}/layer.tar"}))]
    )

    manifest = json.loads(strict_ecr.repositories["app"].images[result["digest"]].manifest)
    assert [entry["digest"] for entry in manifest["layers"]] == [images.digest_of(LAYERS[0])] * 2


Form = Literal[0, 1, 2]


def member(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    form: Literal[0, 1, 2] = tarfile.PAX_FORMAT,
) -> bytes:
    """A member as an archive stores it: headers, content and padding."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, link, len(content)
    return header.tobuf(form) + content + bytes(-len(content) % 512)


def description(*layers: str, tag: str = "1") -> bytes:
    return json.dumps([{"Config": "c.json", "RepoTags": [f"app:{tag}"], "Layers": layers}]).encode()


LONG = f"{A}/{'x' * 120}.tar"


@pytest.mark.parametrize(
    ("kind", "first", "target", "form"),
    [
        (tarfile.SYMTYPE, f"{A}/layer.tar", f"../{A}/layer.tar", tarfile.PAX_FORMAT),
        (tarfile.LNKTYPE, f"{A}/layer.tar", f"{A}/layer.tar", tarfile.USTAR_FORMAT),
        (tarfile.SYMTYPE, LONG, f"../{LONG}", tarfile.PAX_FORMAT),
        (tarfile.SYMTYPE, LONG, f"../{LONG}", tarfile.GNU_FORMAT),
    ],
    ids=["symbolic", "hard", "long, PAX", "long, GNU"],
)
def test_links_of_every_kind_are_followed_to_compressed_layers(
    kind: bytes,
    first: str,
    target: str,
    form: Literal[0, 1, 2],
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
) -> None:
    parts = [
        member("c.json", config_of([GZIPPED[0]] * 2)),
        member(first, GZIPPED[0], form=form),
        member(f"{B}/layer.tar", kind=kind, link=target, form=form),
        member("manifest.json", description(first, f"{B}/layer.tar")),
    ]

    [result] = invoke(handler, [put(s3_double, "app/1.tar", b"".join(parts) + bytes(1024))])

    layers = json.loads(strict_ecr.repositories["app"].images[result["digest"]].manifest)["layers"]
    assert [entry["digest"] for entry in layers] == [images.digest_of(GZIPPED[0])] * 2
    assert {entry["mediaType"] for entry in layers} == {f"{images.OCI_LAYER}+gzip"}


def test_a_size_too_large_for_its_field_is_read_from_the_pax_header(handler: Function, s3_double: S3Double) -> None:
    """Layers over 8 GiB have such sizes. The data of a member of unknown type is skipped, too."""
    size = f"size={len(LAYERS[0])}\n"
    record = f"{len(size) + 3} {size}".encode()
    parts = [
        member("c.json", config_of(LAYERS[:1])),
        member("anything", b"data", kind=b"Z"),
        member("pax", record, kind=tarfile.XHDTYPE),
        member("l.tar"),
        LAYERS[0] + bytes(-len(LAYERS[0]) % 512),
        member("manifest.json", description("l.tar")),
    ]

    assert len(record) == int(record[:2])
    assert invoke(handler, [put(s3_double, "app/1.tar", b"".join(parts) + bytes(1024))])[0]["action"] == "pushed"


def test_the_last_of_two_members_with_one_name_wins(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    members = [member(path, content) for path, content in images.oci_layout({"1": AMD64}).items()]

    invoke(handler, [put(s3_double, "app/x.tar", member("index.json", b"{}") + b"".join(members) + bytes(1024))])

    assert_pullable(strict_ecr, "1", AMD64)


def test_an_image_that_is_listed_twice_gets_both_tags(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    listed = [json.loads(description("l.tar", tag=tag))[0] for tag in ("1", "2")]
    files = {"c.json": config_of(LAYERS[:1]), "l.tar": LAYERS[0], "manifest.json": json.dumps(listed).encode()}

    invoke(handler, [put(s3_double, "app/x.tar", images.tar(files))])

    assert sorted(strict_ecr.repositories["app"].tags) == ["1", "2"]


def test_the_name_of_a_zstd_layer_gives_its_digest(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    blob = b"\x28\xb5\x2f\xfd whatever"
    digest = images.digest_of(blob)
    archive = described_archive("c.json", {f"{digest.partition(':')[2]}.tar.zst": blob})

    [result] = invoke(handler, [put(s3_double, "app/x.tar", archive)])

    [entry] = json.loads(strict_ecr.repositories["app"].images[result["digest"]].manifest)["layers"]
    assert (entry["digest"], entry["mediaType"]) == (digest, f"{images.OCI_LAYER}+zstd")


def test_the_subject_of_an_artifact_in_an_archive_is_pushed_too(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    sbom = images.image([b"{}"], artifactType="application/spdx+json", subject=AMD64.descriptor)
    files = images.oci_layout({"sbom": sbom, "x": AMD64}) | {
        "index.json": images.oci_layout({"sbom": sbom})["index.json"]
    }

    invoke(handler, [put(s3_double, "app/x.tar", images.tar(files))])

    assert AMD64.digest in strict_ecr.repositories["app"].images


def test_an_image_archive_may_have_its_layers_in_many_folders(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    layers = [layer(f"srv/{number}", b"x") for number in range(25)]
    files = {f"{number}/layer.tar": content for number, content in enumerate(layers)}
    archive = images.tar(files | {"c.json": config_of(layers), "manifest.json": description(*files)})

    invoke(handler, [put(s3_double, "app/x.tar", archive)])

    assert list(strict_ecr.repositories["app"].tags) == ["1"]


def test_hashing_a_compressed_layer_stops_in_time(
    handler: Function, s3_double: S3Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = put(s3_double, "app/x.tar", described_archive("c.json", {"0.tar.gz": GZIPPED[0]}))
    invocation = Hourglass(60)

    def sha256() -> Any:
        invocation.pass_by(59)
        return hashlib.sha256()

    monkeypatch.setattr("s3_to_ecr.blobs.sha256", sha256)
    with pytest.raises(OutOfTime, match="digests of the archive"):
        handler.lambda_handler(event, invocation)


@pytest.mark.parametrize("key", ["app/1.tar", "app/1.tgz"])
def test_an_empty_archive_is_an_empty_blob(key: str, handler: Function, s3_double: S3Double) -> None:
    with pytest.raises(EmptyBlob):
        invoke(handler, [put(s3_double, key, b"")])


@pytest.mark.parametrize(
    ("key", "reads"), [("app/1.tar", 2), ("app/1.tgz", 1), ("app/1.tar.zst", 1), ("app/1.oci", 1), ("app/layer", 1)]
)
@pytest.mark.parametrize("content", [GZIPPED[0], LAYERS[0]], ids=["gzip", "plain"])
def test_a_layer_is_recognised_by_bytes_that_are_read_anyway_unless_it_is_called_an_archive(
    key: str, reads: int, content: bytes, handler: Function, s3_double: S3Double
) -> None:
    event = put(s3_double, key, content)

    assert invoke(handler, [event])[0]["action"] == "uploaded"
    assert len(s3_double.reads) == reads
    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert len(s3_double.reads) == 2 * reads - 1


NAMES = ["1.0", "1.0.oci", "1.0.image", "1.0.TAR", "1.0.tar.gz", "1.0.tgz", "1.0.Tar.Zst", "1.0.tzst", "1.0.tar.xz"]
COMPRESSIONS = ["plain", "gzip", "zstd", "xz", "bzip2"]


def compressed(archive: bytes, compression: str) -> bytes:
    return archive if compression == "plain" else images.compress(archive, compression)


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_an_archive_is_known_by_its_content_whatever_its_name_and_compression(
    number: int, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    archive = compressed(images.tar(images.oci_layout({"": MULTI_ARCH})), COMPRESSIONS[number % len(COMPRESSIONS)])
    event = put(s3_double, f"app/{NAMES[number]}", archive)

    [result] = invoke(handler, [event])

    assert (result["action"], result["size"]) == ("pushed", len(archive))
    assert_pullable(strict_ecr, "1.0", MULTI_ARCH)
    assert invoke(handler, [event])[0]["action"] == "skipped"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("save", [images.docker_save, images.docker_save_25])
def test_a_saved_image_is_pushed_whatever_its_compression(
    save: Callable[..., bytes], compression: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    archive = compressed(save(["team/app:1.0"], AMD64), compression)

    [result] = invoke(handler, [put(s3_double, "app/any", archive)])

    repository = strict_ecr.repositories["app"]
    assert repository.tags == {"1.0": result["digest"]}
    assert repository.layers == AMD64.blobs
    assert strict_ecr.bytes_received == sum(map(len, AMD64.blobs.values()))


def many_images() -> tuple[dict[str, Built], bytes]:
    """Images whose layers alternate in an archive, as the digests that sort them fall. One layer is in all of them."""
    chance = random.Random(8)  # noqa: S311 (not a secret)
    shared = layer("srv/shared", chance.randbytes(3 * SMALL_PART))
    built = {
        f"v{number}": images.image([shared, *(layer(f"srv/{n}", chance.randbytes(2 * SMALL_PART)) for n in range(2))])
        for number in range(4)
    }
    files = images.oci_layout(built)
    return built, images.tar(dict(sorted(files.items(), reverse=True)))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_layers_of_many_images_are_read_in_one_pass(
    compression: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built, archive = many_images()

    invoke(handler, [put(s3_double, "app/any.tar", images.compress(archive, compression))])

    for tag, image in built.items():
        assert_pullable(strict_ecr, tag, image)
    blobs = {digest: blob for image in built.values() for digest, blob in image.all_blobs.items()}
    assert strict_ecr.bytes_received == sum(map(len, blobs.values()))
    if compression == "zstd":
        # The beginning, then one pass for what is in it, and one for the layers.
        assert len([read for read in s3_double.reads if read.range and read.range[0] == 0]) <= 4


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_layer_that_ecr_shows_late_is_not_sent_again(
    compression: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, gremlin: Gremlin
) -> None:
    layers = strict_ecr.repositories["app"].layers
    hidden: dict[str, bytes | None] = {}

    def hide() -> None:
        if len(layers) == len(AMD64.blobs):
            hidden.update(layers)
            layers.clear()

    gremlin.meddle("ecr:BatchCheckLayerAvailability", hide, times=10)
    gremlin.meddle("ecr:PutImage", lambda: layers.update(hidden))

    invoke(
        handler, [put(s3_double, "app/1.0.tar", compressed(images.tar(images.oci_layout({"": AMD64})), compression))]
    )

    assert_pullable(strict_ecr, "1.0", AMD64)
    assert len(strict_ecr.calls_of("InitiateLayerUpload")) == len(AMD64.blobs)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_archive_arrives_in_short_invocations_and_each_byte_is_sent_once(
    compression: str,
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, archive = many_images()
    event = put(s3_double, "app/any.image", images.compress(archive, compression))
    invocations = 0
    while True:
        invocations += 1
        invocation = Hourglass(30)
        with monkeypatch.context() as patch:
            let_parts_take(patch, invocation, 6)
            with suppress(OutOfTime):
                handler.lambda_handler(event, invocation)
                break

    assert invocations > 3
    for tag, image in built.items():
        assert_pullable(strict_ecr, tag, image)
    blobs = {digest: blob for image in built.values() for digest, blob in image.all_blobs.items()}
    assert strict_ecr.bytes_received == sum(map(len, blobs.values()))


@pytest.mark.usefixtures("small_parts")
def test_a_bad_layer_of_a_stream_stops_only_its_own_image(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    good = images.image([layer("srv/good", b"good")])
    files = images.oci_layout({"bad": AMD64, "good": good})
    files[images.blob_path(next(iter(AMD64.blobs)))] = b"other"

    with pytest.raises(DigestMismatch, match="layer sha256"):
        invoke(handler, [put(s3_double, "app/any.tar", images.compress(images.tar(files), "zstd"))])
    assert strict_ecr.repositories["app"].tags == {"good": good.digest}


def test_a_stream_that_cannot_be_read_on_in_time_is_resumed(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = put(s3_double, "app/1.0", images.compress(images.tar(images.oci_layout({"": AMD64})), "zstd"))
    invocation = Hourglass(60)
    go_to = image_layers._go_to

    def late(blob: Any) -> Any:
        invocation.pass_by(59)
        return go_to(blob)

    monkeypatch.setattr(image_layers, "_go_to", late)
    with pytest.raises(OutOfTime):
        handler.lambda_handler(event, invocation)
    monkeypatch.undo()
    invoke(handler, [event])
    assert_pullable(strict_ecr, "1.0", AMD64)
