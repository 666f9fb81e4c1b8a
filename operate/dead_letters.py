"""`make dead-letters`: lists the dead letters of a stack, and redrives or deletes those that are chosen."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from local.event import announced
from operate import stacks

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

# Long enough to read a large queue and to answer a question.
_HIDDEN_SECONDS: Final = 600

# With a wait SQS asks all of its servers, and without one it may find nothing on those that it asks.
_WAIT_SECONDS: Final = 1

_CHOICES: Final = "KEY='team/app/*', TYPE=RepositoryMissing or ID=1a2b3c4d, or all with ALL=1"


@dataclass(frozen=True)
class DeadLetter:
    """A message in the dead-letter queue. `expires` is in seconds since 1970."""

    id: str
    receipt_handle: str
    body: str
    expires: float
    error_type: str
    bucket: str
    key: str
    reason: str

    @classmethod
    def read(cls, message: Mapping[str, Any], retention_seconds: int) -> DeadLetter:
        """The letter in a message that SQS returned: our report, EventBridge's, or without a reason what SQS moved."""
        attributes = {
            name: str(attribute.get("StringValue", ""))
            for name, attribute in message.get("MessageAttributes", {}).items()
        }
        bucket, key = announced(message["Body"]) or ("", "")
        return cls(
            id=message["MessageId"],
            receipt_handle=message["ReceiptHandle"],
            body=message["Body"],
            expires=int(message["Attributes"]["SentTimestamp"]) / 1000 + retention_seconds,
            error_type=attributes.get("ErrorType") or attributes.get("ERROR_CODE", "(none)"),
            bucket=attributes.get("Bucket", bucket),
            key=attributes.get("Key", key),
            reason=attributes.get("Reason") or attributes.get("ERROR_MESSAGE") or "moved by SQS, without a reason",
        )

    @property
    def short_id(self) -> str:
        return self.id[:8]

    @property
    def object(self) -> str:
        """The object that it is about; without one, the beginning of the message."""
        return f"s3://{self.bucket}/{self.key}" if self.key else f"a message: {self.body[:60]}"


@dataclass(frozen=True)
class Choice:
    """Which letters are meant. All conditions have to hold; `key` may have wildcards, `ids` may be shortened."""

    key: str = ""
    error_type: str = ""
    ids: tuple[str, ...] = ()
    everything: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Choice:
        ids = tuple(re.split(r"[\s,]+", environment.get("ID", "").strip()))
        return cls(
            key=environment.get("KEY", ""),
            error_type=environment.get("TYPE", ""),
            ids=() if ids == ("",) else ids,
            everything=environment.get("ALL") == "1",
        )

    @property
    def is_made(self) -> bool:
        return bool(self.key or self.error_type or self.ids or self.everything)

    def takes(self, letter: DeadLetter) -> bool:
        return (
            (not self.key or fnmatchcase(letter.key, self.key))
            and (not self.error_type or letter.error_type == self.error_type)
            and (not self.ids or letter.id.startswith(self.ids))
        )


class DeadLetters:
    """The dead-letter queue at `queue_url`, and the work queue that letters are redriven to."""

    def __init__(self, sqs: SQSClient, queue_url: str, work_queue_url: str) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._work_queue_url = work_queue_url

    @contextmanager
    def held(self) -> Iterator[list[DeadLetter]]:
        """All letters, the oldest first. They are hidden from others until the end, and then visible again."""
        letters: dict[str, DeadLetter] = {}
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["MessageRetentionPeriod"])
        retention = int(attributes["Attributes"]["MessageRetentionPeriod"])
        try:
            while messages := self._receive():
                for message in messages:
                    letters[message["MessageId"]] = DeadLetter.read(message, retention)
            yield sorted(letters.values(), key=lambda letter: letter.expires)
        finally:
            self._release(list(letters.values()))

    def redrive(self, letter: DeadLetter) -> None:
        """Sends it to the work queue, then deletes it. If that fails in between, it is in both queues, not lost."""
        self._sqs.send_message(QueueUrl=self._work_queue_url, MessageBody=letter.body)
        self.delete(letter)

    def delete(self, letter: DeadLetter) -> None:
        self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=letter.receipt_handle)

    def _receive(self) -> list[Any]:
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_HIDDEN_SECONDS,
            WaitTimeSeconds=_WAIT_SECONDS,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        return list(answer.get("Messages", []))

    def _release(self, letters: list[DeadLetter]) -> None:
        """Makes the letters visible again. SQS passes over those that have been deleted."""
        for first in range(0, len(letters), 10):
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": letter.receipt_handle, "VisibilityTimeout": 0}
                for number, letter in enumerate(letters[first : first + 10])
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)


