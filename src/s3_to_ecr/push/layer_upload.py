"""One blob's way into ECR: initiate, parts in order, complete."""

from __future__ import annotations

from contextlib import closing

from s3_to_ecr.aws.ecr import MAX_LAYER_BYTES, MAX_LAYER_PARTS, LayerUpload, Registry
from s3_to_ecr.aws.ecr_part import LayerPart, base64_bytes
from s3_to_ecr.aws.s3 import Blob
from s3_to_ecr.deadline import Deadline, Pace
from s3_to_ecr.errors import (
    BlobTooLarge,
    DigestMismatch,
    EmptyBlob,
    OutOfTime,
    TransferCorrupted,
    UploadLost,
)
from s3_to_ecr.layouts.jobs import UploadLayer
from s3_to_ecr.push.read_ahead import RunningDigest, read_ahead
from s3_to_ecr.state.leases import Lease, Progress
from s3_to_ecr.telemetry.logs import count, log_with, logger

# How often a layer is begun in one invocation, ECR having forgotten its uploads, and how often ECR may refuse a part
# before it has come farther than ever. Both are rare; past these, the queue's patience is better than ours.
_MAX_UPLOADS = 3
_MAX_STALLS = 3

_PROGRESS_PERCENT = 10

# What completing a large layer may take. Nobody has said how long ECR needs to verify one.
_COMPLETING_SECONDS = 5

# Of the function's memory, parts may take an eighth; the SDK and its imports take most of the rest in a small one. One
# part is being sent, one at least is being read; more than two ahead would only wait, as S3 answers sooner than ECR.
PARTS_SHARE = 8
FEWEST_PARTS, _MOST_PARTS = 2, 3


def upload_layer(
    registry: Registry, blob: Blob, job: UploadLayer, lease: Lease, deadline: Deadline, memory: int
) -> str:
    """Puts `blob` into the job's repository as a layer, and returns the layer's digest.

    A known digest is ECR's to verify; an unknown one is computed from the bytes on their way. Of the function's
    `memory`, in bytes, a share holds the parts that are read ahead.
    An upload that the `lease` has progress of is gone on with. Its progress there is up to date whatever happens; in
    the end, too: it is the caller's to clear when the result is written down.
    Raises `EmptyBlob`, `BlobTooLarge`, `DigestMismatch`, `TransferCorrupted`, `UploadLost`, `OutOfTime` before the
    `deadline`, and what `Blob.read`, `Registry` and `Lease` raise. Nothing is ever completed under a digest that its
    bytes do not have.
    """
    if blob.size == 0:
        raise EmptyBlob("the object is empty, and ECR has no empty layers. Upload the file again.")
    if blob.size > MAX_LAYER_BYTES:
        raise BlobTooLarge(f"{blob.size:,} bytes are more than the {MAX_LAYER_BYTES:,} that ECR takes for a layer.")
    sending = _Sending(registry, job, blob.size, lease)
    running_digest = None if sending.digest else RunningDigest()
    uploads = 0
    while True:
        uploads += 1
        try:
            deadline.require("the layer")
            sending.begin()
            _send_parts(sending, blob, running_digest, deadline, memory)
            sending.all_sent(str(running_digest) if running_digest else None)
            # Only who has sent something may leave this to another invocation, which will then have the time.
            deadline.require("completing the layer", _COMPLETING_SECONDS if sending.got_on else 0)
            return sending.complete()
        except OutOfTime as error:
            error.got_on = sending.got_on
            raise
        except UploadLost as error:
            # An earlier attempt may have completed the layer, and only its answer been lost; or another invocation has.
            if sending.is_there():
                return str(sending.digest)
            lease.progress = None
            if uploads == _MAX_UPLOADS:
                raise
            lease.save()  # or is it lost, and the upload in other hands?
            logger.warning("The upload is lost, the layer begins anew", reason=error.reason)


