"""One object as a layer in ECR: looked for, leased, uploaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from s3_to_ecr.aws.ecr import LayerAvailability, Registry
from s3_to_ecr.aws.s3 import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import RepositoryMissing, ServiceUnavailable
from s3_to_ecr.layouts.jobs import Result, UploadLayer
from s3_to_ecr.push.layer_upload import upload_layer
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.completed_writes import Once
from s3_to_ecr.state.leases import Lease, Ledger
from s3_to_ecr.telemetry.logs import logger

T = TypeVar("T")


class LayerMirror:
    """Brings layers into the `registry`, each once: by what ECR has, by the `ledger`, and by `once` for the rest."""

    def __init__(self, registry: Registry, ledger: Ledger, once: Once, deadline: Deadline, settings: Settings) -> None:
        self._registry = registry
        self._ledger = ledger
        self._once = once
        self._deadline = deadline
        self._settings = settings

    def upload(self, blob: Blob, job: UploadLayer, sequencer: str | None) -> Result:
        """Uploads the blob as a layer, unless it has been. The event's `sequencer` tells writes to one key apart.

        Raises `UploadInProgress` while another invocation is at it, `OutOfTime` when another is to go on, and what
        `Ledger.lease`, `Once.run` and `upload_layer` raise.
        """
        if job.digest is None:
            return self._upload_once(blob, job, sequencer)
        if self._is_available(job.repository, job.digest):
            # A repeat, or a layer that came another way: known with one call, and none to the state table.
            return _result(blob, job, job.digest, skipped_because="ECR has the layer")
        return self.upload_missing(blob, job.repository, job.digest, self._settings.memory)

    def upload_missing(self, blob: Blob, repository: str, digest: str, memory: int) -> Result:
        """Uploads a layer that ECR did not have a moment ago, in a share of `memory` bytes. Raises as `upload`."""
        job = UploadLayer(repository, digest)
        with self._ledger.lease(self._settings.registry_id, repository, digest) as lease:
            if lease.held_before and self._is_available(repository, digest):
                result = _result(blob, job, digest, skipped_because="ECR has got the layer just now")
            else:
                result = self._upload(blob, job, lease, memory)
            lease.progress = None
            return result

    def _upload_once(self, blob: Blob, job: UploadLayer, sequencer: str | None) -> Result:
        """Uploads a layer whose digest nobody knows before it is read."""
        with self._ledger.lease(self._settings.registry_id, job.repository, blob.identity) as lease:
            identity = {
                "object": blob.identity,
                # Only where it must be: a backfill has none, and is not to do again what an event has done.
                "sequencer": None if blob.is_one_version else sequencer,
                "registry": self._settings.registry_id,
                "repository": job.repository,
            }
            result = self._once.run(
                identity, lambda: self._upload(blob, job, lease, self._settings.memory), self._is_there
            )
            # Not before the result is written down: until then, the progress says that all but that is done.
            lease.progress = None
            return result

    def in_repository(self, repository: str, work: Callable[[], T]) -> T:
        """Does the work; if the repository for it is missing, and may be made, it is made and the work done again."""
        try:
            return work()
        except RepositoryMissing:
            if not self._settings.create_repositories:
                raise
        logger.info("Creating the repository")
        self._registry.create_repository(repository)
        try:
            return work()
        except RepositoryMissing as error:
            raise ServiceUnavailable(f"ECR has just made the repository and does not know it yet: {error}") from error

    def _upload(self, blob: Blob, job: UploadLayer, lease: Lease, memory: int) -> Result:
        """Uploads the blob, into a repository made for it if need be and allowed."""
        upload = partial(upload_layer, self._registry, blob, job, lease, self._deadline, memory)
        return _result(blob, job, self.in_repository(job.repository, upload))

    def _is_available(self, repository: str, digest: str) -> bool:
        """Whether ECR has the layer to be pulled, so that nothing is to be done."""
        availability = self._availability(repository, digest)
        if availability == "ARCHIVED":
            logger.warning("ECR has the layer archived; if uploading it is not enough, restore an image that uses it")
        return availability == "AVAILABLE"

    def _is_there(self, result: Result) -> bool:
        """Whether the layer of an earlier result is still where it was put."""
        return self._availability(str(result["repository"]), str(result["digest"])) != "UNAVAILABLE"

    def _availability(self, repository: str, digest: str) -> LayerAvailability:
        """What ECR has of a layer: nothing, where the repository itself is missing."""
        try:
            return self._registry.layer_availability(repository, [digest])[digest]
        except RepositoryMissing:
            return "UNAVAILABLE"


def _result(blob: Blob, job: UploadLayer, digest: str, skipped_because: str | None = None) -> Result:
    """The answer for a layer that was uploaded; or skipped, for a reason."""
    return Result(
        bucket=blob.bucket,
        key=blob.key,
        action="skipped" if skipped_because else "uploaded",
        repository=job.repository,
        digest=digest,
        size=blob.size,
        reason=skipped_because,
    )
