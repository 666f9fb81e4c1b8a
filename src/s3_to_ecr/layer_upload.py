"""One blob's way into ECR: initiate, parts in order, complete."""

from __future__ import annotations

from contextlib import closing

from s3_to_ecr.content import Blob, RunningDigest, read_ahead
from s3_to_ecr.ecr import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerPart, LayerUpload, Registry, base64_bytes
from s3_to_ecr.errors import (
    BlobTooLarge,
    DigestMismatch,
    EmptyBlob,
    TransferCorrupted,
    UploadLost,
)
from s3_to_ecr.telemetry import logger, metrics

# How often a layer is begun anew in one invocation after ECR forgot its upload, and how often in a row ECR may refuse
# a part without taking a byte. Both are rare; past these, the queue's patience is better than ours.
_MAX_UPLOADS = 3
_MAX_STALLS = 3

_PROGRESS_PERCENT = 10

# Of the function's memory, parts may take an eighth; the SDK and its imports take most of the rest in a small one. One
# part is being sent, one at least is being read; more than two ahead would only wait, as S3 answers sooner than ECR.
_PARTS_SHARE = 8
_FEWEST_PARTS, _MOST_PARTS = 2, 3


def upload_layer(registry: Registry, blob: Blob, repository: str, digest: str | None, memory: int) -> str:
    """Puts `blob` into `repository` as a layer, and returns the layer's digest.

    A known `digest` is ECR's to verify; an unknown one is computed from the bytes on their way. Of the function's
    `memory`, in bytes, a share holds the parts that are read ahead.
    Raises `EmptyBlob`, `BlobTooLarge`, `DigestMismatch`, `TransferCorrupted`, `UploadLost`, and what `Blob.read` and
    `Registry` raise. Nothing is ever completed under a digest that its bytes do not have.
    """
    if blob.size == 0:
        raise EmptyBlob("the object is empty, and ECR has no empty layers. Upload the file again.")
    if blob.size > MAX_LAYER_BYTES:
        raise BlobTooLarge(f"{blob.size:,} bytes are more than the {MAX_LAYER_BYTES:,} that ECR takes for a layer.")
    running_digest = None if digest else RunningDigest()
    sending = _Sending(registry, blob.size)
    uploads = 0
    while True:
        upload = registry.initiate(repository)
        uploads += 1
        logger.append_keys(upload_id=upload.upload_id)
        sending.begin(upload)
        try:
            _send_parts(sending, blob, running_digest, _parts_in_memory(memory, upload.part_size))
            return _complete(registry, upload, digest or str(running_digest), computed=digest is None)
        except UploadLost as error:
            if uploads == _MAX_UPLOADS:
                raise
            logger.warning("The upload is lost, the layer begins anew", reason=error.reason)


def _parts_in_memory(memory: int, part_size: int) -> int:
    """How many parts of that size the memory has room for. Both are in bytes."""
    return max(_FEWEST_PARTS, min(_MOST_PARTS, memory // _PARTS_SHARE // base64_bytes(part_size)))


def _send_parts(sending: _Sending, blob: Blob, running_digest: RunningDigest | None, most: int) -> None:
    """Sends all of the blob, `most` parts being in memory at a time."""
    while sending.position < blob.size:
        starts = range(sending.position, blob.size, sending.upload.part_size)
        with closing(read_ahead(blob, starts, sending.part, running_digest, most)) as parts:
            for part in parts:
                sending.send(part)
                if sending.position != part.end:
                    break  # ECR stands elsewhere: what has been read ahead is not what comes next


class _Sending:
    """How far a layer is in its `upload`: `position` is the byte that ECR expects next."""

    upload: LayerUpload

    def __init__(self, registry: Registry, size: int) -> None:
        self._registry = registry
        self._size = size
        self._furthest = 0  # in any upload

    def begin(self, upload: LayerUpload) -> None:
        """Begins a new upload. Raises `BlobTooLarge` when the layer has more parts than ECR takes."""
        parts = -(-self._size // upload.part_size)
        if parts > MAX_LAYER_PARTS:
            raise BlobTooLarge(
                f"{self._size:,} bytes are {parts:,} parts of {upload.part_size:,}, and ECR takes {MAX_LAYER_PARTS:,}."
            )
        self.upload = upload
        self.position = self._sent = self._stalls = self._reported = 0

    def part(self, first_byte: int, length: int, used: LayerPart | None) -> LayerPart:
        """A part of the upload, to be written."""
        return self._registry.part(self.upload, first_byte, length, used)

    def send(self, part: LayerPart) -> None:
        """Sends the part at the position, and moves on to where ECR stands then."""
        resent = part.first_byte < self._furthest
        self._furthest = max(self._furthest, part.end)
        self._sent = max(self._sent, part.end)
        receipt = self._registry.upload_part(self.upload, part)
        if resends := resent + receipt.resends:
            metrics.add_metric("PartsResent", "Count", resends)

        expected = receipt.last_byte + 1
        self._stalls = 0 if expected > self.position else self._stalls + 1
        if self._stalls > _MAX_STALLS or expected > self._sent:
            raise UploadLost(
                f"ECR repository {self.upload.repository} stands at byte {expected:,} of an upload that was sent "
                f"{part.first_byte:,} to {self._sent - 1:,}, and does not go on from there."
            )
        self.position = expected
        self._tell_progress()

    def _tell_progress(self) -> None:
        percent = self.position * 100 // self._size
        if percent >= self._reported + _PROGRESS_PERCENT:
            self._reported = percent - percent % _PROGRESS_PERCENT
            logger.info("Uploading the layer", percent=self._reported, bytes_sent=self.position, size=self._size)


def _complete(registry: Registry, upload: LayerUpload, digest: str, *, computed: bool) -> str:
    """Ends the upload and returns the layer's digest, which ECR has verified."""
    try:
        found = registry.complete(upload, digest)
    except UploadLost:
        # An earlier attempt may have completed the layer, and only its answer been lost.
        if registry.layer_availability(upload.repository, digest) == "AVAILABLE":
            return digest
        raise
    except DigestMismatch as error:
        if not computed:
            raise
        raise TransferCorrupted(
            f"ECR refused {digest}, the digest of the bytes that were read: they changed on the way."
        ) from error
    if found != digest:
        kind = TransferCorrupted if computed else DigestMismatch
        raise kind(f"ECR found the digest {found} where {digest} was expected.")
    return digest
