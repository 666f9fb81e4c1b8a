"""Repository creation templates: what an organisation wants new repositories to be like.

ECR applies them to repositories that it creates itself. It does not for CreateRepository, so the function does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Applies where no other template does.
_ROOT = "ROOT"

_CREATE_ON_PUSH = "CREATE_ON_PUSH"

# What a template says in the words of CreateRepository, by its own word.
_SETTINGS = {
    "encryptionConfiguration": "encryptionConfiguration",
    "imageTagMutability": "imageTagMutability",
    "imageTagMutabilityExclusionFilters": "imageTagMutabilityExclusionFilters",
    "resourceTags": "tags",
}


@dataclass(frozen=True)
class CreationTemplate:
    """What a new repository gets. The `settings` are members of CreateRepository, the policies JSON.

    Without arguments, it stands for ECR's defaults.
    """

    prefix: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lifecycle_policy: str | None = None
    repository_policy: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the creation template {self.prefix}" if self.prefix else "ECR's defaults"

    @property
    def folder(self) -> str:
        """What the names of its repositories begin with. ECR takes a prefix for a folder, with or without a slash."""
        return f"{self.prefix.rstrip('/')}/" if self.prefix and self.prefix != _ROOT else ""


def parse_template(described: Mapping[str, Any]) -> CreationTemplate | None:
    """A template as DescribeRepositoryCreationTemplates gives it; `None` if it is not for `CREATE_ON_PUSH`."""
    if _CREATE_ON_PUSH not in described.get("appliedFor", []):
        return None
    settings = {ours: described[theirs] for theirs, ours in _SETTINGS.items() if described.get(theirs)}
    if encryption := settings.get("encryptionConfiguration"):
        # A template may have an empty key, CreateRepository may not: both mean ECR's own key.
        settings["encryptionConfiguration"] = {name: value for name, value in encryption.items() if value}
    return CreationTemplate(
        prefix=described["prefix"],
        settings=settings,
        lifecycle_policy=described.get("lifecyclePolicy") or None,
        repository_policy=described.get("repositoryPolicy") or None,
    )


def template_for(repository: str, templates: Iterable[CreationTemplate]) -> CreationTemplate:
    """The template with the longest matching prefix, or ECR's defaults."""
    matching = [template for template in templates if repository.startswith(template.folder)]
    return max(matching, key=lambda template: len(template.folder), default=CreationTemplate())
