"""What tools write besides plain layouts and archives: parts of images, skopeo's directories, registries' own files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from local import images
from local.images import Built, Files
from local.layers import layer
from s3_to_ecr.errors import BlobsMissing, BrokenArchive, BrokenManifest, EmptyBlob, UnsupportedManifest
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.layouts import AMD64, ARM64, MULTI_ARCH, assert_pullable, assert_there, invoke, put, put_all
from tests.doubles.s3 import S3Double

pytestmark = pytest.mark.usefixtures("no_backoff")

LAYOUT = images.oci_layout({"1.0": AMD64})
RISCV = images.image([layer("srv/riscv", b"riscv")], architecture="riscv64")


def attested(*platforms: Built) -> tuple[Built, list[Built]]:
    """An index of these images and BuildKit's attestations of them; and the attestations."""
    attestations = [images.image([layer("x", built.manifest)], architecture="unknown") for built in platforms]
    entries = [built.descriptor for built in platforms]
    entries += [
        attestation.descriptor
        | {
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }
        for attestation in attestations
    ]
    manifest = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}
    return Built(json.dumps(manifest).encode(), images.OCI_INDEX, children=(*platforms, *attestations)), attestations


def without(files: Files, *gone: Built, manifests: bool = True) -> Files:
    """The layout without these images, or only without their blobs."""
    digests = {digest for built in gone for digest in [*built.all_blobs, *(built.manifests if manifests else [])]}
    return {path: content for path, content in files.items() if path not in map(images.blob_path, digests)}


INDEX, ATTESTATIONS = attested(AMD64, RISCV)
SAVED: dict[str, Callable[[], Files]] = {
    "docker save": lambda: without(images.oci_layout({"1.0": INDEX}), RISCV, *ATTESTATIONS),
    "with its attestation": lambda: without(images.oci_layout({"1.0": INDEX}), RISCV, ATTESTATIONS[1]),
    "with the other manifests": lambda: without(images.oci_layout({"1.0": INDEX}), RISCV, manifests=False),
    "of one platform": lambda: without(images.oci_layout({"1.0": attested(AMD64)[0]}), *attested(AMD64)[1]),
}