def main() -> None:
    """Lists the letters that are chosen, all of them without a choice. With REDRIVE=1 or DELETE=1 acts on them."""
    redrives, deletes = (_is_set(name) for name in ("REDRIVE", "DELETE"))
    choice = Choice.from_environment(os.environ)
    if redrives and deletes:
        sys.exit("REDRIVE=1 and DELETE=1 exclude each other: a letter that is redriven is deleted as well.")
    if (redrives or deletes) and not choice.is_made:
        sys.exit(f"Nothing was done. Choose the dead letters with {_CHOICES}.")
    with stacks.errors_in_one_line():
        dead_letters = opened()
        with dead_letters.held() as letters:
            chosen = _chosen(letters, choice)
            print(table(chosen, time.time(), shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
            if redrives:
                for letter in chosen:
                    dead_letters.redrive(letter)
                    print(f"Redriven: {letter.short_id}", flush=True)
            elif deletes and chosen and _agrees(len(chosen)):
                for letter in chosen:
                    dead_letters.delete(letter)
                    print(f"Deleted: {letter.short_id}", flush=True)
            elif chosen and not deletes:
                print(f"To retry them, add REDRIVE=1; to discard them, DELETE=1. Choose with {_CHOICES}.")


def opened() -> DeadLetters:
    """The queues of the stack STACK, or those that the variables of `make local` name. Exits if there is no stack."""
    session = stacks.open_session()
    sqs = session.client("sqs")
    if "STACK" not in os.environ and {"QUEUE_URL", "DEAD_LETTER_QUEUE_URL"} <= os.environ.keys():
        return DeadLetters(sqs, os.environ["DEAD_LETTER_QUEUE_URL"], os.environ["QUEUE_URL"])
    return DeadLetters(sqs, *stacks.outputs(session, "DeadLetterQueueUrl", "WorkQueueUrl"))


def table(letters: list[DeadLetter], now: float, width: int | None) -> str:
    """The letters as lines: under each its reason, wrapped to the `width` if there is one."""
    if not letters:
        return "There are no dead letters."
    kinds = max(len("TYPE"), *(len(letter.error_type) for letter in letters))
    lines = [f"{'ID':8}  {'TYPE':{kinds}}  EXPIRES IN  OBJECT"]
    for letter in letters:
        left = _remaining(letter.expires - now)
        lines.append(f"{letter.short_id}  {letter.error_type:{kinds}}  {left:10}  {stacks.printable(letter.object)}")
        indent = " " * 10
        reason = indent + stacks.printable(letter.reason)
        lines += textwrap.wrap(reason, max(width, 40), subsequent_indent=indent) if width else [reason]
    count = len(letters)
    return "\n".join([*lines, f"{count} dead letter{'s' if count > 1 else ''}."])


def _remaining(seconds: float) -> str:
    days, hours = int(seconds // 86400), int(seconds // 3600)
    return f"{days} days" if days > 1 else f"{max(hours, 0)} hours"


def _chosen(letters: list[DeadLetter], choice: Choice) -> list[DeadLetter]:
    """The letters that are chosen. Exits if an ID is that of none."""
    for given in choice.ids:
        if not any(letter.id.startswith(given) for letter in letters):
            sys.exit(f"There is no dead letter {given}. Nothing was done. make dead-letters lists those there are.")
    return [letter for letter in letters if choice.takes(letter)]


def _agrees(count: int) -> bool:
    """Whether the listed letters are to be deleted: YES=1, or an answer at the terminal."""
    if _is_set("YES"):
        return True
    try:
        answer = input(f"Delete {'it' if count == 1 else f'these {count}'}? Nothing can bring them back. [y/N] ")
    except EOFError:
        answer = ""
        print()
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("Nothing was deleted. Without a question: YES=1.")
    return False


def _is_set(name: str) -> bool:
    value = os.environ.get(name, "")
    if value not in {"", "0", "1"}:
        sys.exit(f"{name} is {value!r}. It takes 1.")
    return value == "1"


if __name__ == "__main__":
    main()
