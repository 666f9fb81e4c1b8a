from __future__ import annotations

from typing import Any

import pytest

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed, SeveralRepositories
from s3_to_ecr.images.destination import Destination, check_one_repository, destination
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference, parse_reference
from s3_to_ecr.settings import Settings

KEEPING_HOSTS = Settings("state", keep_registry_host=True)


def test_the_folder_names_the_repository_and_a_reference_only_the_tag() -> None:
    reference = parse_reference("docker.io/library/nginx:1.27")

    assert destination(Settings("state"), "team/app", reference) == Destination("team/app", "1.27")
    assert destination(Settings("state"), "team/app") == Destination("team/app", None)


def test_the_prefix_is_added_to_every_repository() -> None:
    settings = Settings("state", repository_prefix="mirror/", default_repository="base")

    assert destination(settings, "team/app").repository == "mirror/team/app"
    assert destination(settings, None).repository == "mirror/base"


@pytest.mark.parametrize("folder", ["", "/app", "/a"])
def test_a_prefix_does_not_make_an_empty_folder_valid(folder: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        destination(Settings("state", repository_prefix="mirror"), folder)


def test_a_key_with_no_folder_needs_a_default() -> None:
    with pytest.raises(RepositoryNotNamed, match="DEFAULT_REPOSITORY"):
        destination(Settings("state"), None)


@pytest.mark.parametrize("name", ["ab", "a1", "team/app", "a.b_c-d__e--f/9", "x" * 256])
def test_names_that_ecr_accepts(name: str) -> None:
    assert destination(Settings("state"), name).repository == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "App", "app/", "/app", "a//b", "-app", "app-", "a..b", "a___b", "a b", "äpp", "..", "a/../b", "app\n",
     "x" * 257],
)  # fmt: skip
def test_names_that_ecr_does_not_accept(name: str) -> None:
    with pytest.raises(InvalidRepositoryName, match="Rename the object's folder"):
        destination(Settings("state"), name)


@pytest.mark.parametrize(
    ("reference", "repository", "with_host"),
    [
        ("nginx:1", "library/nginx", "library/nginx"),
        ("team/app:1", "team/app", "team/app"),
        ("docker.io/nginx:1", "library/nginx", "docker.io/library/nginx"),
        ("docker.io/library/nginx:1", "library/nginx", "docker.io/library/nginx"),
        ("index.docker.io/team/app:1", "team/app", "docker.io/team/app"),
        ("registry.k8s.io/pause:3.9", "pause", "registry.k8s.io/pause"),
        ("quay.io/a/b/c:1", "a/b/c", "quay.io/a/b/c"),
        ("localhost/app:1", "app", "localhost/app"),
        ("localhost:5000/app:1", "app", "localhost/app"),
        ("registry:5000/team/app", "team/app", "registry/team/app"),
        ("registry.example.com:8443/app@sha256:0", "app", "registry.example.com/app"),
    ],
)
def test_in_a_bundle_the_repository_is_the_path_of_the_reference(
    reference: str, repository: str, with_host: str
) -> None:
    named = parse_reference(reference)

    for folder in ("_", "_/any", "_/any/deeper"):
        assert destination(Settings("state"), folder, named) == Destination(repository, named.tag)
        assert destination(KEEPING_HOSTS, folder, named).repository == with_host


def test_a_bundle_may_be_in_a_folder_and_behind_the_prefix() -> None:
    settings = Settings("state", repository_prefix="mirror/", default_repository="base")

    assert destination(settings, "team/a/_/any", parse_reference("nginx:1")).repository == "mirror/team/a/library/nginx"


def test_without_a_folder_and_a_default_the_reference_names_the_repository() -> None:
    assert destination(Settings("state"), None, parse_reference("quay.io/a/b:1")) == Destination("a/b", "1")
    assert destination(Settings("state", default_repository="base"), None, parse_reference("quay.io/a/b:1")) == (
        Destination("base", "1")
    )


@pytest.mark.parametrize("reference", [None, Reference("1.0")])
def test_in_a_bundle_a_tag_alone_names_no_repository(reference: Reference | None) -> None:
    with pytest.raises(RepositoryNotNamed, match="under _/"):
        destination(Settings("state"), "_", reference)


@pytest.mark.parametrize(
    "reference", ["quay.io/Team/app:1", "../secret:1", "a//b:1", "quay.io/../../x:1", "[::1]:5/x:1"]
)
def test_a_reference_that_ecr_does_not_accept_is_rejected(reference: str) -> None:
    with pytest.raises(InvalidRepositoryName, match="Tag the image anew"):
        destination(KEEPING_HOSTS, "_", parse_reference(reference))


def images(*names: tuple[str, ...]) -> list[Image]:
    return [
        Image(f"sha256:{number:064}", tuple(map(parse_reference, references)))
        for number, references in enumerate(names)
    ]


@pytest.mark.parametrize(
    "names",
    [
        [],
        [("web:1",)],
        [("web:1", "mirror/web:1", "db:1")],  # one image under several names
        [("web:1", "quay.io/library/web:1"), ("docker.io/library/web:2",)],
        [("web:1", "mirror/web:1"), ("mirror/web:2", "db:2")],
        [("web:1",), ()],
    ],
)
def test_images_of_one_repository_may_be_in_one_archive(names: list[tuple[str, ...]]) -> None:
    check_one_repository(Settings("state"), "app", "app/x.tar", images(*names))


def test_an_archive_of_several_repositories_is_rejected_with_the_keys_to_use() -> None:
    several = images(("nginx:1",), ("quay.io/team/db:1",), ("a/b:1",), ("a/c:1",))

    with pytest.raises(
        SeveralRepositories,
        match=r"4 repositories, library/nginx, team/db, a/b, …, .* at in/_/x\.tar, .* or at in/team/app/_/x\.tar, .* "
        "below team/app/",
    ):
        check_one_repository(Settings("state", key_prefix="in/"), "team/app", "in/team/app/x.tar", several)
    with pytest.raises(SeveralRepositories, match=r"at _/x\.tar, "):
        check_one_repository(Settings("state", default_repository="base"), None, "x.tar", several)


def test_repositories_of_several_hosts_differ_only_if_hosts_are_kept() -> None:
    several = images(("docker.io/team/app:1",), ("quay.io/team/app:2",))

    check_one_repository(Settings("state"), "app", "app/x.tar", several)
    with pytest.raises(SeveralRepositories, match=r"docker\.io/team/app, quay\.io/team/app"):
        check_one_repository(KEEPING_HOSTS, "app", "app/x.tar", several)


@pytest.mark.parametrize(
    ("folder", "more", "repository"),
    [
        ("charts", {}, "charts/web"),
        ("charts/_", {}, "charts/web"),
        ("_/any", {}, "web"),
        (None, {}, "web"),
        (None, {"default_repository": "charts"}, "charts/web"),
        ("charts", {"repository_prefix": "mirror/"}, "mirror/charts/web"),
        ("charts", {"keep_registry_host": True}, "charts/web"),
    ],
)
def test_a_chart_goes_to_the_repository_of_its_name_below_the_folder(
    folder: str | None, more: dict[str, Any], repository: str
) -> None:
    chart = Reference("1.0.0", below="web")

    assert destination(Settings("state", **more), folder, chart) == Destination(repository, "1.0.0")


def test_a_chart_whose_name_ecr_cannot_take_is_rejected() -> None:
    with pytest.raises(InvalidRepositoryName, match="Rename the folder or the chart"):
        destination(Settings("state"), "charts", Reference("1.0.0", below="Web"))
