"""Which image goes to which repository, under which tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from s3_to_ecr.errors import InvalidTag
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference


@dataclass(frozen=True)
class Target:
    """An image, one repository that it goes to, and its tags there."""

    image: Image
    repository: str
    tags: tuple[str, ...]


def targets_of(images: Iterable[Image], destination: Callable[[Reference | None], Destination]) -> list[Target]:
    """Each image once for every repository that its references lead to."""
    targets = []
    for image in images:
        tags: dict[str, dict[str, None]] = {}
        for reference in image.references or [None]:
            to = destination(reference)
            tags.setdefault(to.repository, {}).update({to.tag: None} if to.tag else {})
        targets += [Target(image, repository, tuple(names)) for repository, names in tags.items()]
    return targets


def check_unambiguous(targets: Sequence[Target]) -> None:
    """Raises `InvalidTag` if two images of one repository want the same tag: nobody could say which one it names."""
    wanted = Counter((target.repository, tag) for target in targets for tag in target.tags)
    for (repository, tag), times in wanted.items():
        if times > 1:
            digests = ", ".join(
                target.image.digest for target in targets if target.repository == repository and tag in target.tags
            )
            raise InvalidTag(
                f"{times} images in this object have the tag {tag!r}, and all go to the repository {repository}: "
                f"{digests}. Save them separately."
            )
