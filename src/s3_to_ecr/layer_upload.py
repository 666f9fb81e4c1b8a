"""One blob's way into ECR: check, initiate, parts in order, complete."""

from __future__ import annotations

from dataclasses import dataclass

from s3_to_ecr.content import Blob, DigestReader
from s3_to_ecr.ecr import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerUpload, Registry
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


@dataclass(frozen=True)
class LayerResult:
    """`uploaded` is false when ECR had the layer before the first byte was sent."""

    digest: str
    uploaded: bool


def upload_layer(registry: Registry, blob: Blob, repository: str, digest: str | None) -> LayerResult:
    """Puts `blob` into `repository` as a layer, unless ECR has it.

    A known `digest` is ECR's to verify; an unknown one is computed from the bytes on their way.
    Raises `EmptyBlob`, `BlobTooLarge`, `DigestMismatch`, `TransferCorrupted`, `UploadLost`, and what `Blob.read` and
    `Registry` raise. Nothing is ever completed under a digest that its bytes do not have.
    """
    if blob.size == 0:
        raise EmptyBlob("the object is empty, and ECR has no empty layers. Upload the file again.")
    if blob.size > MAX_LAYER_BYTES:
        raise BlobTooLarge(f"{blob.size:,} bytes are more than the {MAX_LAYER_BYTES:,} that ECR takes for a layer.")
    if digest:
        availability = registry.layer_availability(repository, digest)
        if availability == "AVAILABLE":
            return LayerResult(digest, uploaded=False)
        if availability == "ARCHIVED":
            logger.warning("ECR has the layer archived; if uploading it is not enough, restore an image that uses it")

    reader = DigestReader(blob, digest)
    uploads = 0
    while True:
        upload = registry.initiate(repository)
        uploads += 1
        logger.append_keys(upload_id=upload.upload_id)
        try:
            _send_parts(registry, upload, reader, blob.size)
            return LayerResult(_complete(registry, upload, reader), uploaded=True)
        except UploadLost as error:
            if uploads == _MAX_UPLOADS:
                raise
            logger.warning("The upload is lost, the layer begins anew", reason=error.reason)


def _send_parts(registry: Registry, upload: LayerUpload, reader: DigestReader, size: int) -> None:
    """Sends all of the blob, each part from the byte on that ECR expects next."""
    parts = -(-size // upload.part_size)
    if parts > MAX_LAYER_PARTS:
        raise BlobTooLarge(
            f"{size:,} bytes are {parts:,} parts of {upload.part_size:,}, and ECR takes {MAX_LAYER_PARTS:,}."
        )
    position = sent = stalls = reported = 0
    while position < size:
        resent = position < reader.furthest
        part = reader.read(position, min(upload.part_size, size - position))
        sent = max(sent, position + len(part))
        receipt = registry.upload_part(upload, position, part)
        if resends := resent + receipt.resends:
            metrics.add_metric("PartsResent", "Count", resends)

        expected = receipt.last_byte + 1
        stalls = 0 if expected > position else stalls + 1
        if stalls > _MAX_STALLS or expected > sent:
            raise UploadLost(
                f"ECR repository {upload.repository} stands at byte {expected:,} of an upload that was sent "
                f"{position:,} to {sent - 1:,}, and does not go on from there."
            )
        position = expected
        percent = position * 100 // size
        if percent >= reported + _PROGRESS_PERCENT:
            reported = percent - percent % _PROGRESS_PERCENT
            logger.info("Uploading the layer", percent=reported, bytes_sent=position, size=size)


def _complete(registry: Registry, upload: LayerUpload, reader: DigestReader) -> str:
    """Ends the upload and returns the layer's digest, which ECR has verified."""
    digest = reader.digest
    try:
        found = registry.complete(upload, digest)
    except UploadLost:
        # An earlier attempt may have completed the layer, and only its answer been lost.
        if registry.layer_availability(upload.repository, digest) == "AVAILABLE":
            return digest
        raise
    except DigestMismatch as error:
        if reader.is_known:
            raise
        raise TransferCorrupted(
            f"ECR refused {digest}, the digest of the bytes that were read: they changed on the way."
        ) from error
    if found != digest:
        kind = DigestMismatch if reader.is_known else TransferCorrupted
        raise kind(f"ECR found the digest {found} where {digest} was expected.")
    return digest
