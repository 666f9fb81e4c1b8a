"""One object as a layer in ECR: looked for, leased, uploaded."""

from __future__ import annotations

from s3_to_ecr.content import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr import LayerAvailability, Registry
from s3_to_ecr.errors import RepositoryMissing, ServiceUnavailable
from s3_to_ecr.jobs import Result, UploadLayer
from s3_to_ecr.layer_upload import upload_layer
from s3_to_ecr.ledger import Lease, Ledger
from s3_to_ecr.once import Once
from s3_to_ecr.settings import Settings
from s3_to_ecr.telemetry import logger


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
        if job.digest and self._is_available(job.repository, job.digest):
            # A repeat, or a layer that came another way: known with one call, and none to the state table.
            return _result(blob, job, job.digest, skipped_because="ECR has the layer")
        with self._ledger.lease(self._settings.registry_id, job.repository, job.digest or blob.identity) as lease:
            if job.digest is None:
                identity = {
                    "object": blob.identity,
                    # Only where it must be: a backfill has none, and is not to do again what an event has done.
                    "sequencer": None if blob.is_one_version else sequencer,
                    "registry": self._settings.registry_id,
                    "repository": job.repository,
                }
                result = self._once.run(identity, lambda: self._upload(blob, job, lease), self._is_there)
            elif lease.held_before and self._is_available(job.repository, job.digest):
                result = _result(blob, job, job.digest, skipped_because="ECR has got the layer just now")
            else:
                result = self._upload(blob, job, lease)
            # Not before the result is written down: until then, the progress says that all but that is done.
            lease.progress = None
            return result

    def _upload(self, blob: Blob, job: UploadLayer, lease: Lease) -> Result:
        """Uploads the blob, into a repository made for it if need be and allowed."""
        try:
            digest = self._upload_layer(blob, job, lease)
        except RepositoryMissing:
            if not self._settings.create_repositories:
                raise
            logger.info("Creating the repository")
            self._registry.create_repository(job.repository)
            try:
                digest = self._upload_layer(blob, job, lease)
            except RepositoryMissing as error:
                raise ServiceUnavailable(
                    f"ECR has just made the repository and does not know it yet: {error}"
                ) from error
        return _result(blob, job, digest)

    def _upload_layer(self, blob: Blob, job: UploadLayer, lease: Lease) -> str:
        return upload_layer(self._registry, blob, job, lease, self._deadline, self._settings.memory)

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
            return self._registry.layer_availability(repository, digest)
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
