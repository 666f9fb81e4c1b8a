"""The function's configuration, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed

# The pattern and lengths of RepositoryName in ECR's service model (ecr/2015-09-21).
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REPOSITORY_NAME_LENGTH = range(2, 256 + 1)

_MIB = 1024 * 1024

# The template's, for where the code runs without Lambda to say.
_DEFAULT_MEMORY_MIB = 1024


class SettingsError(ValueError):
    """The deployment itself is misconfigured. Raised while the function starts, before any event."""


@dataclass(frozen=True)
class Settings:
    """What the contract's environment variables say, unset and empty meaning the same, and how much `memory` there is.

    Memory is in bytes, and Lambda's to say.
    """

    state_table: str
    registry_id: str | None = None
    key_prefix: str = ""
    repository_prefix: str = ""
    default_repository: str | None = None
    create_repositories: bool = False
    queue_url: str | None = None
    dead_letter_queue_url: str | None = None
    memory: int = _DEFAULT_MEMORY_MIB * _MIB

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the settings; raises `SettingsError` when one is missing or cannot be."""
        state_table = environment.get("STATE_TABLE")
        if not state_table:
            raise SettingsError("STATE_TABLE is not set: name the DynamoDB table that holds the function's state.")
        registry_id = environment.get("ECR_REGISTRY_ID") or None
        if registry_id and not re.fullmatch(r"[0-9]{12}", registry_id):
            raise SettingsError(f"ECR_REGISTRY_ID is {registry_id!r}: it takes the 12 digits of an AWS account.")
        create_repositories = environment.get("CREATE_REPOSITORIES") or "false"
        if create_repositories not in ("true", "false"):
            raise SettingsError(f"CREATE_REPOSITORIES is {create_repositories!r}: it takes true or false.")
        memory = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or str(_DEFAULT_MEMORY_MIB)
        if not memory.isdecimal():
            raise SettingsError(f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE is {memory!r}: it takes a number of MB.")
        return cls(
            state_table=state_table,
            registry_id=registry_id,
            key_prefix=environment.get("KEY_PREFIX", ""),
            repository_prefix=environment.get("REPOSITORY_PREFIX", ""),
            default_repository=environment.get("DEFAULT_REPOSITORY") or None,
            create_repositories=create_repositories == "true",
            queue_url=environment.get("QUEUE_URL") or None,
            dead_letter_queue_url=environment.get("DEAD_LETTER_QUEUE_URL") or None,
            memory=int(memory) * _MIB,
        )

    def target_repository(self, folder: str | None) -> str:
        """The ECR repository that a key's folder stands for, `None` being a key with no folder.

        Raises `RepositoryNotNamed`, or `InvalidRepositoryName` before ECR has to.
        """
        name = folder if folder is not None else self.default_repository
        if name is None:
            raise RepositoryNotNamed(
                "the key has no folder to name a repository. Put the object under <repository>/, "
                "or set DEFAULT_REPOSITORY."
            )
        repository = self.repository_prefix + name
        # The folder has to be a name on its own, too: a prefix must not make up for one that begins with a slash.
        well_formed = _REPOSITORY_NAME.fullmatch(name) and _REPOSITORY_NAME.fullmatch(repository)
        if not well_formed or len(repository) not in _REPOSITORY_NAME_LENGTH:
            raise InvalidRepositoryName(
                f"{repository!r} is not an ECR repository name: 2 to 256 characters, lower-case letters and digits, "
                "single separators . _ __ - between them, folders with /. Rename the object's folder."
            )
        return repository
