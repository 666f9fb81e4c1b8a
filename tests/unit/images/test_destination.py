from __future__ import annotations

import pytest

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed
from s3_to_ecr.images.destination import Destination, destination
from s3_to_ecr.images.references import parse_reference
from s3_to_ecr.settings import Settings


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
