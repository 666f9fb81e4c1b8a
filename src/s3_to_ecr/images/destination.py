"""Where in ECR an image goes: the one place that makes repositories and tags of folders and references."""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed
from s3_to_ecr.images.references import Reference
from s3_to_ecr.settings import Settings

# The pattern and lengths of RepositoryName in ECR's service model (ecr/2015-09-21).
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REPOSITORY_NAME_LENGTH = range(2, 256 + 1)


@dataclass(frozen=True)
class Destination:
    """A repository in ECR, and the tag in it, if there is one."""

    repository: str
    tag: str | None = None


def destination(settings: Settings, folder: str | None, reference: Reference | None = None) -> Destination:
    """Where the image that `reference` names goes, if it lies in `folder` (`None` for a key without a folder).

    The folder is the repository. Of the reference only the tag counts. Raises `RepositoryNotNamed`, or
    `InvalidRepositoryName` before ECR has to.
    """
    name = folder if folder is not None else settings.default_repository
    if name is None:
        raise RepositoryNotNamed(
            "the key has no folder to name a repository. Put the object under <repository>/, or set DEFAULT_REPOSITORY."
        )
    repository = settings.repository_prefix + name
    # The folder must be a valid name by itself: the prefix must not make up for one that begins with a slash.
    well_formed = _REPOSITORY_NAME.fullmatch(name) and _REPOSITORY_NAME.fullmatch(repository)
    if not well_formed or len(repository) not in _REPOSITORY_NAME_LENGTH:
        raise InvalidRepositoryName(
            f"{repository!r} is not an ECR repository name. It takes 2 to 256 lower-case letters and digits, "
            "single separators . _ __ - between them, folders with /. Rename the object's folder."
        )
    return Destination(repository, reference.tag if reference else None)
