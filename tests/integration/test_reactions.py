"""Walks docs/reactions.md: every answer of ECR, S3 and DynamoDB, given once, or until the fault is mended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest

from local.invocation import Invocation, put_event
from local.stack import BUCKET
from s3_to_ecr.errors import S3ToEcrError
from tests.conftest import ROOT, SMALL_PART
from tests.doubles.ecr import EcrDouble
from tests.doubles.gremlin import Gremlin
from tests.doubles.s3 import Pattern, S3Double, Stored
from tests.doubles.server import Fault

pytestmark = pytest.mark.usefixtures("no_backoff", "small_parts")

PART = SMALL_PART
SIZE = 3500
FOREVER = 10_000
OPERATIONS = [
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
]


@dataclass(frozen=True)
class Reaction:
    """One call's reaction to one answer, as the table has it."""

    call: str
    known: bool
    answer: str
    once: str
    lasting: str
    anew: bool

    def __str__(self) -> str:
        return f"{self.call} {self.answer}, digest {'known' if self.known else 'unknown'}"


def reactions() -> Iterator[Reaction]:
    """The rows of the tables, one for each of the calls and answers that a row names."""
    for line in (ROOT / "docs/reactions.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        calls, answers, _, once, lasting = cells
        [once_name], [lasting_name] = re.findall("`(.+?)`", once), re.findall("`(.+?)`", lasting)
        for call in re.findall("`(.+?)`", calls):
            for answer in re.findall("`(.+?)`", answers):
                for operation in OPERATIONS if call == "ecr:*" else [call]:
                    for known in (True, False):
                        if f"digest {'unknown' if known else 'known'}" in calls:
                            continue
                        if operation == "ecr:BatchCheckLayerAvailability" and not known:
                            continue  # there is nothing to ask for
                        yield Reaction(operation, known, answer, once_name, lasting_name, "anew" in once)


@pytest.fixture
def handler(doubled: dict[str, str], load_handler: Callable[..., Any]) -> Any:
    return load_handler(doubled)


def arrange(reaction: Reaction, gremlin: Gremlin, s3: S3Double, ecr: EcrDouble, stored: Stored, times: int) -> None:
    """Lets the answer be given so many `times`."""
    nth = 2 if reaction.call in ("ecr:UploadLayerPart", "s3:GetObject") else 1
    [key] = s3.objects
    digest = Pattern(SIZE).digest
    match reaction.answer:
        case "leased to another":
            pass  # by the test itself, around the invocation
        case "short read":
            s3.faults.add("BreakBody", Fault(), nth=nth, times=times)
        case "another size":
            s3.objects[key] = Stored(Pattern(SIZE + 1), stored.etag)
        case "ECR lost bytes":
            ecr.min_part_bytes = 1
            gremlin.meddle(reaction.call, lambda: ecr.truncate_uploads(PART // 2), nth=nth, times=times)
        case "RepositoryAlreadyExistsException":
            gremlin.meddle(reaction.call, lambda: ecr.create("new"))
        case "LayerAlreadyExistsException":
            content = stored.content.slice(0, SIZE)
            gremlin.meddle(reaction.call, lambda: ecr.repositories["app"].layers.update({digest: content}))
        case fault:
            gremlin.fail(reaction.call, fault, nth=nth, times=times)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("reaction", list(reactions()), ids=str)
def test_every_answer_has_the_reaction_that_is_documented(
    reaction: Reaction, lasting: bool, handler: Any, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    content = Pattern(SIZE)
    stored = Stored(content)
    repository = "app"
    if reaction.call == "ecr:CreateRepository":
        repository = "new"
        handler.layers._settings = replace(handler.settings, create_repositories=True)
    key = f"{repository}/{content.digest if reaction.known else 'layer'}"
    s3_double.objects[key] = stored
    event = put_event(key, SIZE, stored.etag)
    if reaction.call == "s3:HeadObject":
        del event["Records"][0]["s3"]["object"]["size"]

    layer = content.digest if reaction.known else f'IfMatch "{stored.etag}" of s3://{BUCKET}/{key}'
    with handler.ledger.lease(None, "app", layer) if reaction.answer == "leased to another" else nullcontext():
        arrange(reaction, gremlin, s3_double, strict_ecr, stored, FOREVER if lasting else 1)
        outcome = invoke(handler, event)
    assert outcome == (reaction.lasting if lasting else reaction.once)

    if outcome != "uploaded":
        # Once the fault is mended, and the lease of an invocation that could not give it back has ended.
        gremlin.rest()
        s3_double.faults.rest()
        s3_double.objects[key] = stored
        handler.ledger._clock = lambda: 4_000_000_000
        assert invoke(handler, event) in ("uploaded", "skipped")
    assert strict_ecr.content_of(repository, content.digest) == content.slice(0, SIZE)
    assert list(strict_ecr.repositories[repository].layers) == [content.digest]
    if not reaction.anew and outcome not in ("TransferCorrupted", "DigestMismatch", "UploadLost"):
        # Again and again, the SDK sends a part three times more, and the next delivery asks ECR where it stands.
        more = 4 if lasting else 1.5 if reaction.answer == "ECR lost bytes" else 1
        assert strict_ecr.bytes_received <= SIZE + more * PART


def invoke(handler: Any, event: dict[str, Any]) -> str:
    """What becomes of the event's one object."""
    try:
        [result] = handler.lambda_handler(event, Invocation())["results"]
    except S3ToEcrError as error:
        return type(error).__name__
    return str(result["action"])


def test_every_error_of_a_transfer_is_in_the_table() -> None:
    documented = {name for reaction in reactions() for name in (reaction.once, reaction.lasting)}
    assert documented - {"uploaded"} == {
        "AccessDenied", "DigestMismatch", "ObjectArchived", "ObjectChanged", "ObjectMissing", "RepositoryMissing",
        "RequestRefused", "ServiceUnavailable", "TransferCorrupted", "UploadInProgress", "UploadLost",
    }  # fmt: skip
