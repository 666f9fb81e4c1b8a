"""Where images go, with destinations as in a bundle: the name of a reference is the repository."""

from __future__ import annotations

from s3_to_ecr.errors import InvalidRepositoryName, InvalidTag
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference, parse_reference
from s3_to_ecr.push.targets import Target, targets_of, without_ambiguous_tags

ONE, TWO, THREE, FOUR = (f"sha256:{number:064}" for number in (1, 2, 3, 4))


def by_name(reference: Reference | None) -> Destination:
    if reference and reference.name == "bad":
        raise InvalidRepositoryName("not a name.")
    return Destination(reference.name or "app", reference.tag) if reference else Destination("app")


def image(digest: str, *references: str) -> Image:
    return Image(digest, tuple(map(parse_reference, references)))


def test_an_image_goes_to_every_repository_that_its_references_name() -> None:
    built = image(ONE, "web:1.0", "web:latest", "team/web:1.0", "web:1.0")

    assert targets_of([built], by_name) == (
        [Target(built, "web", ("1.0", "latest")), Target(built, "team/web", ("1.0",))],
        [],
    )


def test_an_image_without_a_reference_goes_untagged_to_the_default_destination() -> None:
    assert targets_of([image(ONE)], by_name) == ([Target(image(ONE), "app", ())], [])


def test_a_reference_that_leads_nowhere_keeps_its_image_out_but_no_other() -> None:
    targets, [failure] = targets_of([image(ONE, "web:1.0", "bad:1.0"), image(TWO, "db:1.0")], by_name)

    assert targets == [Target(image(TWO, "db:1.0"), "db", ("1.0",))]
    assert isinstance(failure, InvalidRepositoryName)
    assert failure.reason == f"image {ONE}: not a name."


def test_a_tag_may_name_one_image_in_each_repository() -> None:
    targets, _ = targets_of([image(ONE, "web:1.0"), image(TWO, "db:1.0")], by_name)

    assert without_ambiguous_tags(targets) == (targets, [])


def test_a_tag_that_two_images_of_one_repository_want_is_left_out_alone() -> None:
    one, two, three = image(ONE, "web:1.0", "web:1"), image(TWO, "web:1.0", "db:1.0"), image(THREE, "web:1.0")
    targets, _ = targets_of([one, two, three, image(FOUR)], by_name)

    clear, [failure] = without_ambiguous_tags(targets)

    assert clear == [Target(one, "web", ("1",)), Target(two, "db", ("1.0",)), Target(image(FOUR), "app", ())]
    assert isinstance(failure, InvalidTag)
    assert f"3 images in this object have the tag '1.0', and all go to the repository web: {ONE}, " in failure.reason
