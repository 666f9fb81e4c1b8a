from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_to_ecr.errors import InvalidRepositoryName, Rejected, RepositoryNotNamed, UnsupportedLayout
from s3_to_ecr.jobs import Ignore, UploadLayer
from s3_to_ecr.layouts import route
from s3_to_ecr.settings import Settings

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
REGISTRY = "docker/registry/v2"


def settings(key_prefix: str = "", repository_prefix: str = "", default_repository: str | None = None) -> Settings:
    return Settings(
        "state",
        key_prefix=key_prefix,
        repository_prefix=repository_prefix,
        default_repository=default_repository,
    )


@pytest.mark.parametrize(
    ("key", "repository", "digest"),
    [
        ("app/layer.tar.gz", "app", None),
        ("team/app/layer.tar.gz", "team/app", None),
        ("app/Any Name + 100% ✨", "app", None),
        (f"app/{DIGEST}", "app", DIGEST),
        (f"team/app/{HEX}", "team/app", DIGEST),
        (f"app/blobs/{DIGEST}", "app", DIGEST),
        (f"team/app/blobs/{DIGEST}", "team/app", DIGEST),
        # Nearly a digest is a name like any other.
        (f"app/{HEX}0", "app", None),
        (f"app/{HEX.upper()}", "app", None),
        (f"app/sha512:{HEX}", "app", None),
        (f"app/{DIGEST}.tar", "app", None),
        (f"app/{HEX}\n", "app", None),
        # An uncompressed layer is a tar, too.
        ("app/layer.tar", "app", None),
    ],
)
def test_a_blob_goes_to_the_repository_that_its_folder_names(key: str, repository: str, digest: str | None) -> None:
    assert route(key, settings()) == UploadLayer(repository, digest)


@pytest.mark.parametrize("key", ["app/", "app/folder/", "/", f"app/{DIGEST}/"])
def test_folder_markers_are_ignored(key: str) -> None:
    assert isinstance(route(key, settings()), Ignore)


def test_the_key_prefix_is_stripped_first() -> None:
    assert route("layers/app/file", settings(key_prefix="layers/")) == UploadLayer("app", None)
    assert route("img-app/file", settings(key_prefix="img-")) == UploadLayer("app", None)


def test_objects_outside_the_key_prefix_are_ignored() -> None:
    assert isinstance(route("logs/app/file", settings(key_prefix="layers/")), Ignore)
    assert isinstance(route("layers/", settings(key_prefix="layers/")), Ignore)
    assert isinstance(route("layers", settings(key_prefix="layers")), Ignore)


def test_the_repository_prefix_comes_before_the_folder() -> None:
    assert route("app/file", settings(repository_prefix="mirror/")) == UploadLayer("mirror/app", None)


def test_a_key_with_no_folder_goes_to_the_default_repository() -> None:
    assert route("file", settings(default_repository="base")) == UploadLayer("base", None)
    assert route(DIGEST, settings(default_repository="base")) == UploadLayer("base", DIGEST)
    assert route("layers/file", settings("layers/", "mirror/", "base")) == UploadLayer("mirror/base", None)


def test_a_key_with_no_folder_and_no_default_is_rejected() -> None:
    with pytest.raises(RepositoryNotNamed):
        route("file", settings())


@pytest.mark.parametrize("key", ["App/file", "a b/file", "/app/file", "app//file", "a/file", "äpp/file"])
def test_a_folder_that_ecr_would_not_take_is_rejected(key: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        route(key, settings())


@pytest.mark.parametrize(
    "key",
    [
        "app/index.json",
        "index.json",
        f"blobs/sha256/{HEX}",
        f"app/blobs/sha256/{HEX}",
        "app/manifests/latest",
        f"app/manifests/{DIGEST}",
        f"{REGISTRY}/repositories/team/app/_layers/sha256/{HEX}/link",
        f"root/{REGISTRY}/repositories/app/_manifests/revisions/sha256/{HEX}/link",
        f"root/{REGISTRY}/repositories/app/_manifests/tags/v1/current/link",
    ],
)
def test_parts_of_images_are_not_taken_for_layers(key: str) -> None:
    with pytest.raises(UnsupportedLayout, match="this version"):
        route(key, settings())


@pytest.mark.parametrize(
    "key",
    [
        "app/oci-layout",
        "oci-layout",
        f"{REGISTRY}/blobs/sha256/01/{HEX}/data",
        f"root/{REGISTRY}/repositories/app/_uploads/1234/data",
        f"{REGISTRY}/repositories/app/_manifests/tags/v1/index/sha256/{HEX}/link",
    ],
)
def test_what_no_image_is_named_by_is_ignored(key: str) -> None:
    assert isinstance(route(key, settings()), Ignore)


@given(st.text() | st.from_regex(r"[a-z/]{0,9}(blobs/|docker/registry/v2/)?(sha256[:/])?[0-9a-f]{63,65}(/link)?"))
def test_no_key_ends_in_anything_but_a_job_or_a_rejection(key: str) -> None:
    try:
        job = route(key, settings("la", "mirror/", "base"))
    except Rejected:
        return
    assert isinstance(job, Ignore) or job.repository.startswith("mirror/")
