"""Repositories that are missing when something is pushed to them, and are created as the registry's template says.

A repository with policies takes several calls, and anything may happen between them. A note in the state table says
that it is unfinished. Nothing is pushed to it until it has everything; whoever comes next finishes it first (ADR 13).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TypeVar

from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.ecr.creation_templates import CreationTemplate, template_for
from s3_to_ecr.errors import Rejected, RepositoryMissing, S3ToEcrError, ServiceUnavailable
from s3_to_ecr.state.unfinished_repositories import UnfinishedRepositories
from s3_to_ecr.telemetry.logs import logger

T = TypeVar("T")


class Repositories:
    """The repositories of the `registry`. It `creates` those that are missing, if it may. Threads may share it."""

    def __init__(self, registry: Registry, unfinished: UnfinishedRepositories, *, creates: bool) -> None:
        self.registry = registry
        self._unfinished = unfinished
        self._creates = creates
        self._lock = threading.Lock()
        # What this invocation knows of them.
        self._finished: set[str] = set()
        self._made: set[str] = set()

    def within(self, repository: str, work: Callable[[], T]) -> T:
        """Does the work. If its repository is missing and may be created, creates it and does the work again.

        Raises the reason if the repository cannot have everything that its template says.
        """
        if not self._creates:
            return work()
        with self._lock:
            if repository not in self._finished:
                if self._unfinished.includes(self.registry.scope(repository)):
                    with suppress(RepositoryMissing):  # it has not even been created, or has been deleted
                        self._finish(repository, self._template(repository), created=False)
                self._finished.add(repository)
        try:
            return work()
        except RepositoryMissing:
            with self._lock:
                if repository not in self._made:
                    self._make(repository)
        with _made_just_now():
            return work()

    def _make(self, repository: str) -> None:
        """Creates a repository that is missing."""
        scope = self.registry.scope(repository)
        template = self._template(repository)
        logger.info("Creating the repository", template=template.name)
        self._unfinished.begin(scope)
        self._finished.discard(repository)
        try:
            created = self.registry.create_repository(repository, template.settings)
        except Rejected as error:
            self._unfinished.finish(scope)  # nothing has been begun
            raise error.within(f"with {template.name}") from error
        with _made_just_now():
            self._finish(repository, template, created=created)
        self._made.add(repository)

    def _finish(self, repository: str, template: CreationTemplate, *, created: bool) -> None:
        """Gives a repository everything that its template says, and notes that it has it."""
        try:
            self._set_policies(repository, template, created=created)
        except S3ToEcrError as error:
            raise error.within(
                f"nothing is pushed to ECR repository {repository} until it has all that {template.name} says"
            ) from error
        self._unfinished.finish(self.registry.scope(repository))
        self._finished.add(repository)

    def _set_policies(self, repository: str, template: CreationTemplate, *, created: bool) -> None:
        """Sets the policies. If somebody else may have created the repository, then only those that it lacks."""
        registry = self.registry
        # The repository policy comes last, because it may deny the function's role all further calls of this kind.
        if template.lifecycle_policy and (created or not registry.has_lifecycle_policy(repository)):
            registry.put_lifecycle_policy(repository, template.lifecycle_policy)
        if template.repository_policy and (created or not registry.has_repository_policy(repository)):
            registry.set_repository_policy(repository, template.repository_policy)

    def _template(self, repository: str) -> CreationTemplate:
        return template_for(repository, self._templates)

    @cached_property
    def _templates(self) -> list[CreationTemplate]:
        return self.registry.creation_templates()


@contextmanager
def _made_just_now() -> Iterator[None]:
    """ECR may need a moment until every call finds a repository that was created just now."""
    try:
        yield
    except RepositoryMissing as error:
        raise ServiceUnavailable(
            f"ECR does not know the repository yet that it has just created: {error.reason}"
        ) from error
