"""Broken images are rejected with a reason and set no tag. Layers that only look like images are uploaded."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from local import images
from local.images import Built, Files
from local.invocation import Invocation
from local.layers import gzipped_layer, layer
from s3_to_ecr import errors
from s3_to_ecr.errors import S3ToEcrError
from tests.doubles.ecr import REFUSED_ARTIFACT, EcrDouble, Image
from tests.doubles.function import Function
from tests.doubles.layouts import AMD64, ARM64, MULTI_ARCH, invoke, put, put_all
from tests.doubles.s3 import S3Double
from tests.doubles.tar import header

pytestmark = pytest.mark.usefixtures("no_backoff")

ZEROS = "sha256:" + "0" * 64


def with_document(content: bytes) -> Files:
    """A static registry whose manifest has this content."""
    return {"manifests/1.0": content}


def layout_with(built: Built, blob: str, content: bytes | None) -> Files:
    """An OCI layout in which one blob has other content, or is missing."""
    files = images.oci_layout({"1.0": built})
    path = images.blob_path(blob)
    assert path in files
    del files[path]
    return files if content is None else files | {path: content}


def document(**members: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, **members}).encode()


def looping() -> Files:
    """An index that names itself, so it cannot have the right digest."""
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": ZEROS}]}).encode()
    return {"index.json": index, images.blob_path(ZEROS): index}


def deep(levels: int) -> Built:
    built = AMD64
    for _ in range(levels):
        built = images.index(built)
    return built


def archive(files: Files | None = None, links: dict[str, str] | None = None) -> Files:
    """An OCI archive with additional files and links."""
    return {"1.0.tar": images.tar(images.oci_layout({"1.0": AMD64}) | (files or {}), links)}


def saved(**changes: Any) -> Files:
    """An archive of the old `docker save`, with changes to its manifest.json."""
    config, *layers = AMD64.blobs.values()
    files = {"config.json": config, **{f"{number}.tar": content for number, content in enumerate(layers)}}
    description = {"Config": "config.json", "RepoTags": ["app:1.0"], "Layers": ["0.tar", "1.tar", "2.tar"]} | changes
    links = {"link.tar": "/etc/passwd"} if "link.tar" in description["Layers"] else {}
    links |= {"circle.tar": "circle.tar"} if "circle.tar" in description["Layers"] else {}
    return {"1.0.tar": images.tar(files | {"manifest.json": json.dumps([description]).encode()}, links)}


def with_device() -> bytes:
    """An archive of a device and two empty files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type = tarfile.CHRTYPE
        tar.addfile(member)
        tar.addfile(tarfile.TarInfo("index.json"))
        tar.addfile(tarfile.TarInfo("oci-layout"))
    return buffer.getvalue()


def member(kind: bytes, size: int, data: bytes = b"", name: str = "index.json") -> bytes:
    """A member's header with this type and size, then its data in blocks."""
    blocks = -(-max(size, 0) // 512) * 512
    return header(name, size, kind) + data.ljust(blocks, b"\0")


def layers(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"digest": f"sha256:{number:064}"} for number in range(first, first + count)]


def many_blobs(children: int) -> Files:
    """An index of images with 500 layers each."""
    built = [Built(document(layers=layers(500, 500 * number))) for number in range(children)]
    return {
        **with_document(images.index(*built).manifest),
        **{f"manifests/{child.digest}": child.manifest for child in built},
    }


TAR = archive()["1.0.tar"]
CONFIG = next(iter(AMD64.blobs))
CHILD = MULTI_ARCH.children[0]
THREE_PLATFORMS = images.index(*MULTI_ARCH.children, images.image([layer("srv/riscv", b"x")], architecture="riscv64"))

