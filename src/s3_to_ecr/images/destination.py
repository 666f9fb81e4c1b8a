"""Where in ECR an image goes: the one place that makes repositories and tags of folders and references."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed, SeveralRepositories
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.references import Reference, repository_path
from s3_to_ecr.settings import Settings

# The pattern and lengths of RepositoryName in ECR's service model (ecr/2015-09-21).
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REPOSITORY_NAME_LENGTH = range(2, 256 + 1)

# A folder called `_`, which no repository can be, holds bundles: there, references name the repositories.
_BUNDLES = re.compile(r"(?:(?P<above>.+?)/)?_(?:/.*)?", re.DOTALL)

# How many repositories an error names as examples.
_EXAMPLES = 3


@dataclass(frozen=True)
class Destination:
    """A repository in ECR, and the tag in it, if there is one."""

    repository: str
    tag: str | None = None


def is_bundle(settings: Settings, folder: str | None) -> bool:
    """Whether references, not the `folder`, name the repositories of the images in it (`None` for no folder)."""
    return settings.default_repository is None if folder is None else _BUNDLES.fullmatch(folder) is not None


def destination(settings: Settings, folder: str | None, reference: Reference | None = None) -> Destination:
    """Where the image that `reference` names goes, if it lies in `folder` (`None` for a key without a folder).

    The folder is the repository, and of the reference only the tag counts. In a bundle, the repository is the path of
    the reference, below the folder that holds the bundles. A chart names a repository below the folder, bundle or not.
    Raises `RepositoryNotNamed`, or `InvalidRepositoryName` before ECR has to.
    """
    if reference and reference.below:
        above = _above_bundle(folder) if is_bundle(settings, folder) else folder or settings.default_repository
        name, what_to_do = f"{above}/{reference.below}" if above else reference.below, "Rename the folder or the chart."
    elif is_bundle(settings, folder):
        name, what_to_do = _named_by_reference(settings, folder, reference), "Tag the image anew."
    else:
        name, what_to_do = (
            folder if folder is not None else str(settings.default_repository),
            "Rename the object's folder.",
        )
    repository = settings.repository_prefix + name
    # The folder must be a valid name by itself: the prefix must not make up for one that begins with a slash.
    well_formed = _REPOSITORY_NAME.fullmatch(name) and _REPOSITORY_NAME.fullmatch(repository)
    if not well_formed or len(repository) not in _REPOSITORY_NAME_LENGTH:
        raise InvalidRepositoryName(
            f"{repository!r} is not an ECR repository name. It takes 2 to 256 lower-case letters and digits, "
            f"single separators . _ __ - between them, folders with /. {what_to_do}"
        )
    return Destination(repository, reference.tag if reference else None)


def check_one_repository(settings: Settings, folder: str | None, key: str, images: Iterable[Image]) -> None:
    """Raises `SeveralRepositories` if images in one archive, at `key`, have no repository in common.

    An image may have several names. What has none, or a tag only, belongs to any repository.
    """
    named = [
        {repository_path(name, keep_host=settings.keep_registry_host): None for name in names}
        for image in images
        if (names := [reference.name for reference in image.references if reference.name])
    ]
    if not named or set.intersection(*(set(names) for names in named)):
        return
    every = list(dict.fromkeys(name for names in named for name in names))
    examples = ", ".join(every[:_EXAMPLES]) + (", …" if len(every) > _EXAMPLES else "")
    file = key.rpartition("/")[2]
    own, below = f"{settings.key_prefix}_/{file}", f"{settings.key_prefix}{folder}/_/{file}"
    raise SeveralRepositories(
        f"the archive holds images of {len(every)} repositories, {examples}, and its folder is one repository. "
        f"Put it at {own}, and each image goes to the repository that its reference names; "
        + (f"or at {below}, for repositories below {folder}/." if folder else "or save them apart.")
    )


def _named_by_reference(settings: Settings, folder: str | None, reference: Reference | None) -> str:
    if reference is None or reference.name is None:
        if folder is None:
            raise RepositoryNotNamed(
                "neither a folder nor a full reference inside names a repository. Put the object under <repository>/, "
                "or set DEFAULT_REPOSITORY."
            )
        raise RepositoryNotNamed(
            "objects under _/ go to the repositories that references inside them name, such as "
            "docker.io/team/app:1.0, and here is none. Put the object under <repository>/ instead."
        )
    above = _above_bundle(folder)
    path = repository_path(reference.name, keep_host=settings.keep_registry_host)
    return f"{above}/{path}" if above else path


def _above_bundle(folder: str | None) -> str | None:
    """The folder that holds the bundles; `None` if they are at the top of the bucket."""
    found = _BUNDLES.fullmatch(folder or "_")
    return found["above"] if found else None