def _parts_in_memory(memory: int, part_size: int) -> int:
    """How many parts of that size the memory has room for. Both are in bytes."""
    return max(FEWEST_PARTS, min(_MOST_PARTS, memory // PARTS_SHARE // base64_bytes(part_size)))


def _send_parts(
    sending: _Sending, blob: Blob, running_digest: RunningDigest | None, deadline: Deadline, memory: int
) -> None:
    """Sends all of the blob that ECR does not have yet, in parts that are read ahead as far as there is memory."""
    while sending.position < blob.size:
        part_size = sending.upload.part_size
        most = _parts_in_memory(memory, part_size)
        if running_digest:
            _hash_up_to(sending.position, running_digest, blob, sending, deadline)
        pace = Pace(deadline, "the next part")
        starts = range(sending.position, blob.size, part_size)
        with closing(read_ahead(blob, starts, sending.part, running_digest, most, pace)) as parts:
            for part in parts:
                with pace.step():
                    sending.send(part)
                if sending.position != part.end:
                    break  # ECR stands elsewhere: what has been read ahead is not what comes next
    if running_digest:
        _hash_up_to(blob.size, running_digest, blob, sending, deadline)


class _Unsent:
    """Takes the bytes of a part that ECR has already, and forgets them."""

    def write(self, chunk: bytes) -> None:
        pass


def _hash_up_to(end: int, running_digest: RunningDigest, blob: Blob, sending: _Sending, deadline: Deadline) -> None:
    """Reads, for the digest only, what an earlier invocation has sent: the blob's bytes up to `end`."""
    starts = range(running_digest.length, end, sending.upload.part_size)
    pace = Pace(deadline, "reading again, for the digest, what was sent before")
    with closing(read_ahead(blob, starts, lambda *_: _Unsent(), running_digest, FEWEST_PARTS, pace)) as parts:
        for _ in starts:
            with pace.step():
                next(parts)
            sending.renew()


class _Sending:
    """How far a layer is in its `upload`: `position` is the byte that ECR expects next."""

    upload: LayerUpload

    def __init__(self, registry: Registry, job: UploadLayer, size: int, lease: Lease) -> None:
        self._registry = registry
        self._repository = job.repository
        self._size = size
        self._lease = lease
        self._furthest = 0  # in any upload
        self._computed = job.digest is None
        # An unknown one, too, if an earlier invocation has come so far as to compute it.
        self.digest = job.digest or (lease.progress.digest if lease.progress else None)
        self.position = lease.progress.position if lease.progress else 0
        self._at_first = self.position, self.digest

    def begin(self) -> None:
        """Goes on with the upload that the lease has progress of, or begins a new one.

        Raises `BlobTooLarge` when the layer has more parts than ECR takes.
        """
        self._stalls = 0
        progress = self._lease.progress
        self._resumed = progress is not None
        if progress:
            self._go_on_with(progress)
        else:
            self._initiate()

    def _go_on_with(self, progress: Progress) -> None:
        self._furthest = progress.position
        self._stand_at(progress.position, LayerUpload(self._repository, progress.upload_id, progress.part_size))
        self._sent = self._size  # by whom and how far, nobody knows
        logger.info("Going on with the upload", percent=self._percent(), bytes_sent=self.position, size=self._size)

    def _initiate(self) -> None:
        self._stand_at(0, self._registry.initiate(self._repository))
        self._sent = 0
        parts = -(-self._size // self.upload.part_size)
        if parts > MAX_LAYER_PARTS:
            raise BlobTooLarge(
                f"{self._size:,} bytes are {parts:,} parts of {self.upload.part_size:,}, "
                f"and ECR takes {MAX_LAYER_PARTS:,}."
            )
        self._note_progress()
        self._save()

    def _stand_at(self, position: int, upload: LayerUpload) -> None:
        self.upload = upload
        self.position = self._confirmed = position
        self._reported = self._percent()
        log_with(upload_id=upload.upload_id)

    def part(self, first_byte: int, length: int, used: LayerPart | None) -> LayerPart:
        """A part of the upload, to be written."""
        return self._registry.part(self.upload, first_byte, length, used)

    def send(self, part: LayerPart) -> None:
        """Sends the part at the position, and moves on to where ECR stands then."""
        resent = part.first_byte < self._furthest
        self._furthest = max(self._furthest, part.end)
        self._sent = max(self._sent, part.end)
        receipt = self._registry.upload_part(self.upload, part)
        expected = receipt.last_byte + 1
        if resends := resent + receipt.resends:
            count("PartsResent", resends)

        if expected > self._confirmed:
            self._stalls = 0
        elif expected <= self.position:
            self._stalls += 1
        if self._stalls > _MAX_STALLS or expected > self._sent:
            raise UploadLost(
                f"ECR repository {self._repository} stands at byte {expected:,} of an upload that was sent "
                f"{part.first_byte:,} to {self._sent - 1:,}, and does not go on from there."
            )
        self.position = expected
        self._confirmed = max(self._confirmed, expected)
        self._note_progress()
        self.renew()
        self._tell_progress()

    def renew(self) -> None:
        """Renews the lease, if it is time to."""
        self._lease.renew()

    @property
    def got_on(self) -> bool:
        """Whether ECR has more of the layer, or the ledger its digest, than when this invocation began."""
        position, digest = self._at_first
        return self.position > position or self.digest != digest

    def all_sent(self, digest: str | None) -> None:
        """Before the upload is completed, by this invocation or another. Takes the digest if it had to be computed."""
        self.digest = self.digest or digest
        self._note_progress()
        self._save()

    def is_there(self) -> bool:
        """Whether ECR has the layer after all, as far as its digest is known."""
        if not self.digest:
            return False
        return self._registry.layer_availability(self._repository, [self.digest])[self.digest] == "AVAILABLE"

    def _note_progress(self) -> None:
        digest = self.digest if self._computed else None
        self._lease.progress = Progress(self.upload.upload_id, self.upload.part_size, self.position, digest)

    def _save(self) -> None:
        if self._size > self.upload.part_size:  # a single part is not worth the call
            self._lease.save()

    def _percent(self) -> int:
        return min(self.position * 100 // self._size, 100)

    def _tell_progress(self) -> None:
        percent = self._percent()
        if percent >= self._reported + _PROGRESS_PERCENT:
            self._reported = percent - percent % _PROGRESS_PERCENT
            logger.info("Uploading the layer", percent=self._reported, bytes_sent=self.position, size=self._size)

    def complete(self) -> str:
        """Ends the upload and returns the layer's digest, which ECR has verified."""
        digest = str(self.digest)
        try:
            found = self._registry.complete(self.upload, digest)
        except DigestMismatch as error:
            if self._resumed:
                # What was there before may be of another object, which did not have the digest that its key named.
                raise UploadLost(f"ECR refused {digest} for bytes that earlier invocations sent in part.") from error
            self._lease.progress = None
            if not self._computed:
                raise
            raise TransferCorrupted(
                f"ECR refused {digest}, the digest of the bytes that were read: they changed on the way."
            ) from error
        if found != digest:
            self._lease.progress = None
            kind = TransferCorrupted if self._computed else DigestMismatch
            raise kind(f"ECR found the digest {found} where {digest} was expected.")
        return digest