# The large ones are made when they are needed: every process of the tests imports this module.
BAD: dict[str, tuple[Files | Callable[[], Files], type[S3ToEcrError], str]] = {
    "manifest that is not JSON": (with_document(b"<html>"), errors.BrokenManifest, "is not JSON"),
    "manifest that is not text": (with_document(b"\xff\xfe{}"), errors.BrokenManifest, "is not JSON"),
    "manifest that is JSON nested too deep": (with_document(b"[" * 40_000), errors.BrokenManifest, "is not JSON"),
    "manifest that is a list": (with_document(b"[]"), errors.BrokenManifest, "not a JSON object"),
    "manifest that is empty": (with_document(b""), errors.BrokenManifest, "is not JSON"),
    "manifest that is something else": (with_document(b'{"a": 1}'), errors.BrokenManifest, "neither"),
    "manifest over 4 MiB": (lambda: with_document(b" " * 4_194_305), errors.BrokenManifest, "4,194,304"),
    "manifest with layers that are text": (with_document(document(layers="x")), errors.BrokenManifest, "not a list"),
    "manifest with a layer without a digest": (with_document(document(layers=[{}])), errors.BrokenManifest, "without"),
    "manifest with a path as a layer's digest": (
        with_document(document(layers=[{"digest": "sha256:../../../secret"}])), errors.BrokenManifest, "not a digest"),
    "manifest with a sha512 digest": (
        with_document(document(layers=[{"digest": "sha512:" + "0" * 128}])), errors.UnsupportedManifest, "sha256"),
    "Docker schema 1 without schemaVersion": (
        with_document(b'{"fsLayers": [], "layers": []}'), errors.UnsupportedManifest, "skopeo copy"),
    "media type that is a list": (
        with_document(document(mediaType=["x"], layers=[])), errors.BrokenManifest, "media type that is not a text"),
    "Docker schema 1": (
        with_document(b'{"schemaVersion": 1, "fsLayers": []}'), errors.UnsupportedManifest, "skopeo copy"),
    "signed Docker schema 1": (
        with_document(b'{"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"}'),
        errors.UnsupportedManifest, "skopeo copy"),
    "media type with parameters": (
        with_document(document(
            mediaType="application/vnd.oci.image.manifest.v1+json; charset=utf-8", layers=[{"digest": ZEROS}])),
        errors.UnsupportedManifest, "semicolon"),
    "manifest without layers": (with_document(document(layers=[])), errors.UnsupportedManifest, "requires one"),
    "docker save without layers": (
        {"1.0.tar": images.docker_save([], images.image([]))}, errors.UnsupportedManifest, "requires one"),
    "manifest under the wrong digest": (
        {f"manifests/{ZEROS}": AMD64.manifest}, errors.BrokenManifest, f"{ZEROS} has the digest {AMD64.digest}"),
    "child under the wrong digest": (
        layout_with(MULTI_ARCH, CHILD.digest, AMD64.manifest + b" "), errors.BrokenManifest, CHILD.digest),
    "layer under the wrong digest": (
        layout_with(AMD64, CONFIG, b"other"), errors.DigestMismatch, f"layer {CONFIG}"),
    "empty layer": (layout_with(AMD64, CONFIG, b""), errors.EmptyBlob, f"layer {CONFIG}"),
    "index that loops": (looping(), errors.BrokenManifest, "has the digest"),
    "index nested too deep": (images.oci_layout({"1.0": deep(17)}), errors.UnsupportedManifest, "16 levels"),
    "index.json without manifests": ({"index.json": b'{"hello": "world"}'}, errors.BrokenManifest, "OCI image layout"),
    "tag that ECR refuses": (images.oci_layout({"not a tag": AMD64}), errors.InvalidTag, "'not a tag'"),
    "tag that is too long": (images.oci_layout({"a" * 129: AMD64}), errors.InvalidTag, "128"),
    "tag that begins with a dot": ({"manifests/.1": AMD64.manifest}, errors.InvalidTag, "'.1'"),
    "file whose name is not a tag": ({"manifests/a b": AMD64.manifest}, errors.InvalidTag, "Rename"),
    "archive whose name is not a tag": ({"a b.tar": images.docker_save([], AMD64)}, errors.InvalidTag, "Rename"),

    "not a tar": ({"1.0.tar": b"hello" * 1000}, errors.BrokenArchive, "not a tar archive"),
    "tar that is too short": ({"1.0.tar": b"hello"}, errors.BrokenArchive, "not a tar archive"),
    "tar that is cut off in a header": (
        {"1.0.tar": TAR[: TAR.index(b"oci-layout") + 100]}, errors.BrokenArchive, "truncated"),
    "tar that is cut off in a member": (
        {"1.0.tar": TAR[: len(TAR) // 2 // 512 * 512]}, errors.BrokenArchive, "truncated"),
    "tar that is cut off at its end": ({"1.0.tar": TAR.rstrip(b"\0")}, errors.BrokenArchive, "truncated"),
    "tar that is damaged": (
        {"1.0.tar": TAR.replace(b"oci-layout\0", b"oci-layouX\0")}, errors.BrokenArchive, "damaged"),
    "tar with a member outside the archive": (archive({"../evil": b"x"}), errors.BrokenArchive, "'../evil'"),
    "tar that begins with a member outside the archive": (
        {"1.0.tar": images.tar({"../evil": b"x"} | images.oci_layout({"1.0": AMD64}))}, errors.BrokenArchive, "evil"),
    "tar with an absolute member name": (archive({"/etc/passwd": b"x"}), errors.BrokenArchive, "'/etc'"),
    "tar with a link out of it": (archive(links={"blobs/sha256/x": "../../../x"}), errors.BrokenArchive, "link out"),
    "tar with an absolute link": (archive(links={"x": "/etc/passwd"}), errors.BrokenArchive, "link out"),
    "OCI archive that lacks a layer": (
        {"1.0.tar": images.tar(layout_with(AMD64, CONFIG, None))}, errors.BrokenArchive, CONFIG),
    "OCI archive that has some platforms, but not all": (
        {"1.0.tar": images.tar(layout_with(THREE_PLATFORMS, CHILD.digest, None))}, errors.BrokenArchive, CHILD.digest),
    "OCI archive with a child under the wrong digest": (
        {"1.0.tar": images.tar(layout_with(MULTI_ARCH, CHILD.digest, AMD64.manifest + b" "))},
        errors.BrokenManifest, CHILD.digest),
    "OCI archive whose index is nested too deep": (
        {"1.0.tar": images.tar(images.oci_layout({"1.0": deep(17)}))}, errors.UnsupportedManifest, "16 levels"),
    "OCI archive that has no platform": (
        {"1.0.tar": images.tar(layout_with(images.index(AMD64), CONFIG, None))}, errors.BrokenArchive, CONFIG),
    "docker save with a layer outside the archive": (
        saved(Layers=["0.tar", "1.tar", "../../2.tar"]), errors.BrokenArchive, "outside itself"),
    "docker save with a layer that links out of the archive": (
        saved(Layers=["0.tar", "1.tar", "link.tar"]), errors.BrokenArchive, "link out"),
    "docker save with a layer that links to itself": (
        saved(Layers=["0.tar", "1.tar", "circle.tar"]), errors.BrokenArchive, "form a circle"),
    "docker save that lacks a layer": (saved(Layers=["0.tar", "1.tar", "x.tar"]), errors.BrokenArchive, "'x.tar'"),
    "docker save that lacks its config": (saved(Config="x.json"), errors.BrokenArchive, "'x.json'"),
    "docker save with too few layers": (saved(Layers=["0.tar"]), errors.BrokenManifest, "diff_id"),
    "docker save with layers in the wrong order": (
        saved(Layers=["1.tar", "0.tar", "2.tar"]), errors.DigestMismatch, "layer sha256:"),
    "docker save whose config is a layer": (saved(Config="0.tar"), errors.BrokenManifest, "not JSON"),
    "docker save whose layers are not paths": (saved(Layers=[1, 2, 3]), errors.BrokenManifest, "not paths or tags"),
    "docker save that is not JSON": (
        {"1.0.tar": images.tar({f"{'0' * 64}/layer.tar": b"x", "manifest.json": b"x"})}, errors.BrokenManifest,
        "manifest.json is not JSON"),
    "docker save that lists no images": (
        {"1.0.tar": images.tar({f"{'0' * 64}/layer.tar": b"x", "manifest.json": b"[1]"})}, errors.BrokenManifest,
        "does not list images"),
    "docker save whose config has no digests": (
        {"1.0.tar": images.tar({
            "c.json": b'{"rootfs": {"diff_ids": ["nonsense"]}}', "l.tar": b"x",
            "manifest.json": b'[{"Config": "c.json", "Layers": ["l.tar"]}]'})},
        errors.BrokenManifest, "diff_id"),
    "docker save with a tag that is a number": (saved(RepoTags=[1]), errors.BrokenManifest, "paths or tags"),
    "docker save with tags that are not a list": (saved(RepoTags="app:1.0"), errors.BrokenManifest, "paths or tags"),
    "OCI archive without images": ({"1.0.tar": images.tar(images.oci_layout({}))}, errors.BrokenArchive, "no images"),
    "two images with one tag": (
        {"index.json": json.dumps({"manifests": [
            built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
            for built in (AMD64, ARM64)]}).encode()},
        errors.InvalidTag, f"'latest', and all go to the repository app: {AMD64.digest}, {ARM64.digest}"),
    "manifest with too many blobs": (
        lambda: many_blobs(21), errors.UnsupportedManifest, "10,000"),
    "manifest with too many layers": (
        lambda: with_document(document(layers=layers(501))), errors.UnsupportedManifest, "501 layers"),
    "tar with a header that is too long": (
        lambda: {"1.0.tar": member(b"g", 5_000_000)}, errors.BrokenArchive, "too long"),
    "tar of many headers before a member": (
        lambda: {"1.0.tar": member(b"L", 10) * 2100}, errors.BrokenArchive, "too long"),
    "tar of many long headers": (
        lambda: {"1.0.tar": (member(b"x", 1_000_000) + member(b"0", 0, name=f"{'0' * 64}.json")) * 68},
        errors.BrokenArchive, "too long"),
    "tar with a negative size": ({"1.0.tar": member(b"0", -100)}, errors.BrokenArchive, "damaged"),
    "tar with a size that is not a number": (
        {"1.0.tar": member(b"x", 17, b"17 size=nonsense\n") + member(b"0", 0)}, errors.BrokenArchive, "damaged"),
    "docker save with too many members": (
        lambda: {"1.0.tar": images.tar({"manifest.json": b"x"} | {f"{n:064}.json": b"" for n in range(20_000)})},
        errors.BrokenArchive, "20,000"),
    "docker save packed with -S": (
        {"1.0.tar": member(b"0", 0, name=f"{'0' * 64}.json") + member(b"S", 0, name="layer.tar") + bytes(1024)},
        errors.UnsupportedArchive, "'layer.tar'"),
    "archive with a device and empty files": ({"1.0.tar": with_device()}, errors.BrokenManifest, "not JSON"),
    "compressed archive that is cut off": ({"1.0.tgz": gzip.compress(TAR)[:-9]}, errors.BrokenArchive, "truncated"),
    "compressed archive that is damaged": (
        lambda: {"1": images.compress(TAR, "zstd")[:-4] + b"1234"}, errors.BrokenArchive, "zstd data are damaged"),
    "compressed archive with something behind it": (
        lambda: {"1": images.compress(TAR, "xz") + b"garbage"}, errors.BrokenArchive, "something else follows"),
    "archive that is compressed twice": (
        lambda: {"1.0.tar": gzip.compress(images.compress(TAR, "bzip2"))}, errors.UnsupportedArchive, "twice"),
    "archive that unpacks to 100 GB": (
        lambda: {"1.image": images.compress(header(f"{'0' * 64}.tar", 100 << 30) * 2, "zstd")},
        errors.UnsupportedArchive, "no image archive does"),
    "compressed archive with a bad layer": (
        lambda: {"1.zst": images.compress(images.tar(layout_with(AMD64, CONFIG, b"other")), "zstd")},
        errors.DigestMismatch, f"layer {CONFIG}"),

    "link that holds a path": (
        {"docker/registry/v2/repositories/app/_manifests/tags/1.0/current/link": b"../../etc/passwd"},
        errors.BrokenManifest, "'../../etc/passwd'"),
    "empty link": (
        {"docker/registry/v2/repositories/app/_manifests/tags/1.0/current/link": b""}, errors.BrokenManifest, "''"),
    "link that is too long": (
        {"docker/registry/v2/repositories/app/_manifests/tags/1.0/current/link": ZEROS.encode() * 9},
        errors.BrokenManifest, "not the digest"),
    "revision that holds another digest": (
        {f"docker/registry/v2/repositories/app/_manifests/revisions/sha256/{'1' * 64}/link": ZEROS.encode()},
        errors.BrokenManifest, ZEROS),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_broken_image_is_rejected_with_a_reason_and_sets_no_tag(
    name: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    made, error, reason = BAD[name]
    files = made() if callable(made) else made
    put_all(s3_double, files, "app/")
    key = f"app/{next(iter(files))}"

    with pytest.raises(error, match=reason.replace("(", r"\(")) as raised:
        handler.lambda_handler(put(s3_double, key, s3_double.objects[key].content.slice(0, 1 << 30)), Invocation())

    assert isinstance(raised.value, errors.Rejected)
    assert str(raised.value).startswith("s3://s3-to-ecr-local/app/")
    assert strict_ecr.repositories["app"].tags == {}


def test_an_index_with_a_child_that_ecr_refuses_is_rejected_before_any_layer_is_sent(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    bundle = "application/vnd.dev.sigstore.bundle+json;version=0.2"
    attestation = images.image([b"bundle"], artifactType=bundle)
    built = images.index(AMD64, attestation)

    with pytest.raises(errors.UnsupportedManifest, match=f"{attestation.digest}, which the image {built.digest} needs"):
        invoke(handler, put_all(s3_double, images.oci_layout({"1.0": built}))[:1])

    assert strict_ecr.operations == ["BatchGetImage"] * 2


def test_a_child_that_ecr_refuses_after_all_is_named_with_what_is_known_of_it(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    attestation = images.image([b"in-toto"], artifactType=REFUSED_ARTIFACT, subject=AMD64.descriptor)
    event = put_all(s3_double, images.oci_layout({"1.0": images.index(AMD64, attestation)}))[0]

    with pytest.raises(errors.RequestRefused) as raised:
        invoke(handler, [event])

    reason = raised.value.reason
    assert reason.startswith(f"manifest {attestation.digest} (it is an attestation")
    assert "oci-artifact=false" in reason
    assert "InvalidParameterException" in reason
    [warned] = [line for line in logs() if line["level"] == "WARNING"]
    assert (warned["manifest"], warned["message"]) == (attestation.digest, "ECR may refuse a manifest")
    assert strict_ecr.repositories["app"].tags == {}


def test_an_image_that_ecr_has_is_tagged_even_if_it_would_be_refused_now(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    manifest = document(layers=[])
    repository = strict_ecr.repositories["app"]
    repository.images[images.digest_of(manifest)] = Image(manifest.decode(), images.OCI_MANIFEST)
    strict_ecr.known_refusals = False

    [result] = invoke(handler, [put(s3_double, "app/manifests/1.0", manifest)])

    assert result["action"] == "pushed"
    assert repository.tags == {"1.0": images.digest_of(manifest)}


# As above.
ORDINARY: dict[str, bytes | Callable[[], bytes]] = {
    "layer.tar": layer("srv/hello", b"hello"),
    "only-files-at-the-top.tar": layer("hello", b"hello"),
    "with-a-manifest-of-its-own.tar": layer("manifest.json", b'{"name": "an app"}'),
    "with-an-empty-manifest.tar": layer("manifest.json", b"[]"),
    "with-other-entries.tar": layer("manifest.json", b'[{"Config": "x"}]'),
    "with-an-index-of-its-own.tar": layer("index.json", b"{}"),
    "with-blobs.tar": layer("blobs/picture", b"not an image of that kind"),
    "with-links-out.tar": images.tar(
        {"manifest.json": b'{"name": "an app"}', "a": b"x"}, {"current": "/srv/app", "up": "../../x"}
    ),
    "with-a-manifest-that-is-not-json.tar": layer("manifest.json", b"x"),
    "with-a-large-manifest.tar": lambda: layer("manifest.json", b" " * 4_194_305),
    "with-many-blobs.tar": images.tar({f"blobs/picture-{number}": b"x" for number in range(120)}),
    "with-many-absolute-names.tar": images.tar({f"/srv/{number}": b"x" for number in range(120)}),
    "blobs.tar.gz": gzip.compress(layer("blobs/picture", b"x")),
    "zstd.tar": b"\x28\xb5\x2f\xfd whatever",
    "sparse.tar": member(b"S", 0) + b"\xff" * 512,
    "sparse-pax.tar": member(b"x", 22, b"22 GNU.sparse.major=1\n") + member(b"0", 0) + bytes(1024),
    "global-headers.tar": member(b"g", 20, b"20 comment=whatever\n") + layer("srv/x", b"x"),
    "go.tar.gz": gzip.compress(images.tar({"go/VERSION": b"1", "go/json": b"{}"})),
    "app.tar": images.tar({"app/VERSION": b"1", "manifest.json": b'{"name": "an app"}'}),
    "many-members.tar": lambda: images.tar({f"{'0' * 64}/{n}": b"" for n in range(20_001)}),
    "very-many-at-the-top.tar": lambda: images.tar({f"file-{n}": b"" for n in range(20_001)}),
    "many.tar": images.tar({f"file-{number}": b"x" for number in range(120)}),
    "with-a-member-outside.tar": images.tar({"../x": b"x", "etc/passwd": b"x"}),
    "empty-archive.tar": images.tar({}),
    "layer.tar.gz": gzipped_layer(1000),
    "gzipped.tar": gzipped_layer(1000),
    "no-tar-inside.tar.gz": gzip.compress(b"hello"),
    "no-gzip.tgz": b"hello",
    "cut.tar.gz": gzip.compress(TAR)[:15],
    "gzipped twice.tar.gz": gzip.compress(gzipped_layer(1000)),
    "go.tzst": lambda: images.compress(images.tar({"go/VERSION": b"1", "manifest.json": b"[]"}), "zstd"),
    "blobs.txz": lambda: images.compress(layer("blobs/picture", b"x"), "xz"),
    "any name": lambda: images.compress(layer("index.json", b"{}"), "bzip2"),
    "with-digests.oci": images.tar({f"srv/{'0' * 64}/layer.tar": b"x"}),
    # These are looked into, and turn out to be something else.
    "with-an-identifier": images.tar({"0" * 64: b"x", "usr/bin/app": b"x"}),
    "with-an-identifier.tgz": gzip.compress(images.tar({"0" * 64: b"x", "usr/bin/app": b"x"})),
    "with-an-identifier.zst": lambda: images.compress(images.tar({"0" * 64: b"x", "usr/bin/app": b"x"}), "zstd"),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_layer_is_uploaded_unchanged_whatever_its_name(
    name: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    made = ORDINARY[name]
    content = made() if callable(made) else made

    [result] = handler.lambda_handler(put(s3_double, f"app/{name}", content), Invocation())["results"]

    assert (result["action"], result["digest"]) == ("uploaded", images.digest_of(content))
    assert strict_ecr.repositories["app"].layers == {images.digest_of(content): content}


def test_one_bad_image_of_a_layout_does_not_stop_the_others(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.oci_layout({"bad one": AMD64, "good": ARM64, "2.0": MULTI_ARCH})
    event = put_all(s3_double, files)[0]

    with pytest.raises(errors.InvalidTag, match="'bad one'"):
        handler.lambda_handler(event, Invocation())

    assert strict_ecr.repositories["app"].tags == {"good": ARM64.digest, "2.0": MULTI_ARCH.digest}
