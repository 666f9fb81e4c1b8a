"""Uploading one blob to ECR as a layer: initiate, send the parts in order, complete."""

from __future__ import annotations

from contextlib import closing

from s3_to_ecr.blobs import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerUpload, Registry
from s3_to_ecr.ecr.layer_part import LayerPart, base64_bytes
from s3_to_ecr.errors import BlobTooLarge, DigestMismatch, EmptyBlob, TransferCorrupted, UploadLost
from s3_to_ecr.push.position import Position
from s3_to_ecr.push.read_ahead import RunningDigest, read_ahead
from s3_to_ecr.state.leases import Lease, Progress
from s3_to_ecr.telemetry.logs import log_with, logger
from s3_to_ecr.telemetry.metrics import count
from s3_to_ecr.telemetry.outcomes import Outcomes

# How often one invocation starts a layer if ECR keeps forgetting its uploads. This is rare, and past it the queue has
# more patience than we do.
_MAX_UPLOADS = 3

_LOGGED_PERCENT = 10

# What completing a large layer may take. Nobody has published how long ECR needs to verify one.
_COMPLETING_SECONDS = 5

# How long to look for a layer that an earlier call may have completed, before it is sent again. That is dear, and the
# time that ECR takes may depend on the layer's size.
_VISIBLE_SECONDS = 30
_COMPLETED_BYTES_A_SECOND = 100_000_000
_POLL_SECONDS = 2

_ZOT = (
    " If the registry zot wrote it, it is a deduplicated blob, and its bytes are in another repository's folder. Set "
    '"dedupe": false in zot\'s storage and restart it: it then writes them here.'
)

# Parts may take an eighth of the function's memory; in a small one the SDK and its imports take most of the rest. One
# part is being sent and at least one is being read. More than two ahead would only wait, because S3 is faster than ECR.
PARTS_SHARE = 8
FEWEST_PARTS, _MOST_PARTS = 2, 3


