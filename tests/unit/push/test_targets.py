"""Where images go, with destinations as bundles will have them: the name of a reference is the repository."""

from __future__ import annotations

import pytest

from s3_to_ecr.errors import InvalidTag
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference, parse_reference
from s3_to_ecr.push.targets import Target, check_unambiguous, targets_of

ONE, TWO = f"sha256:{1:064}", f"sha256:{2:064}"


def by_name(reference: Reference | None) -> Destination:
    return Destination(reference.name or "app", reference.tag) if reference else Destination("app")


def image(digest: str, *references: str) -> Image:
    return Image(digest, tuple(map(parse_reference, references)))


def test_an_image_goes_to_every_repository_that_its_references_name() -> None:
    built = image(ONE, "web:1.0", "web:latest", "team/web:1.0", "web:1.0")

    assert targets_of([built], by_name) == [
        Target(built, "web", ("1.0", "latest")),
        Target(built, "team/web", ("1.0",)),
    ]


def test_an_image_without_a_reference_goes_untagged_to_the_default_destination() -> None:
    assert targets_of([image(ONE)], by_name) == [Target(image(ONE), "app", ())]


def test_a_tag_may_name_one_image_in_each_repository() -> None:
    check_unambiguous(targets_of([image(ONE, "web:1.0"), image(TWO, "db:1.0")], by_name))


def test_a_tag_cannot_name_two_images_of_one_repository() -> None:
    targets = targets_of([image(ONE, "web:1.0"), image(TWO, "web:1.0", "db:1.0")], by_name)

    with pytest.raises(InvalidTag, match=rf"'1\.0', and all go to the repository web: {ONE}, {TWO}\."):
        check_unambiguous(targets)
