"""The function's configuration, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_MIB = 1024 * 1024

# The template's default, for when the code runs outside Lambda.
_DEFAULT_MEMORY_MIB = 1024


class SettingsError(ValueError):
    """The deployment itself is misconfigured. This is raised while the function starts, before any event."""


@dataclass(frozen=True)
class Settings:
    """What the environment variables say; an empty one counts as unset. `memory` is the function's, in bytes."""

    state_table: str
    registry_id: str | None = None
    key_prefix: str = ""
    repository_prefix: str = ""
    default_repository: str | None = None
    create_repositories: bool = False
    keep_registry_host: bool = False
    queue_url: str | None = None
    dead_letter_queue_url: str | None = None
    outcome_bus: str | None = None
    memory: int = _DEFAULT_MEMORY_MIB * _MIB

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the settings. Raises `SettingsError` if one is missing or invalid."""
        state_table = environment.get("STATE_TABLE")
        if not state_table:
            raise SettingsError("STATE_TABLE is not set. Set it to the DynamoDB table that holds the function's state.")
        registry_id = environment.get("ECR_REGISTRY_ID") or None
        if registry_id and not re.fullmatch(r"[0-9]{12}", registry_id):
            raise SettingsError(f"ECR_REGISTRY_ID is {registry_id!r}: it takes the 12 digits of an AWS account.")
        memory = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or str(_DEFAULT_MEMORY_MIB)
        if not memory.isdecimal():
            raise SettingsError(f"AWS_LAMBDA_FUNCTION_MEMORY_SIZE is {memory!r}: it takes a number of MB.")
        return cls(
            state_table=state_table,
            registry_id=registry_id,
            key_prefix=environment.get("KEY_PREFIX", ""),
            repository_prefix=environment.get("REPOSITORY_PREFIX", ""),
            default_repository=environment.get("DEFAULT_REPOSITORY") or None,
            create_repositories=_flag(environment, "CREATE_REPOSITORIES"),
            keep_registry_host=_flag(environment, "KEEP_REGISTRY_HOST"),
            queue_url=environment.get("QUEUE_URL") or None,
            dead_letter_queue_url=environment.get("DEAD_LETTER_QUEUE_URL") or None,
            outcome_bus=environment.get("OUTCOME_BUS") or None,
            memory=int(memory) * _MIB,
        )


def _flag(environment: Mapping[str, str], name: str) -> bool:
    """A variable that is true or false; false if it is unset."""
    value = environment.get(name) or "false"
    if value not in ("true", "false"):
        raise SettingsError(f"{name} is {value!r}: it takes true or false.")
    return value == "true"