class LayerUploader:
    """Uploads layers to the `registry` until the `deadline`, and tells `outcomes` when it gets further."""

    def __init__(self, registry: Registry, deadline: Deadline, outcomes: Outcomes) -> None:
        self._registry = registry
        self._deadline = deadline
        self._outcomes = outcomes

    def upload(self, blob: Blob, repository: str, digest: str | None, lease: Lease, memory: int) -> str:
        """Puts `blob` into the repository as a layer, and returns the layer's digest.

        ECR verifies a known digest; an unknown one is computed from the bytes as they pass. A share of the function's
        `memory`, in bytes, holds the parts that are read ahead.
        Resumes the upload recorded in `lease`, if there is one. Whatever happens, the lease's progress is up to date at
        the end. After a success the caller clears it, once the result has been recorded.
        Nothing is ever completed under a digest that its bytes do not have.
        """
        if blob.size == 0:
            raise EmptyBlob(
                "the object is empty, and ECR has no empty layers. Upload the file again." + (_ZOT if digest else "")
            )
        if blob.size > MAX_LAYER_BYTES:
            raise BlobTooLarge(
                f"{blob.size:,} bytes are more than the {MAX_LAYER_BYTES:,} that ECR accepts for a layer."
            )
        layer = _Layer(self._registry, repository, blob.size, digest, lease, self._outcomes)
        running_digest = None if layer.digest else RunningDigest()
        uploads_left = _MAX_UPLOADS
        while True:
            uploads_left -= 1
            try:
                self._deadline.require("the layer")
                if not layer.resume():
                    layer.initiate()
                self._send_parts(layer, blob, running_digest, memory)
                layer.finish_parts(str(running_digest) if running_digest else None)
                # Defer completion only if this invocation sent something: then the next one will have the time.
                self._deadline.require("completing the layer", _COMPLETING_SECONDS if layer.has_advanced else 0)
                return layer.complete(self._deadline) or self._await_completion(layer)
            except UploadLost as error:
                # Earlier the layer may have been completed and only the answer lost, or another invocation did it.
                if layer.is_available():
                    return str(layer.digest)
                lease.progress = None
                if not uploads_left:
                    raise
                lease.save()  # fails if another invocation now holds the lease
                logger.warning("The upload is lost, starting the layer again", reason=error.reason)

    def _await_completion(self, layer: _Layer) -> str:
        """Waits until ECR shows the layer, which an earlier call may have completed. Returns the layer's digest.

        Raises `UploadLost` if it does not, and `OutOfTime` to leave the wait to the next invocation.
        """
        logger.info("Waiting for ECR to complete the layer")
        patience = _VISIBLE_SECONDS + layer.position.size / _COMPLETED_BYTES_A_SECOND
        if not layer.has_advanced:
            # The next invocation would have no more time for it. Half of this one's is left to start again.
            patience = min(patience, self._deadline.seconds_to_spare() / 2)
        last = self._deadline.seconds_left() - patience
        while not layer.is_available():
            if self._deadline.seconds_left() <= last:
                raise UploadLost(
                    f"ECR did not show {layer.digest} within {patience:.0f} s after an earlier call to complete it."
                )
            self._deadline.pause(_POLL_SECONDS, "ECR to complete the layer")
            layer.renew_lease()
        return str(layer.digest)

    def _send_parts(self, layer: _Layer, blob: Blob, running_digest: RunningDigest | None, memory: int) -> None:
        """Sends all of the blob that ECR does not have yet, reading parts ahead as far as there is memory."""
        part_size = layer.upload.part_size
        most = _parts_in_memory(memory, part_size)
        pace = self._deadline.pace("the next part")
        while (position := layer.position.next_byte) < blob.size:
            if running_digest:
                self._hash_up_to(position, running_digest, blob, layer)
            starts = range(position, blob.size, part_size)
            with closing(read_ahead(blob, starts, layer.part, running_digest, most, pace)) as parts:
                for part in parts:
                    with pace.step():
                        layer.send(part)
                    if layer.position.next_byte != part.end:
                        break  # ECR expects another byte, so what has been read ahead is of no use
        if running_digest:
            self._hash_up_to(blob.size, running_digest, blob, layer)

    def _hash_up_to(self, end: int, running_digest: RunningDigest, blob: Blob, layer: _Layer) -> None:
        """Reads the blob's bytes up to `end` for the digest only: an earlier invocation has sent them."""
        starts = range(running_digest.length, end, layer.upload.part_size)
        pace = self._deadline.pace("reading again, for the digest, what was sent before")
        with closing(read_ahead(blob, starts, lambda *_: _Unsent(), running_digest, FEWEST_PARTS, pace)) as parts:
            for _ in starts:
                with pace.step():
                    next(parts)
                layer.renew_lease()


