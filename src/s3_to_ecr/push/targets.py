"""Which image goes to which repository, under which tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from s3_to_ecr.errors import InvalidTag, Rejected
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference


@dataclass(frozen=True)
class Target:
    """An image, one repository that it goes to, and its tags there."""

    image: Image
    repository: str
    tags: tuple[str, ...]


def targets_of(
    images: Iterable[Image], destination: Callable[[Reference | None], Destination]
) -> tuple[list[Target], list[Rejected]]:
    """Each image once for every repository that its references lead to, and what keeps others from any repository.

    An image goes nowhere if one of its references leads to no repository that ECR can have.
    """
    targets: list[Target] = []
    failures: list[Rejected] = []
    for image in images:
        tags: dict[str, dict[str, None]] = {}
        try:
            for reference in image.references or [None]:
                to = destination(reference)
                tags.setdefault(to.repository, {}).update({to.tag: None} if to.tag else {})
        except Rejected as error:
            failures.append(error.within(f"image {image.digest}"))
            continue
        targets += [Target(image, repository, tuple(names)) for repository, names in tags.items()]
    return targets, failures


def without_ambiguous_tags(targets: Sequence[Target]) -> tuple[list[Target], list[InvalidTag]]:
    """The targets without tags that several images want in one repository, and an error for each of these tags.

    Nobody could say which image such a tag names. An image that has no other tags is left out.
    """
    wanted: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        for tag in target.tags:
            wanted.setdefault((target.repository, tag), []).append(target.image.digest)
    ambiguous = {name: digests for name, digests in wanted.items() if len(digests) > 1}
    clear = []
    for target in targets:
        tags = tuple(tag for tag in target.tags if (target.repository, tag) not in ambiguous)
        if tags or not target.tags:
            clear.append(replace(target, tags=tags))
    return clear, [
        InvalidTag(
            f"{len(digests)} images in this object have the tag {tag!r}, and all go to the repository {repository}: "
            f"{', '.join(digests)}. Save them separately."
        )
        for (repository, tag), digests in ambiguous.items()
    ]
