"""Everything that a run makes in the account, and how it is deleted again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from operate.dead_letters import DeadLetter, DeadLetters
from verify.clients import Clients
from verify.deployment import Deployment
from verify.failures import Stopped, explained
from verify.repository import Repository

# An image's message that found a file missing comes back after 30 s, long after the last file has brought the image.
# Until then its object has to stay, or the function would report it as missing.
SETTLING_SECONDS: Final = 35

# In a busy queue nobody can tell which messages are ours. This much later they are done with.
_BUSY_SECONDS: Final = 60

# In a longer queue, looking for ours would hold up all the others.
_MOST_RECALLED: Final = 1000

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


class Workspace:
    """A folder in the stack's bucket and repositories, all of one random `name`, and the messages about them.

    Whatever is made is noted first, so that `delete` finds it when the run is interrupted at any point.
    """

    def __init__(self, clients: Clients, deployment: Deployment) -> None:
        self.name = f"s3-to-ecr-verify-{secrets.token_hex(4)}"
        self.deployment = deployment
        self.repository_name = deployment.repository_prefix + self.name
        self.folder = f"{deployment.key_prefix}{self.name}/"
        # What the function has reported of our objects.
        self.reports: list[DeadLetter] = []
        # Whether all that was put has been mirrored, or rejected as it should.
        self.completed = False
        self._last_put: float | None = None
        self._clients = clients
        self._repositories: list[Repository] = []

    def repository(self, suffix: str = "") -> Repository:
        """A repository that may not exist yet, and will be deleted in any case."""
        repository = Repository(self._clients.ecr, self.deployment.registry, self.repository_name + suffix)
        self._repositories.append(repository)
        return repository

    def create_repository(self, suffix: str = "", **settings: Any) -> Repository:
        """A new repository. Raises `Stopped` if there is one of that name already, which is left alone."""
        repository = self.repository(suffix)
        try:
            repository.create(**settings)
        except ClientError as error:
            self._repositories.remove(repository)  # not made, so not to be deleted
            if error.response["Error"]["Code"] != "RepositoryAlreadyExistsException":
                raise
            raise Stopped(
                f"The repository {repository.name} exists already, and only repositories that are its own are used. "
                "Run it again: it will choose another name."
            ) from error
        return repository

    def put(self, path: str, content: bytes) -> dict[str, Any]:
        """Puts an object into the folder. Returns its key, and what S3's notification says about it."""
        self._last_put = time.monotonic()
        key = self.folder + path
        answer = self._clients.s3.put_object(Bucket=self.deployment.bucket, Key=key, Body=content)
        versions = {"versionId": answer["VersionId"]} if "VersionId" in answer else {}
        return {"key": key, "size": len(content), "eTag": answer["ETag"].strip('"'), **versions}

    def delete(self) -> list[str]:
        """Deletes everything, whatever fails. Returns what is left behind, each with the reason."""
        left: list[str] = []

        def attempt(what: str, action: Callable[[], object]) -> None:
            try:
                action()
            except (ClientError, BotoCoreError, Stopped) as error:
                left.append(f"{what}. {explained(error)}")

        where = f"s3://{self.deployment.bucket}/{self.folder}"
        if self.completed:
            attempt(f"messages about {where}", self._settle)
        if self._last_put is not None:
            attempt(f"objects in {where}", self._delete_objects)
            if not self.completed:
                attempt(f"messages about {where}", self._recall)
        for repository in self._repositories:
            attempt(f"the repository {repository.name}", repository.delete)
        return left

    def take_reports(self) -> None:
        """Takes what the function has reported of our objects out of the dead-letter queue."""
        self.reports += self._take(self.deployment.dead_letter_queue_url)

    def messages(self) -> tuple[int, int]:
        """About how many messages the work queue has: those that wait, and those that are in progress or delayed."""
        names: Any = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        answer = self._clients.sqs.get_queue_attributes(QueueUrl=self.deployment.work_queue_url, AttributeNames=names)
        attributes: Any = answer["Attributes"]
        waiting, *others = (int(attributes[name]) for name in names)
        return waiting, sum(others)

    def _take(self, queue_url: str) -> list[DeadLetter]:
        """Removes the messages about our objects from a queue, and leaves all others."""
        queue = DeadLetters(self._clients.sqs, queue_url, self.deployment.work_queue_url)
        with queue.held() as messages:
            ours = [message for message in messages if self.name in message.body]
            for message in ours:
                queue.delete(message)
        return ours

    def _settle(self) -> None:
        """Waits until the function has done with our messages, as far as one can tell."""
        for _ in self._settling():
            if not any(self.messages()):
                return

    def _recall(self) -> None:
        """Takes back our messages that the function has not done with, and what it reports of them.

        Raises `Stopped` if some may still be in progress.
        """
        for _ in self._settling():
            waiting, _in_progress = self.messages()
            if waiting <= _MOST_RECALLED:
                self._take(self.deployment.work_queue_url)
            self.take_reports()
            if not any(self.messages()):
                self.take_reports()
                return
        raise Stopped(
            f"About {sum(self.messages())} messages are still in the work queue. If the function reports some of "
            "this folder in the dead-letter queue, delete those reports."
        )

    def _settling(self) -> Iterator[float]:
        since_last_put = time.monotonic() - (self._last_put or 0)
        time.sleep(max(SETTLING_SECONDS - since_last_put, 0))
        return pauses(_BUSY_SECONDS)

    def _delete_objects(self) -> None:
        pages = self._clients.s3.get_paginator("list_object_versions").paginate(
            Bucket=self.deployment.bucket, Prefix=self.folder
        )
        for page in pages:
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            objects: Any = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]
            if not objects:
                continue
            answer = self._clients.s3.delete_objects(
                Bucket=self.deployment.bucket, Delete={"Objects": objects, "Quiet": True}
            )
            for error in answer.get("Errors", []):
                raise ClientError({"Error": {"Code": error["Code"], "Message": error["Message"]}}, "DeleteObjects")


def pauses(seconds: float) -> Iterator[float]:
    """Yields the seconds since the start until `seconds` are over, at first often and later every two seconds."""
    started = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    while (elapsed := time.monotonic() - started) < seconds:
        yield elapsed
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
