"""Everything that can go wrong with one object, drawn once.

S3ToEcrError
├── Rejected                   will never work as it stands: reported, never retried
│   ├── MalformedEvent         what arrived is not an S3 event
│   ├── RepositoryNotNamed     the key has no folder and there is no default repository
│   ├── InvalidRepositoryName  ECR would not accept the name
│   ├── RepositoryMissing      ECR has no such repository, and may not be given one
│   ├── UnsupportedArchive     an image archive that has to be unpacked first
│   ├── BrokenArchive          a tar archive that is damaged, or reaches outside itself
│   ├── UnsupportedManifest    a manifest of a kind that ECR does not take
│   ├── BrokenManifest         a manifest that is not what it says
│   ├── InvalidTag             ECR would not accept the tag, or two images want it
│   ├── TagTaken               the tag is immutable and names another image
│   ├── EmptyBlob              zero bytes: ECR has no empty layers
│   ├── BlobTooLarge           more bytes or parts than ECR takes
│   ├── DigestMismatch         the content does not have the digest that the key names
│   ├── ObjectMissing          deleted since the event, or never there
│   ├── ObjectChanged          overwritten since the event: a newer event is coming
│   ├── ObjectArchived         in a storage class that must be restored first
│   ├── AccessDenied           a permission is missing
│   └── RequestRefused         AWS calls the request itself invalid
└── RetryLater                 may work later: goes back on the queue
    ├── OutOfTime              the invocation ends before the layer does; progress is saved
    ├── BlobsMissing           blobs that the manifest names are not there yet
    ├── UploadInProgress       another invocation is at the same layer, or the same tags
    ├── UploadLost             ECR forgot the upload, or stopped taking its parts
    ├── TransferCorrupted      ECR received other bytes than S3 sent
    ├── ServiceUnavailable     throttling or an outage, past the SDK's own retries
    └── Unexpected             a mistake of this program, or an answer that nobody has thought of
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# How many reasons one error gives, of several.
_MOST_REASONS = 5


class S3ToEcrError(Exception):
    """The common base. `reason` says what happened and what to do; `bucket` and `key`, once known, to which object."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.bucket: str | None = None
        self.key: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}: {self.reason}" if self.bucket else self.reason


class Rejected(S3ToEcrError):
    """Will never work as it stands; somebody has to change something first."""


class MalformedEvent(Rejected):
    """The event, or one of its records, is not what S3 sends."""


class RepositoryNotNamed(Rejected):
    """The key has no folder, and `DEFAULT_REPOSITORY` is not set."""


class InvalidRepositoryName(Rejected):
    """The key gives a repository name outside ECR's rule."""


class RepositoryMissing(Rejected):
    """ECR does not have the repository, and `CREATE_REPOSITORIES` is not `true`."""


class UnsupportedArchive(Rejected):
    """An image archive in a form that cannot be read in pieces, such as a compressed one."""


class BrokenArchive(Rejected):
    """A tar archive that is cut off or damaged, lacks what it names, or has members or links outside itself."""


class UnsupportedManifest(Rejected):
    """A manifest that ECR does not take, such as Docker schema 1."""


class BrokenManifest(Rejected):
    """A manifest that cannot be parsed, or names a digest that its bytes do not have."""


class InvalidTag(Rejected):
    """The image's tag is outside the registry API's rule, or is another image's, too."""


class TagTaken(Rejected):
    """The repository's tags are immutable, and this one names another image."""


class EmptyBlob(Rejected):
    """The object holds no bytes."""


class BlobTooLarge(Rejected):
    """The blob is past ECR's largest layer, in bytes or in parts."""


class DigestMismatch(Rejected):
    """The content does not have the digest that the key names."""


class ObjectMissing(Rejected):
    """The object, its version or its bucket does not exist."""


class ObjectChanged(Rejected):
    """The object is no longer the one that the event speaks of."""


class ObjectArchived(Rejected):
    """The object is in an archived storage class."""


class AccessDenied(Rejected):
    """The function's role, or a policy on the other side, does not allow the call."""


class RequestRefused(Rejected):
    """AWS found the request invalid."""


class RetryLater(S3ToEcrError):
    """May work later without anybody's help; when one of the objects with the `awaited` keys has come, if any.

    If it `only_waits`, nothing else has failed.
    """

    awaited: tuple[str, ...] = ()
    only_waits = False


class OutOfTime(RetryLater):
    """The invocation is about to end. `got_on` says that the next one will come nearer to the end of the object."""

    def __init__(self, reason: str, *, got_on: bool = False) -> None:
        super().__init__(reason)
        self.got_on = got_on


class BlobsMissing(RetryLater):
    """Blobs that a manifest names have not arrived yet, under the keys where they are `awaited`."""

    def __init__(self, reason: str, *awaited: str) -> None:
        super().__init__(reason)
        self.awaited = awaited
        self.only_waits = bool(awaited)


class UploadInProgress(RetryLater):
    """Another invocation is uploading this layer, or setting the tags of this image."""


class UploadLost(RetryLater):
    """ECR no longer knows the upload, or takes no more parts of it."""


class TransferCorrupted(RetryLater):
    """The digest that ECR found is not that of the bytes that were read."""


class ServiceUnavailable(RetryLater):
    """AWS throttled the call, failed or could not be reached."""


class Unexpected(RetryLater):
    """An error outside this tree. It is the cause of this one, and its stack trace is in the log."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"an error that nobody expected, {type(error).__name__}: {error}")
        self.__cause__ = error


@contextmanager
def concerning(bucket: str, key: str) -> Iterator[None]:
    """Writes into every error which object it is about, unless it knows. Others come out as `Unexpected`."""
    try:
        yield
    except S3ToEcrError as error:
        if error.bucket is None:
            error.bucket, error.key = bucket, key
        raise
    except Exception as error:
        unexpected = Unexpected(error)
        unexpected.bucket, unexpected.key = bucket, key
        raise unexpected from error


def combined(failures: list[S3ToEcrError], ranking: tuple[type[S3ToEcrError], ...]) -> S3ToEcrError:
    """The failure whose kind comes first in the `ranking`, with the reasons of all, and what any of them waits for."""
    first = min(failures, key=lambda error: [isinstance(error, kind) for kind in ranking].index(True))
    if len(failures) > 1:
        more = f"; and {len(failures) - _MOST_REASONS} more" if len(failures) > _MOST_REASONS else ""
        reasons = "; ".join(error.reason for error in failures[:_MOST_REASONS])
        first.reason = f"{len(failures)} failures: {reasons}{more}"
    if isinstance(first, RetryLater):
        waiting = [error for error in failures if isinstance(error, RetryLater)]
        first.awaited = tuple(key for error in waiting for key in error.awaited)
        first.only_waits = all(error.only_waits for error in waiting)
    return first