@pytest.mark.parametrize("name", SAVED)
def test_of_an_index_with_one_platform_in_the_archive_that_platform_is_pushed(
    name: str,
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    event = put(s3_double, "app/any.tar", images.tar(SAVED[name]()))

    for action in ("pushed", "skipped"):
        [result] = invoke(handler, [event])
        assert (result["action"], result["digest"]) == (action, AMD64.digest)
        assert "the archive holds only linux/amd64" in result["reason"]
    assert_pullable(strict_ecr, "1.0", AMD64)
    assert list(strict_ecr.repositories["app"].images) == [AMD64.digest]
    [line, _] = [line for line in logs() if line["message"] == "Only a part of the image is in the archive"]
    assert "linux/amd64" in line["reason"]
    assert line["digest"] == AMD64.digest


def test_an_index_that_names_its_children_again_and_again_is_looked_through_once(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    nested = AMD64
    for _ in range(8):
        entries = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [nested.descriptor] * 20}
        nested = Built(json.dumps(entries).encode(), images.OCI_INDEX, children=(nested,))

    invoke(handler, [put(s3_double, "app/any.tar", images.tar(images.oci_layout({"1.0": nested})))])

    assert_pullable(strict_ecr, "1.0", nested)


def test_a_complete_index_is_pushed_whole(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    [result] = invoke(handler, [put(s3_double, "app/any.tar", images.tar(images.oci_layout({"1.0": INDEX})))])

    assert_pullable(strict_ecr, "1.0", INDEX)
    assert result["reason"] is None


def test_of_an_index_with_several_platforms_in_the_archive_the_rest_may_be_in_ecr(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    index = images.index(AMD64, ARM64, RISCV)
    event = put(s3_double, "app/any.tar", images.tar(without(images.oci_layout({"1.0": index}), RISCV)))

    with pytest.raises(BrokenArchive, match=r"docker save --platform.*skopeo copy --all"):
        invoke(handler, [event])
    invoke(handler, [put(s3_double, "app/riscv.tar", images.docker_save_25([], RISCV))])

    assert invoke(handler, [event])[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "1.0", index)


def test_an_incomplete_image_does_not_stop_the_others_of_its_archive(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = {"1.0": images.index(AMD64, ARM64, RISCV), "2.0": AMD64, "3.0": ARM64}

    with pytest.raises(BrokenArchive, match=RISCV.digest):
        invoke(handler, [put(s3_double, "app/any.tar", images.tar(without(images.oci_layout(built), RISCV)))])

    assert strict_ecr.repositories["app"].tags == {"2.0": AMD64.digest, "3.0": ARM64.digest}


def saved_by_ids(named: Files, *built: Built) -> Files:
    """What Docker 25 to 28 save of images given by their IDs: `manifest.json` describes more than the index names."""
    description = [
        {"Config": images.blob_path(config), "RepoTags": None, "Layers": [images.blob_path(layer) for layer in layers]}
        for config, *layers in (image.blobs for image in built)
    ]
    files = images.oci_layout({str(number): image for number, image in enumerate(built)})
    return files | {"manifest.json": json.dumps(description).encode()} | named


def test_images_that_docker_leaves_out_of_its_index_are_pushed(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    index = {"index.json": images.oci_layout({"1.0": AMD64})["index.json"]}

    [result] = invoke(handler, [put(s3_double, "app/any.tar", images.tar(saved_by_ids(index, AMD64, RISCV)))])

    assert [image["digest"] for image in result["images"]] == [AMD64.digest, RISCV.digest]
    assert_pullable(strict_ecr, "1.0", AMD64)
    assert_there(strict_ecr, RISCV)
    assert list(strict_ecr.repositories["app"].tags) == ["1.0"]


@pytest.mark.parametrize(
    "description",
    [
        b"not JSON",
        b'[{"Config": "gone.json", "RepoTags": null, "Layers": []}]',
        b'[{"Config": 1, "Layers": null}]',
        json.dumps(
            [{"Config": path, "Layers": []} for path, content in LAYOUT.items() if b"rootfs" in content]
        ).encode(),
    ],
    ids=["not JSON", "no config", "no path", "no layers"],
)
def test_of_a_layout_with_a_wrong_manifest_json_the_images_of_its_index_are_pushed(
    description: bytes, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    [result] = invoke(handler, [put(s3_double, "app/any.tar", images.tar(LAYOUT | {"manifest.json": description}))])

    assert [image["digest"] for image in result["images"]] == [AMD64.digest]
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_no_part_of_an_archive_is_read_twice(handler: Function, s3_double: S3Double) -> None:
    archive = images.tar(images.oci_layout({"1.0": MULTI_ARCH}))

    invoke(handler, [put(s3_double, "app/any.tar", archive)])

    ranges = [read.range for read in s3_double.reads if read.method == "GET"]
    assert len(ranges) == len(set(ranges))


# More components than an ordinary layer may have folders.
ZARF = {f"components/{number:02}.tar": b"x" for number in range(30)}


@pytest.mark.parametrize(
    "files",
    [
        {f"layout/{path}": content for path, content in LAYOUT.items()},
        {f"./layout/{path}": content for path, content in LAYOUT.items()},
        {f"layout/{path}": content for path, content in images.oci_layout({"1.0": AMD64, "2": INDEX}).items()},
        {"checksums.txt": b"x", **ZARF}
        | {f"images/{path}": content for path, content in LAYOUT.items()}
        | {"sboms.tar": b"x", "zarf.yaml": b"kind: ZarfPackageConfig"},
    ],
    ids=["a folder", "a folder and a dot", "many members", "Zarf"],
)
def test_the_layout_of_an_archive_may_be_in_a_folder(
    files: Files, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    invoke(handler, [put(s3_double, "app/any.tar", images.tar(files))])

    assert_pullable(strict_ecr, "1.0", AMD64)


@pytest.mark.parametrize(
    "files",
    [
        {f"srv/layout/{path}": content for path, content in LAYOUT.items()},
        {"etc/passwd": b"root"} | {f"images/{path}": content for path, content in LAYOUT.items()},
        {f"layout/{path}": content for path, content in LAYOUT.items() if path != "oci-layout"},
        {f"layout/{path}": content for path, content in LAYOUT.items() if path != "index.json"},
    ],
    ids=["deeper", "beside other folders", "no marker", "no index"],
)
def test_a_layer_that_holds_a_layout_among_its_files_is_a_layer(
    files: Files, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    content = images.tar(files)

    [result] = invoke(handler, [put(s3_double, "app/layer.tar", content)])

    assert (result["action"], result["digest"]) == ("uploaded", images.digest_of(content))
    assert not strict_ecr.repositories["app"].images


def test_a_layout_in_a_folder_may_not_link_out_of_the_archive(handler: Function, s3_double: S3Double) -> None:
    buffer = io.BytesIO(images.tar({f"layout/{path}": content for path, content in LAYOUT.items()}))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        member = tarfile.TarInfo("layout/x")
        member.type, member.linkname = tarfile.SYMTYPE, "../../x"
        archive.addfile(member)

    with pytest.raises(BrokenArchive, match="link out of it"):
        invoke(handler, [put(s3_double, "app/any.tar", buffer.getvalue())])


@pytest.mark.parametrize(
    ("folder", "tag"),
    [("app:1.0/", "1.0"), ("app/", None), (f"app@{AMD64.digest}/", None)],
    ids=["tag", "none", "digest"],
)
def test_skopeos_directory_is_pushed_under_the_tag_of_its_name(
    folder: str, tag: str | None, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.skopeo_dir(MULTI_ARCH) | {"signature-1": b"x", f"{'0' * 64}.signature-1": b"x"}

    results = invoke(handler, put_all(s3_double, files, folder))

    [pushed] = [result for result in results if result["action"] == "pushed"]
    assert (pushed["digest"], pushed["images"][0]["tags"]) == (MULTI_ARCH.digest, [tag] if tag else [])
    assert strict_ecr.repositories["app"].tags == ({tag: MULTI_ARCH.digest} if tag else {})
    assert strict_ecr.repositories["app"].layers == MULTI_ARCH.all_blobs
    assert {result["action"] for result in results} == {"pushed", "ignored", "skipped"}


def test_skopeos_scoped_sync_in_a_bundle_names_the_repository_by_its_folder(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("team/web")

    for path, content in images.skopeo_dir(AMD64).items():
        with suppress(BlobsMissing):
            invoke(handler, put_all(s3_double, {path: content}, "_/quay.io/team/web:1.0/"))

    assert_pullable(strict_ecr, "1.0", AMD64, "team/web")


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("app/manifest.json", b'{"name": "an app"}'),
        ("app/manifest.json", b"[]"),
        ("app/manifest.json", b"not JSON"),
        ("app/version", b"1.0\n"),
        ("app/version", b"Directory Transport Version: " + b"1" * 100),
    ],
)
def test_a_blob_that_is_only_called_like_a_file_of_skopeos_is_a_layer(
    key: str, content: bytes, handler: Function, s3_double: S3Double
) -> None:
    [result] = invoke(handler, [put(s3_double, key, content)])

    assert (result["action"], result["digest"]) == ("uploaded", images.digest_of(content))


def test_a_large_blob_called_manifest_json_is_a_layer(handler: Function, s3_double: S3Double) -> None:
    [result] = invoke(handler, [put(s3_double, "app/manifest.json", b" " * 4_194_305)])

    assert result["action"] == "uploaded"


@pytest.mark.parametrize(
    ("key", "content", "error"),
    [
        ("app:1.0/manifest.json", b"not JSON", BrokenManifest),
        ("app:1.0/manifest.json", b"", BrokenManifest),
        ("app/manifest.json", b'{"schemaVersion": 1, "fsLayers": []}', UnsupportedManifest),
    ],
)
def test_a_directory_whose_manifest_ecr_cannot_take_is_rejected(
    key: str, content: bytes, error: type[Exception], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    with pytest.raises(error):
        invoke(handler, [put(s3_double, key, content)])
    assert not strict_ecr.repositories["app"].layers


def test_a_deduplicated_blob_of_zot_is_called_what_it_is(handler: Function, s3_double: S3Double) -> None:
    digest = next(iter(AMD64.blobs))

    with pytest.raises(EmptyBlob, match=r"zot.*deduplicated.*\"dedupe\": false"):
        invoke(handler, [put(s3_double, f"app/{images.blob_path(digest)}", b"")])


def test_a_registry_that_its_bucket_does_not_describe_is_warned_of(
    handler: Function, s3_double: S3Double, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    [result] = invoke(handler, [put(s3_double, "docker/registry/lockfiles/database-in-use", b'{"version":1}')])

    assert result["action"] == "ignored"
    [line] = [line for line in logs() if line["level"] == "WARNING"]
    assert line["message"] == "This registry cannot be mirrored by its bucket"
    assert "GitLab" in line["reason"]
