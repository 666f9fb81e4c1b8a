"""Proves that the stack mirrors: puts objects, waits, pulls everything back, and repeats the events."""

from __future__ import annotations

import json
from typing import Any, Final

from local.event import notification
from local.images import digest_of
from operate.dead_letters import DeadLetter
from verify.clients import Clients
from verify.report import Report
from verify.repository import Repository
from verify.samples import BROKEN, Sample, samples
from verify.workspace import Workspace, pauses

_SAY_AGAIN_SECONDS: Final = 15


class Mirroring:
    """The proof. It notes in the `report` what holds and what does not, and waits for at most `seconds`."""

    def __init__(self, clients: Clients, workspace: Workspace, report: Report, seconds: float) -> None:
        self._clients = clients
        self._workspace = workspace
        self._report = report
        self._seconds = seconds

    def run(self) -> None:
        """Runs the proof. Raises `Stopped` and the SDK's errors if it cannot go on."""
        repository = self._workspace.create_repository()
        self._report.say(f"created the repository {repository.name}")
        part_size = repository.part_size()
        good = samples(part_size)
        announced = {sample.title: self._put(sample) for sample in good}
        self._workspace.put(BROKEN.path, BROKEN.content)
        self._report.say(f"put {BROKEN.title}")

        arrived = self._wait(repository, good)
        for sample in arrived:
            self._compare(repository, sample, part_size)
        if arrived:
            self._repeat(repository, [record for sample in arrived for record in announced[sample.title]])
        self._workspace.completed = len(arrived) == len(good) and bool(self._letter(BROKEN.path))

    def _put(self, sample: Sample) -> list[dict[str, Any]]:
        """Puts the sample's files. Returns the records of the events that S3 sends about them."""
        records = []
        for path, content in sample.files.items():
            about = self._workspace.put(path, content)
            [record] = notification(self._workspace.deployment.bucket, **about)["Records"]
            records.append(record)
        self._report.say(f"put {sample.title}: {len(records)} objects")
        return records

    def _wait(self, repository: Repository, good: list[Sample]) -> list[Sample]:
        """Waits until every sample is in ECR or rejected. Returns those that are in ECR."""
        missing = {sample.title: sample for sample in good}
        arrived: list[Sample] = []
        said = 0.0
        for elapsed in pauses(self._seconds):
            self._workspace.take_reports()
            for sample in list(missing.values()):
                if letter := next(filter(None, map(self._letter, sample.files)), None):
                    self._report.check(f"{sample.title} is mirrored", _quoted(letter), holds=False)
                elif self._is_there(repository, sample):
                    self._report.say(f"{sample.title} is in ECR")
                    arrived.append(sample)
                else:
                    continue
                del missing[sample.title]
            broken = self._letter(BROKEN.path)
            if not missing and broken:
                break
            if elapsed - said > _SAY_AGAIN_SECONDS:
                said = elapsed
                self._report.say(f"waiting for {', '.join([*missing, *([] if broken else [BROKEN.title])])}")
        for title in missing:
            self._report.check(f"{title} is mirrored", self._why_not(), holds=False)
        self._check_rejection()
        return arrived

    def _is_there(self, repository: Repository, sample: Sample) -> bool:
        if sample.tag:
            return repository.image(tag=sample.tag) is not None
        return all(repository.has_layer(digest) for digest in sample.blobs)

    def _letter(self, path: str) -> DeadLetter | None:
        """What the function reported of a file."""
        key = self._workspace.folder + path
        return next((letter for letter in self._workspace.reports if letter.key == key), None)

    def _check_rejection(self) -> None:
        what = f"{BROKEN.title} is rejected as {BROKEN.error_type}"
        letter = self._letter(BROKEN.path)
        seen = _quoted(letter) if letter else f"No report of it is in the dead-letter queue. {self._why_not()}"
        self._report.check(what, seen, holds=letter is not None and letter.error_type == BROKEN.error_type)

    def _why_not(self) -> str:
        """Where to look if the stack does not answer in time."""
        waiting, in_progress = self._workspace.messages()
        deployment = self._workspace.deployment
        if waiting and not in_progress:
            hint = (
                f"{waiting} messages wait in the work queue, and the function takes none: is its event source enabled?"
            )
        elif not waiting and not in_progress:
            hint = "The work queue is empty: does the bucket send its events to it?"
        else:
            hint = "The function is still at it, or will try again."
        return (
            f"Not within {self._seconds:.0f} s. {hint} Its log: aws logs tail {deployment.log_group} --region "
            f"{deployment.region} --since 15m --filter-pattern '\"{self._workspace.name}\"'"
        )

    def _compare(self, repository: Repository, sample: Sample, part_size: int) -> None:
        """Pulls back what the sample has made, and compares it byte for byte."""
        differences: list[str] = []
        manifests = sample.image.manifests if sample.image else {}
        for digest, content in manifests.items():
            found = repository.image(digest=digest)
            differences += _difference(f"the manifest {digest}", content, found.manifest if found else None)
        if sample.image and sample.tag:
            tagged = repository.image(tag=sample.tag)
            if tagged is None or tagged.digest != sample.image.digest:
                named = tagged.digest if tagged else "nothing"
                differences.append(f"the tag {sample.tag} names {named}, not {sample.image.digest}")
        for digest, content in sample.blobs.items():
            differences += _difference(f"the layer {digest}", content, repository.layer(digest), part_size)
        same = f"pulled by digest: {', '.join([*manifests, *sample.blobs])}"
        self._report.check(f"{sample.title} is the same in ECR", "; ".join(differences) or same, holds=not differences)

    def _repeat(self, repository: Repository, records: list[Any]) -> None:
        """Gives the function the same events twice. What it sends, only its answer says; ECR tells of images.

        Without versions in the bucket, S3's own events have a sequencer that nobody else knows. So to the function the
        first time may be another write of a layer.
        """
        self._invoke(records)
        before = repository.pushed()
        answered = self._invoke(records)
        results = answered.get("results", [])
        sent = [f"{result['key']}: {result['action']}" for result in results if result["action"] not in _NOTHING_SENT]
        if len(results) != len(records):
            sent.append(f"the function answered for {len(results)} of them: {answered.get('errorMessage', answered)}")
        if repository.pushed() != before:
            sent.append("ECR has another time for an image")
        actions = [result["action"] for result in results]
        same = ", ".join(f"{action}: {actions.count(action)}" for action in _NOTHING_SENT)
        self._report.check(
            f"the same {len(records)} events again send nothing", "; ".join(sent) or same, holds=not sent
        )

    def _invoke(self, records: list[Any]) -> Any:
        answer = self._clients.functions.invoke(
            FunctionName=self._workspace.deployment.function, Payload=json.dumps({"Records": records})
        )
        return json.loads(answer["Payload"].read())


# The actions in the function's answer that mean that nothing was sent.
_NOTHING_SENT: Final = ("skipped", "ignored")


def _quoted(letter: DeadLetter) -> str:
    return f"{letter.error_type}: {letter.reason}"


def _difference(what: str, expected: bytes, found: bytes | None, part_size: int | None = None) -> list[str]:
    """How the content found differs from the expected one; empty if it does not."""
    if found == expected:
        return []
    if not found:
        return [f"{what} has no content"]
    same = next((at for at, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other), None)
    at = min(len(expected), len(found)) if same is None else same
    part = f", in part {at // part_size + 1}" if part_size else ""
    return [f"{what} comes back with {len(found):,} bytes as {digest_of(found)}; it differs from byte {at:,} on{part}"]
