"""Bringing one blob into ECR as a layer: look for it, lease it, upload it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

from s3_to_ecr.blobs import Blob, PeekedBlob
from s3_to_ecr.ecr.api import LayerAvailability
from s3_to_ecr.errors import RepositoryMissing
from s3_to_ecr.push.layer_upload import LayerUploader
from s3_to_ecr.push.repositories import Repositories
from s3_to_ecr.results import Result
from s3_to_ecr.state.completed_writes import CompletedWrites
from s3_to_ecr.state.leases import Lease, Leases
from s3_to_ecr.telemetry.logs import logger

# How much of a blob is requested to look at its first bytes: ECR's usual part, which is sent next.
_FIRST_REQUEST_BYTES = 10 * 1024 * 1024


class OtherContent(Exception):
    """The blob is not a layer, but what the caller has asked to be told of. Nothing has been done."""


class LayerPusher:
    """Brings each layer into its registry once. What ECR has, the `leases` and the `completed` writes see to that.

    `memory` is the function's, in bytes.
    """

    def __init__(
        self,
        repositories: Repositories,
        uploader: LayerUploader,
        leases: Leases,
        completed: CompletedWrites,
        memory: int,
    ) -> None:
        self._registry = repositories.registry
        self._repositories = repositories
        self._uploader = uploader
        self._leases = leases
        self._completed = completed
        self._memory = memory

    def push(
        self,
        blob: Blob,
        repository: str,
        digest: str | None,
        sequencer: str | None,
        is_other: Callable[[bytes], bool] | None = None,
    ) -> Result:
        """Uploads the blob as a layer, unless that has been done. `sequencer` distinguishes writes to the same key.

        Raises `UploadInProgress` while another invocation is uploading it, and `OutOfTime` if the next one must resume.
        Raises `OtherContent` if the digest is unknown and `is_other` says so of the first bytes. It is asked only when
        they are read anyway.
        """
        if digest is None:
            return self._push_unknown(blob, repository, sequencer, is_other)
        if self._is_available(repository, digest):
            # A repeat, or a layer that arrived in another way: one call finds out, and none to the state table.
            return _result(blob, repository, digest, skipped_because="ECR has the layer")
        return self.push_missing(blob, repository, digest, self._memory)

    def push_missing(self, blob: Blob, repository: str, digest: str, memory: int) -> Result:
        """Uploads a layer that ECR did not have a moment ago, in a share of `memory` bytes."""
        with self._leases.layer(self._registry.scope(repository), digest) as lease:
            if lease.held_before and self._is_available(repository, digest):
                result = _result(blob, repository, digest, skipped_because="ECR has just got the layer")
            else:
                result = self._upload(blob, repository, digest, lease, memory)
            lease.progress = None
            return result

    def _push_unknown(
        self, blob: Blob, repository: str, sequencer: str | None, is_other: Callable[[bytes], bool] | None
    ) -> Result:
        """Uploads a layer whose digest nobody knows before it has been read."""
        registry_id, _ = scope = self._registry.scope(repository)
        with self._leases.layer(scope, blob.identity) as lease:
            identity = {
                "object": blob.identity,
                # Left out where it is not needed: a backfill has none, and must not repeat what an event has done.
                "sequencer": None if blob.is_one_version else sequencer,
                "registry": registry_id,
                "repository": repository,
            }
            # If some of it has been sent, it has been looked at.
            look = is_other if blob.size and not lease.progress else None
            upload = partial(self._upload_if_layer, blob, repository, lease, look)
            result = self._completed.run(identity, upload, self._still_exists)
            # Only now, because until the result is recorded, the progress says that everything else is done.
            lease.progress = None
            return result

    def _upload_if_layer(
        self, blob: Blob, repository: str, lease: Lease, is_other: Callable[[bytes], bool] | None
    ) -> Result:
        """Uploads the blob. Raises `OtherContent` before that if its first bytes say so."""
        if is_other is None:
            return self._upload(blob, repository, None, lease, self._memory)
        with closing(PeekedBlob(blob, _FIRST_REQUEST_BYTES)) as peeked:
            if is_other(peeked.start):
                raise OtherContent
            return self._upload(peeked, repository, None, lease, self._memory)

    def _upload(self, blob: Blob, repository: str, digest: str | None, lease: Lease, memory: int) -> Result:
        """Uploads the blob. Creates the repository first if it is missing and may be created."""
        upload = partial(self._uploader.upload, blob, repository, digest, lease, memory)
        return _result(blob, repository, self._repositories.within(repository, upload))

    def _is_available(self, repository: str, digest: str) -> bool:
        """Whether ECR has the layer ready to be pulled, so that there is nothing to do."""
        availability = self._availability(repository, digest)
        if availability == "ARCHIVED":
            logger.warning(
                "ECR has archived this layer. It is uploaded again. If it stays archived, restore an image that uses it"
            )
        return availability == "AVAILABLE"

    def _still_exists(self, result: Result) -> bool:
        """Whether the layer of an earlier result still exists where it was put."""
        return self._availability(str(result["repository"]), str(result["digest"])) != "UNAVAILABLE"

    def _availability(self, repository: str, digest: str) -> LayerAvailability:
        """What ECR has of a layer. If the repository is missing, so is the layer."""
        try:
            return self._registry.layer_availability(repository, [digest])[digest]
        except RepositoryMissing:
            return "UNAVAILABLE"


def _result(blob: Blob, repository: str, digest: str, skipped_because: str | None = None) -> Result:
    """The answer for a layer: uploaded, or skipped for a reason."""
    return Result(
        bucket=blob.bucket,
        key=blob.key,
        action="skipped" if skipped_because else "uploaded",
        repository=repository,
        digest=digest,
        size=blob.size,
        reason=skipped_because,
    )
