"""The report: what was checked, what ECR answered, and whether all of it is as it should be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import boto3

from verify.deployment import Deployment


@dataclass(frozen=True)
class Check:
    """Something that has to hold, and what was `seen` of it."""

    what: str
    seen: str
    holds: bool


@dataclass(frozen=True)
class Answer:
    """What ECR answered to a question, beside what the function assumes.

    `agrees` is `None` if nothing depends on the answer.
    """

    question: str
    assumed: str
    answered: str
    agrees: bool | None


@dataclass
class Report:
    """The results of one run. It prints each as it comes, to the standard error."""

    checks: list[Check] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> bool:
        """Whether every check holds, and no answer differs from what is assumed."""
        return all(check.holds for check in self.checks) and all(answer.agrees is not False for answer in self.answers)

    def say(self, text: str) -> None:
        """Prints progress."""
        print(f"{time.monotonic() - self.started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def check(self, what: str, seen: str, *, holds: bool) -> None:
        """Takes a check."""
        self.checks.append(Check(what, seen, holds))
        self.say(f"ok       {what}" if holds else f"FAILED   {what}: {seen}")

    def answer(self, answer: Answer) -> None:
        """Takes an answer."""
        self.answers.append(answer)
        self.say(f"{_VERDICTS[answer.agrees]:8}  {answer.question}: {answer.answered}")
        if answer.agrees is False:
            self.say(f"          assumed: {answer.assumed}")

    def markdown(self, deployment: Deployment) -> str:
        """The report to keep."""
        seconds = time.monotonic() - self.started
        lines = [
            f"# s3-to-ecr: {deployment.stack} in {deployment.region}",
            "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {seconds:.0f} seconds, boto3 {boto3.__version__}",
            "",
            *_table(
                ("", "check", "seen"),
                [("ok" if check.holds else "**FAILED**", check.what, check.seen) for check in self.checks],
            ),
        ]
        if self.answers:
            rows = [
                (_VERDICTS[answer.agrees], answer.question, answer.assumed, answer.answered) for answer in self.answers
            ]
            lines += ["", "## What ECR answers", "", *_table(("", "question", "assumed", "answered"), rows)]
        return "\n".join([*lines, "", self._verdict(), ""])

    def _verdict(self) -> str:
        if self.passed:
            return "Everything is as it should be."
        failed = sum(not check.holds for check in self.checks)
        differing = sum(answer.agrees is False for answer in self.answers)
        advice = " Please report these answers as an issue." if differing else ""
        return (
            f"**Not everything is as it should be.** Checks that failed: {failed}. "
            f"Answers of ECR that differ from what the function assumes: {differing}.{advice}"
        )


_VERDICTS = {True: "agrees", False: "DIFFERS", None: "noted"}


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, row))} |" for row in [titles, ["---"] * len(titles), *rows]]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
