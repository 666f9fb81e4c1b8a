"""Archives and layouts of several repositories, in which references say what goes where."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from local import images
from local.images import Built
from local.layers import layer
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.errors import (
    AccessDenied,
    BlobsMissing,
    DigestMismatch,
    InvalidRepositoryName,
    InvalidTag,
    RepositoryMissing,
    RepositoryNotNamed,
    SeveralRepositories,
)
from s3_to_ecr.push.layer import LayerPusher
from tests.conftest import Load
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.layouts import AMD64, ARM64, MULTI_ARCH, assert_pullable, invoke, put, put_all
from tests.doubles.s3 import S3Double

pytestmark = pytest.mark.usefixtures("no_backoff")

BUNDLE = {
    "docker.io/library/nginx:1.27": AMD64,
    "quay.io/team/app:2.0": MULTI_ARCH,
    "registry.example.com:8443/team/app:1.0": ARM64,
}
REPOSITORIES = ["library/nginx", "team/app"]


def bundle(built: dict[str, Built] | None = None) -> bytes:
    """An OCI archive of images by full reference."""
    return images.tar(images.oci_layout(built or BUNDLE))


def docker_bundle(references: list[list[str]]) -> bytes:
    """A docker archive with an image for each of these lists."""
    return images.docker_save_several(
        (names, images.image([layer(f"srv/{number}", b"x")])) for number, names in enumerate(references)
    )


def assert_bundle_is_there(ecr: EcrDouble, above: str = "") -> None:
    assert_pullable(ecr, "1.27", AMD64, f"{above}library/nginx")
    assert_pullable(ecr, "2.0", MULTI_ARCH, f"{above}team/app")
    assert_pullable(ecr, "1.0", ARM64, f"{above}team/app")


@pytest.mark.parametrize(
    ("key", "above"), [("_/any.tar", ""), ("mirror/k3s/_/any/deeper.tar", "mirror/k3s/"), ("any.tar", "")]
)
def test_each_image_of_a_bundle_goes_to_the_repository_that_its_reference_names(
    key: str, above: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create(*(above + repository for repository in REPOSITORIES))
    event = put(s3_double, key, bundle())

    for action in ("pushed", "skipped"):
        [result] = invoke(handler, [event])
        assert (result["action"], result["repository"], result["digest"]) == (action, None, None)
        assert result["images"] == [
            {"repository": f"{above}library/nginx", "digest": AMD64.digest, "tags": ["1.27"]},
            {"repository": f"{above}team/app", "digest": MULTI_ARCH.digest, "tags": ["2.0"]},
            {"repository": f"{above}team/app", "digest": ARM64.digest, "tags": ["1.0"]},
        ]
    assert_bundle_is_there(strict_ecr, above)
    assert not strict_ecr.repositories["app"].images


@pytest.mark.parametrize(
    ("ending", "compression"), [(".tar", None), (".tar.gz", "gzip"), (".tar.zst", "zstd"), ("", "xz")]
)
def test_a_docker_archive_of_a_dozen_repositories_creates_them_all(
    ending: str,
    compression: str | None,
    doubled: dict[str, str],
    load_handler: Load,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
) -> None:
    handler = load_handler(doubled, CREATE_REPOSITORIES="true", REPOSITORY_PREFIX="mirror/")
    names = [[f"docker.io/rancher/mirrored-{number}:v1", f"docker.io/rancher/{number}:v2"] for number in range(6)]

    archive = docker_bundle(names) if compression is None else images.compress(docker_bundle(names), compression)

    [result] = invoke(handler, [put(s3_double, f"_/k3s-airgap-images{ending}", archive)])

    pushed = {image["repository"]: image["tags"] for image in result["images"]}
    assert pushed == {
        f"mirror/rancher/{prefix}{number}": [tag]
        for number in range(6)
        for prefix, tag in (("mirrored-", "v1"), ("", "v2"))
    }
    for repository, [tag] in pushed.items():
        assert tag in strict_ecr.repositories[repository].tags


def test_the_registrys_host_may_be_kept(
    doubled: dict[str, str], load_handler: Load, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    handler = load_handler(doubled, CREATE_REPOSITORIES="true", KEEP_REGISTRY_HOST="true")

    invoke(handler, [put(s3_double, "_/any.tar", bundle())])

    assert_pullable(strict_ecr, "1.27", AMD64, "docker.io/library/nginx")
    assert_pullable(strict_ecr, "2.0", MULTI_ARCH, "quay.io/team/app")
    assert_pullable(strict_ecr, "1.0", ARM64, "registry.example.com/team/app")


@pytest.mark.parametrize("order", [list, lambda files: list(reversed(files))], ids=["index first", "index last"])
def test_the_blobs_of_a_bundled_layout_wait_for_its_index(
    order: Callable[[Any], list[str]], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create(*REPOSITORIES)
    files = images.oci_layout(BUNDLE)

    results = []
    for path in order(files):
        with suppress(BlobsMissing):
            results += invoke(handler, put_all(s3_double, {path: files[path]}, "_/hauler/"))

    assert_bundle_is_there(strict_ecr)
    assert {result["action"] for result in results} <= {"ignored", "pushed"}


@pytest.mark.parametrize("content", [layer("srv/x", b"x"), b"no archive"])
@pytest.mark.parametrize("key", ["_/layer", "any name"])
def test_a_layer_where_only_bundles_belong_is_rejected(
    key: str, content: bytes, handler: Function, s3_double: S3Double
) -> None:
    with pytest.raises(RepositoryNotNamed):
        invoke(handler, [put(s3_double, key, content)])


def test_an_empty_layout_in_a_bundle_asks_for_nothing(handler: Function, s3_double: S3Double) -> None:
    [result] = invoke(handler, put_all(s3_double, images.oci_layout({}), "_/new/")[:1])

    assert (result["action"], result["repository"], result["images"]) == ("skipped", None, [])


def test_an_image_with_several_names_goes_to_each_repository(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("library/web", "team/web")
    saved = images.docker_save(["web:1", "web:latest", "localhost:5000/team/web:1"], AMD64)

    [result] = invoke(handler, [put(s3_double, "_/web.tar", saved)])

    assert [(image["repository"], image["tags"]) for image in result["images"]] == [
        ("library/web", ["1", "latest"]),
        ("team/web", ["1"]),
    ]


@pytest.mark.parametrize(
    ("reference", "error", "reason"),
    [
        ("quay.io/Team/App:1.0", InvalidRepositoryName, "'Team/App' is not an ECR repository name"),
        ("1.0", RepositoryNotNamed, "under _/"),
        ("quay.io/team/app:not a tag", InvalidTag, "'not a tag'"),
    ],
)
def test_an_image_with_a_bad_reference_is_rejected_and_the_others_are_pushed(
    reference: str,
    error: type[Exception],
    reason: str,
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
) -> None:
    strict_ecr.create(*REPOSITORIES)
    bad = images.image([layer("srv/bad", b"bad")])

    with pytest.raises(error, match=reason):
        invoke(handler, [put(s3_double, "_/any.tar", bundle({reference: bad} | BUNDLE))])

    assert_bundle_is_there(strict_ecr)
    assert not any(bad.digest in found.images for found in strict_ecr.repositories.values())


def test_a_repository_that_cannot_be_read_stops_no_other(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create(*REPOSITORIES)
    gremlin.fail("ecr:BatchGetImage", "AccessDeniedException")

    with pytest.raises(AccessDenied, match="library/nginx"):
        invoke(handler, [put(s3_double, "_/any.tar", bundle())])

    assert_pullable(strict_ecr, "2.0", MULTI_ARCH, "team/app")


def test_an_ambiguous_tag_fails_alone(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    strict_ecr.create(*REPOSITORIES)
    references = {"docker.io/library/nginx:1": AMD64, "nginx.example.com/library/nginx:1": ARM64}

    with pytest.raises(InvalidTag, match=f"'1', .* repository library/nginx: {AMD64.digest}, {ARM64.digest}"):
        invoke(handler, [put(s3_double, "_/any.tar", bundle(references | {"quay.io/team/app:2.0": MULTI_ARCH}))])

    assert_pullable(strict_ecr, "2.0", MULTI_ARCH, "team/app")
    assert strict_ecr.repositories["library/nginx"].tags == {}


def test_all_missing_repositories_are_named_in_one_reason(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("team/there")
    names = [[f"quay.io/team/missing-{number}:1"] for number in range(8)] + [["quay.io/team/there:1"]]

    with pytest.raises(RepositoryMissing) as raised:
        invoke(handler, [put(s3_double, "_/any.tar", docker_bundle(names))])

    assert raised.value.reason == (
        f"ECR lacks 8 repositories: {', '.join(f'team/missing-{number}' for number in range(8))}. "
        "Create them, or set CREATE_REPOSITORIES to true."
    )
    assert list(strict_ecr.repositories["team/there"].tags) == ["1"]


@pytest.mark.parametrize("save", [bundle, lambda: docker_bundle([["nginx:latest"], ["redis:latest"]])])
def test_a_bundle_in_a_repositorys_folder_is_rejected_with_the_key_to_use(
    save: Callable[[], bytes], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    with pytest.raises(SeveralRepositories, match=r"Put it at _/any\.tar, .* or at app/_/any\.tar, "):
        invoke(handler, [put(s3_double, "app/any.tar", save())])

    assert not strict_ecr.repositories["app"].layers


def test_what_is_no_archive_cannot_be_in_a_bundle(handler: Function, s3_double: S3Double) -> None:
    for key, reason in (("_/layer.tar", "under _/"), ("layer.tar", "DEFAULT_REPOSITORY")):
        with pytest.raises(RepositoryNotNamed, match=reason):
            invoke(handler, [put(s3_double, key, layer("srv/x", b"x"))])


@pytest.mark.parametrize(("key", "tag"), [("app/alpine.tar", "alpine"), ("_/alpine.tar", None)])
def test_an_image_that_crane_pulled_by_its_digest_has_no_tag_of_its_own(
    key: str, tag: str | None, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("library/alpine")
    saved = images.docker_save(["index.docker.io/library/alpine:i-was-a-digest"], AMD64)

    [result] = invoke(handler, [put(s3_double, key, saved)])

    assert result["images"][0]["tags"] == ([tag] if tag else [])
    assert result["digest"] in strict_ecr.repositories[result["repository"]].images


# cosign tells signatures by their kind.
def signed(reference: str, kinds: dict[str, Built]) -> bytes:
    files = images.oci_layout({str(number): built for number, built in enumerate(kinds.values())})
    entries = [
        built.descriptor
        | {"annotations": {"kind": f"dev.cosignproject.cosign/{kind}", "org.opencontainers.image.ref.name": reference}}
        for kind, built in kinds.items()
    ]
    return images.tar(files | {"index.json": json.dumps({"schemaVersion": 2, "manifests": entries}).encode()})


@pytest.mark.parametrize("key", ["_/saved.tar", "team/app/saved.tar"])
def test_signatures_go_beside_their_image_under_cosigns_tags(
    key: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("team/app")
    signature, attestation = (images.image([layer("x", kind)]) for kind in (b"signature", b"attestation"))
    saved = signed("quay.io/team/app:1.0", {"image": AMD64, "sigs": signature, "atts": attestation})

    invoke(handler, [put(s3_double, key, saved)])

    subject = AMD64.digest.replace(":", "-")
    assert strict_ecr.repositories["team/app"].tags == {
        "1.0": AMD64.digest,
        f"{subject}.sig": signature.digest,
        f"{subject}.att": attestation.digest,
    }


def test_an_image_that_cosign_saved_without_a_tag_is_tagged_by_its_archive(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    signature = images.image([layer("x", b"signature")])
    saved = signed("", {"image": AMD64, "sigs": signature})

    invoke(handler, [put(s3_double, "app/v1.tar", saved)])

    assert strict_ecr.repositories["app"].tags == {
        "v1": AMD64.digest,
        f"{AMD64.digest.replace(':', '-')}.sig": signature.digest,
    }


@pytest.mark.parametrize("kept", list(itertools.product([False, True], repeat=2)))
def test_missing_blobs_of_a_bundle_stop_only_their_image(
    kept: tuple[bool, bool], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create(*REPOSITORIES)
    built = {"quay.io/team/app:1": AMD64, "quay.io/library/nginx:1": ARM64}
    configs = [next(iter(image.blobs)) for image in built.values()]
    files = images.oci_layout(built)
    gone = [images.blob_path(digest) for digest, keep in zip(configs, kept, strict=True) if not keep]

    with suppress(BlobsMissing):
        invoke(handler, put_all(s3_double, {path: files[path] for path in files if path not in gone}, "_/x/")[:1])

    assert [bool(strict_ecr.repositories[name].tags) for name in ("team/app", "library/nginx")] == list(kept)
    invoke(handler, put_all(s3_double, {path: files[path] for path in gone}, "_/x/"))
    assert_pullable(strict_ecr, "1", AMD64, "team/app")
    assert_pullable(strict_ecr, "1", ARM64, "library/nginx")


def test_layers_that_images_share_are_uploaded_once_to_each_repository(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("team/app", "team/other")
    shared = [layer("srv/shared", number) for number in (b"1", b"2")]
    built = {
        f"quay.io/team/app:{number}": images.image([*shared, layer("srv/own", b"%d" % number)]) for number in range(6)
    }
    elsewhere = {"quay.io/team/other:0": built["quay.io/team/app:0"]}

    invoke(handler, [put(s3_double, "_/any.tar", bundle(built | elsewhere))])

    for number in range(6):
        assert_pullable(strict_ecr, str(number), built[f"quay.io/team/app:{number}"], "team/app")
    assert_pullable(strict_ecr, "0", built["quay.io/team/app:0"], "team/other")
    uploaded = strict_ecr.calls_of("CompleteLayerUpload")
    names = [(call.members["repositoryName"], *call.members["layerDigests"]) for call in uploaded]
    assert len(names) == len(set(names)) == 6 * 2 + 2 + 4


def test_images_are_checked_and_put_while_others_are_uploaded(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict_ecr.create(*REPOSITORIES)
    others_are_there = threading.Event()
    push_missing = LayerPusher.push_missing
    put_image = Registry.put_image

    def waiting(pusher: LayerPusher, blob: Any, repository: str, digest: str, memory: int) -> Any:
        assert repository != "library/nginx" or others_are_there.wait(10)
        return push_missing(pusher, blob, repository, digest, memory)

    def watched(registry: Registry, repository: str, digest: str, *more: Any) -> None:
        put_image(registry, repository, digest, *more)
        if repository == "team/app" and digest == ARM64.digest:
            others_are_there.set()

    monkeypatch.setattr(LayerPusher, "push_missing", waiting)
    monkeypatch.setattr(Registry, "put_image", watched)
    [result] = invoke(handler, [put(s3_double, "_/any.tar", bundle())])

    assert_bundle_is_there(strict_ecr)
    assert [image["digest"] for image in result["images"]] == [built.digest for built in BUNDLE.values()]


def test_a_rejected_image_does_not_stop_the_layers_that_it_shares(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_to_ecr.push.image_layers.LAYERS_AT_ONCE", 1)
    strict_ecr.create("team/app")
    shared = layer("srv/shared", b"shared")
    large, own = layer("srv/large", bytes(20_000)), layer("srv/own", b"own")
    bad = images.image([large, shared, own])
    good = images.image([shared, layer("srv/good", b"good")])
    files = images.oci_layout({"quay.io/team/app:bad": bad, "quay.io/team/app:good": good})
    files[images.blob_path(images.digest_of(large))] = bytes(len(large))

    with pytest.raises(DigestMismatch, match=f"layer {images.digest_of(large)}"):
        invoke(handler, [put(s3_double, "_/any.tar", images.tar(files))])

    assert_pullable(strict_ecr, "good", good, "team/app")
    assert images.digest_of(own) not in strict_ecr.repositories["team/app"].layers
