"""Everything that can go wrong with one object, drawn once.

S3ToEcrError
├── Rejected                   will never work as it stands: reported, never retried
│   ├── MalformedEvent         the event is not one that S3 sends
│   ├── RepositoryNotNamed     neither the key nor a reference names a repository
│   ├── InvalidRepositoryName  ECR would not accept the name
│   ├── SeveralRepositories    an archive of several repositories, in the folder of one
│   ├── InvalidPath            the key looks like a path in a layout, and is none
│   ├── RepositoryMissing      ECR has no such repository, and the function may not create it
│   ├── UnsupportedArchive     an image archive that has to be unpacked first
│   ├── BrokenArchive          a tar archive that is damaged, or points outside itself
│   ├── BrokenChart            a Helm chart that Helm would not take
│   ├── UnsupportedManifest    a kind of manifest that ECR does not accept
│   ├── BrokenManifest         a manifest that is not what it claims to be
│   ├── InvalidTag             ECR would not accept the tag, or two images want it
│   ├── TagTaken               the tag is immutable and names another image
│   ├── EmptyBlob              zero bytes: ECR has no empty layers
│   ├── BlobTooLarge           more bytes or parts than ECR accepts
│   ├── DigestMismatch         the content does not have the digest that the key names
│   ├── ObjectMissing          deleted since the event, or never there
│   ├── ObjectChanged          overwritten since the event: a newer event is coming
│   ├── ObjectArchived         in a storage class that must be restored first
│   ├── AccessDenied           a permission is missing
│   └── RequestRefused         AWS calls the request itself invalid
└── RetryLater                 may work later: goes back on the queue
    ├── OutOfTime              the invocation ends before the work does; progress is saved
    ├── BlobsMissing           blobs that the manifest names have not arrived yet
    ├── UploadInProgress       another invocation is uploading the layer, or setting the tag
    ├── UploadLost             ECR forgot the upload, or stopped accepting its parts
    ├── TransferCorrupted      ECR received other bytes than S3 sent
    ├── ServiceUnavailable     throttling or an outage, past the SDK's own retries
    ├── EventNotSent           the object is done, and its event could not be sent
    └── Unexpected             a bug in this program, or an answer that nobody has foreseen

Errors are never changed once they are raised. Who knows more than the code that raised one, raises a copy that says it.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from s3_to_ecr.text import MOST_CHARACTERS, readable

# How many reasons a combined error quotes, if there is room for them. The numbers beside them take some of it.
_MOST_REASONS = 5
_ROOM_FOR_REASONS = MOST_CHARACTERS - 64


class S3ToEcrError(Exception):
    """The common base. `reason` says what happened and what to do. `bucket` and `key` name the object, once known.

    A reason may quote whatever was found, of any length: it is kept `readable`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = readable(reason)
        super().__init__(self.reason)
        self.bucket: str | None = None
        self.key: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}: {self.reason}" if self.bucket else self.reason

    def within(self, part: str) -> Self:
        """A copy whose reason begins with the part that failed, such as a layer or a tag."""
        return self._copied(reason=f"{part}: {self.reason}")

    def about(self, bucket: str, key: str) -> Self:
        """A copy that names this object."""
        return self._copied(bucket=bucket, key=key)

    def _copied(self, **changes: Any) -> Self:
        copied = copy.copy(self)
        vars(copied).update(changes)
        copied.reason = readable(copied.reason)
        copied.__cause__ = self.__cause__
        return copied.with_traceback(self.__traceback__)


class Rejected(S3ToEcrError):
    """Will never work as it stands; somebody has to change something first."""


class MalformedEvent(Rejected):
    """The event, or one of its records, is not one that S3 sends."""


class RepositoryNotNamed(Rejected):
    """The key has no folder and `DEFAULT_REPOSITORY` is not set, or an image of a bundle has no full reference."""


class InvalidRepositoryName(Rejected):
    """The key, or an image's reference in a bundle, gives a repository name outside ECR's rule."""


class SeveralRepositories(Rejected):
    """An archive in a repository's folder holds images of several repositories."""


class InvalidPath(Rejected):
    """The key looks like a path in a layout, and is none: its folder is hardly meant to be a repository."""


class RepositoryMissing(Rejected):
    """ECR does not have the repository, and `CREATE_REPOSITORIES` is not `true`."""


class UnsupportedArchive(Rejected):
    """An image archive that cannot be read in pieces, such as a compressed one."""


class BrokenArchive(Rejected):
    """A tar archive that is truncated or damaged, lacks a file that it names, or has links or members outside it."""


class BrokenChart(Rejected):
    """A Helm chart without a name or version, or whose metadata Helm would not read."""