def _parts_in_memory(memory: int, part_size: int) -> int:
    """How many parts of that size the memory has room for. Both are in bytes."""
    return max(FEWEST_PARTS, min(_MOST_PARTS, memory // PARTS_SHARE // base64_bytes(part_size)))


class _Unsent:
    """Takes the bytes of a part that ECR already has, and drops them."""

    def write(self, chunk: bytes) -> None:
        pass


class _Layer:
    """One layer on its way: its `position`, its current `upload`, and its `digest` once that is known.

    Each method is one step of ECR's protocol, and keeps the progress in the `lease` up to date.
    """

    upload: LayerUpload

    def __init__(
        self, registry: Registry, repository: str, size: int, digest: str | None, lease: Lease, outcomes: Outcomes
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._lease = lease
        self._outcomes = outcomes
        self._resumed = self._was_all_sent = False
        self._computes_digest = digest is None
        progress = lease.progress
        # An earlier invocation may have got so far as to compute an unknown digest.
        self.digest = digest or (progress.digest if progress else None)
        self.position = Position(size)
        self._at_first = (progress.position if progress else 0), self.digest

    def resume(self) -> bool:
        """Takes up the upload recorded in the lease. `False` if there is none."""
        progress = self._lease.progress
        self._resumed = progress is not None
        # Then whoever sent the last part may have completed the upload, too.
        self._was_all_sent = progress is not None and progress.position == self.position.size
        if progress is None:
            return False
        self.position.resume(progress.position)
        self._use(LayerUpload(self._repository, progress.upload_id, progress.part_size))
        self._log("Resuming the upload")
        return True

    def initiate(self) -> None:
        """InitiateLayerUpload. Raises `BlobTooLarge` if the layer has more parts than ECR accepts."""
        self.position.start()
        self._use(self._registry.initiate(self._repository))
        size, part_size = self.position.size, self.upload.part_size
        parts = -(-size // part_size)
        if parts > MAX_LAYER_PARTS:
            raise BlobTooLarge(
                f"{size:,} bytes are {parts:,} parts of {part_size:,}, and ECR accepts {MAX_LAYER_PARTS:,}."
            )
        self._note_progress()
        self._save_progress()

    def part(self, first_byte: int, length: int, used: LayerPart | None) -> LayerPart:
        """A part of the upload, to be written."""
        return self._registry.part(self.upload, first_byte, length, used)

    def send(self, part: LayerPart) -> None:
        """UploadLayerPart for the part at the position, which then moves to where ECR says it stands."""
        percent_before = self.position.percent
        sent_before = self.position.send(part.first_byte, part.end)
        receipt = self._registry.upload_part(self.upload, part)
        expected = receipt.last_byte + 1
        if resends := sent_before + receipt.resends:
            count("PartsResent", resends)
        if not self.position.move_to(expected):
            raise UploadLost(
                f"ECR repository {self._repository} stands at byte {expected:,} of an upload to which bytes "
                f"{part.first_byte:,} to {self.position.sent - 1:,} were sent, and gets no further."
            )
        self._note_progress()
        self.renew_lease()
        if self.position.percent // _LOGGED_PERCENT > percent_before // _LOGGED_PERCENT:
            self._log("Uploading the layer")

    def renew_lease(self) -> None:
        """Renews the lease if it is time to."""
        self._lease.renew()

    def finish_parts(self, digest: str | None) -> None:
        """Records that all parts were sent, and the `digest` if it had to be computed.

        This comes before the upload is completed, by this invocation or another one.
        """
        self.digest = self.digest or digest
        self._note_progress()
        self._save_progress()

    def complete(self, deadline: Deadline) -> str | None:
        """CompleteLayerUpload. Returns the layer's digest, which ECR has verified.

        `None` if the layer may have been completed before, so that ECR's answer means nothing.
        """
        digest = str(self.digest)
        try:
            found = self._registry.complete(self.upload, digest, deadline, again=self._was_all_sent)
        except DigestMismatch as error:
            if self._resumed:
                # The earlier parts may belong to another object, which did not have the digest that its key named.
                raise UploadLost(f"ECR refused {digest} for bytes that earlier invocations sent in part.") from error
            self._lease.progress = None
            if not self._computes_digest:
                raise
            raise TransferCorrupted(
                f"ECR refused {digest}, the digest of the bytes that were read: they changed on the way."
            ) from error
        if found not in (digest, None):
            self._lease.progress = None
            kind = TransferCorrupted if self._computes_digest else DigestMismatch
            raise kind(f"ECR found the digest {found} where {digest} was expected.")
        return found

    def is_available(self) -> bool:
        """Whether ECR has the layer after all. Without a known digest nobody can tell."""
        if not self.digest:
            return False
        return self._registry.layer_availability(self._repository, [self.digest])[self.digest] == "AVAILABLE"

    @property
    def has_advanced(self) -> bool:
        """Whether ECR has more of the layer, or the lease its digest, than at the start of this invocation."""
        position, digest = self._at_first
        return self.position.next_byte > position or self.digest != digest

    def _use(self, upload: LayerUpload) -> None:
        self.upload = upload
        log_with(upload_id=upload.upload_id)

    def _note_progress(self) -> None:
        digest = self.digest if self._computes_digest else None
        self._lease.progress = Progress(self.upload.upload_id, self.upload.part_size, self.position.next_byte, digest)
        if self.has_advanced:
            self._outcomes.progressed = True

    def _save_progress(self) -> None:
        if self.position.size > self.upload.part_size:  # a single part is not worth the call
            self._lease.save()

    def _log(self, message: str) -> None:
        position = self.position
        logger.info(message, percent=position.percent, bytes_sent=position.next_byte, size=position.size)