class UnsupportedManifest(Rejected):
    """A manifest that ECR does not accept, such as Docker schema 1."""


class BrokenManifest(Rejected):
    """A manifest that cannot be parsed, or whose bytes do not have the digest that names it."""


class InvalidTag(Rejected):
    """The tag breaks the registry API's rule, or two images of one object have it."""


class TagTaken(Rejected):
    """The repository's tags are immutable, and this one names another image."""


class EmptyBlob(Rejected):
    """The object holds no bytes."""


class BlobTooLarge(Rejected):
    """The blob is larger than ECR's largest layer, in bytes or in parts."""


class DigestMismatch(Rejected):
    """The content does not have the digest that the key names."""


class ObjectMissing(Rejected):
    """The object, its version or its bucket does not exist."""


class ObjectChanged(Rejected):
    """The object is no longer the one that the event is about."""


class ObjectArchived(Rejected):
    """The object is in an archived storage class."""


class AccessDenied(Rejected):
    """The function's role, or a policy on the other side, does not allow the call."""


class RequestRefused(Rejected):
    """AWS found the request invalid."""


class RetryLater(S3ToEcrError):
    """May work later without anybody's help.

    `awaited` are keys of the same bucket: when one of these objects arrives, it is worth another try. If it
    `only_waits`, nothing else has failed.
    """

    def __init__(self, reason: str, *awaited: str, only_waits: bool = False) -> None:
        super().__init__(reason)
        self.awaited = awaited
        self.only_waits = only_waits

    def awaiting(self, *keys: str) -> Self:
        """A copy that is worth another try when one of these objects arrives."""
        return self._copied(awaited=keys)


class OutOfTime(RetryLater):
    """The invocation is about to end."""


class BlobsMissing(RetryLater):
    """Blobs that a manifest names have not arrived yet. They are expected under the `awaited` keys, where known."""

    def __init__(self, reason: str, *awaited: str) -> None:
        super().__init__(reason, *awaited, only_waits=bool(awaited))


class UploadInProgress(RetryLater):
    """Another invocation is uploading this layer, or setting this tag."""


class UploadLost(RetryLater):
    """ECR no longer knows the upload, or accepts no more of its parts."""


class TransferCorrupted(RetryLater):
    """The digest that ECR found is not that of the bytes that were read."""


class ServiceUnavailable(RetryLater):
    """AWS throttled the call, failed or could not be reached."""


class EventNotSent(RetryLater):
    """The object is done or rejected, but its event could not be sent to the bus that `OUTCOME_BUS` names."""


class Unexpected(RetryLater):
    """An error outside this tree. That error is the cause of this one, and its stack trace is in the log."""

    @classmethod
    def from_error(cls, error: Exception) -> Self:
        wrapped = cls(f"unexpected error, this is a bug: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped


@contextmanager
def concerning(bucket: str, key: str) -> Iterator[None]:
    """Names the object in every error that does not name one. Errors outside the tree come out as `Unexpected`."""
    try:
        yield
    except S3ToEcrError as error:
        if error.bucket is not None:
            raise
        raise error.about(bucket, key) from error.__cause__
    except Exception as error:
        raise Unexpected.from_error(error).about(bucket, key) from error


def forget_locals(error: BaseException) -> None:
    """Lets go of what the functions that an error came through had in memory, such as 28 MB of a layer's parts.

    Whoever keeps an error calls this. The error and its stack trace stay as they are.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        found = todo.pop()
        if found and id(found) not in seen:
            seen.add(id(found))
            traceback.clear_frames(found.__traceback__)
            todo += [found.__cause__, found.__context__]


def combined(failures: Sequence[S3ToEcrError], ranking: tuple[type[S3ToEcrError], ...]) -> S3ToEcrError:
    """One error for several failures: of the kind that comes first in the `ranking`, with the reasons of all."""
    if len(failures) == 1:
        return failures[0]
    first = min(failures, key=lambda error: [isinstance(error, kind) for kind in ranking].index(True))
    quoted = [failures[0].reason]
    for error in failures[1:_MOST_REASONS]:
        if len("; ".join([*quoted, error.reason])) > _ROOM_FOR_REASONS:
            break
        quoted.append(error.reason)
    more = f"; and {len(failures) - len(quoted)} more" if len(failures) > len(quoted) else ""
    changes: dict[str, Any] = {"reason": f"{len(failures)} failures: {'; '.join(quoted)}{more}"}
    if isinstance(first, RetryLater):
        later = [error for error in failures if isinstance(error, RetryLater)]
        changes["awaited"] = tuple(key for error in later for key in error.awaited)
        changes["only_waits"] = all(error.only_waits for error in later)
    return first._copied(**changes)  # noqa: SLF001 (this module's own)
