"""Tests docs/reactions.md: every answer of ECR, S3 and DynamoDB, given once or until the fault is repaired.

Calls for images are tested with an image, all others with a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import pytest

from local import images
from local.invocation import Invocation, put_event
from local.stack import BUCKET
from s3_to_ecr.errors import S3ToEcrError
from tests.conftest import ROOT, SMALL_PART
from tests.doubles.ecr import CREATION_TEMPLATE, LIFECYCLE_POLICY, REPOSITORY_POLICY, EcrDouble, Image
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import let_pauses_pass
from tests.doubles.layouts import assert_pullable, put_all
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
IMAGE_OPERATIONS = ["ecr:BatchGetImage", "ecr:PutImage"]
# The calls for a repository that is left unfinished, and those for one that is missing.
FINISHING = ["ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy"]
CREATING = [
    "ecr:DescribeRepositoryCreationTemplates",
    "ecr:CreateRepository",
    "ecr:PutLifecyclePolicy",
    "ecr:SetRepositoryPolicy",
    *FINISHING,
]
IMAGE = images.image([b"layer"])


@dataclass(frozen=True)
class Reaction:
    """The documented reaction to one answer of one call."""

    call: str
    known: bool
    answer: str
    once: str
    lasting: str
    anew: bool
    of_image: bool
    is_failure: bool

    def __str__(self) -> str:
        kind = "of an image" if self.of_image else f"digest {'known' if self.known else 'unknown'}"
        return f"{self.call} {self.answer}, {kind}"


def reactions() -> Iterator[Reaction]:
    """The rows of the tables, one for each call and answer that a row names."""
    for line in (ROOT / "docs/reactions.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        calls, answers, _, once, lasting = cells
        [once_name], [lasting_name] = re.findall("`(.+?)`", once), re.findall("`(.+?)`", lasting)
        for call in re.findall("`(.+?)`", calls):
            for answer in re.findall("`(.+?)`", answers):
                for operation in [*OPERATIONS, *IMAGE_OPERATIONS] if call == "ecr:*" else [call]:
                    of_image = operation in IMAGE_OPERATIONS or "of an image" in calls
                    for known in (True, False):
                        if f"digest {'unknown' if known else 'known'}" in calls or (of_image and not known):
                            continue
                        if operation == "ecr:BatchCheckLayerAvailability" and not known:
                            continue  # without a digest there is nothing to check
                        yield Reaction(
                            operation, known, answer, once_name, lasting_name, "anew" in once, of_image,
                            is_failure="of one image" in calls,
                        )  # fmt: skip


def arrange(reaction: Reaction, gremlin: Gremlin, s3: S3Double, ecr: EcrDouble, stored: Stored, times: int) -> None:
    """Makes the call get this answer this number of `times`."""
    nth = 2 if reaction.call in ("ecr:UploadLayerPart", "s3:GetObject") else 1
    [key] = s3.objects
    digest = Pattern(SIZE).digest
    match reaction.answer:
        case "leased to another":
            pass  # the test itself holds the lease during the invocation
        case "short read":
            s3.faults.add("BreakBody", Fault(), nth=nth, times=times)
        case "another size":
            s3.objects[key] = Stored(Pattern(SIZE + 1), stored.etag)
        case "stale receipts" | "relative receipts":
            ecr.receipts = "stale" if reaction.answer.startswith("stale") else "relative"
        case completing if completing.endswith(" while completing"):
            ecr.complete_seconds, ecr.while_completing = 30, cast("Any", completing.partition(" ")[0])
            ecr.faults.add("CompleteLayerUpload", Fault(after=True))
        case lost if lost.startswith("ECR lost bytes"):
            ecr.min_part_bytes = 1
            told = lost.removeprefix("ECR lost bytes").removeprefix(", ").removeprefix("position ")
            ecr.refusals = cast("Any", told or "member")
            gremlin.meddle(reaction.call, lambda: ecr.truncate_uploads(PART // 2), nth=nth, times=times)
        case "RepositoryAlreadyExistsException":
            gremlin.meddle(reaction.call, lambda: ecr.create("new"))
        case "LayerAlreadyExistsException":
            content = stored.content.slice(0, SIZE)
            gremlin.meddle(reaction.call, lambda: ecr.repositories["app"].layers.update({digest: content}))
        case fault:
            gremlin.fail(reaction.call, fault, nth=nth, times=times)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("reaction", [reaction for reaction in reactions() if not reaction.of_image], ids=str)
def test_every_answer_has_its_documented_reaction(
    reaction: Reaction,
    lasting: bool,
    handler: Function,
    gremlin: Gremlin,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = Pattern(SIZE)
    stored = Stored(content)
    repository = "app"
    let_pauses_pass(monkeypatch, strict_ecr)
    if reaction.call in CREATING:
        repository = "new"
        handler.configure(create_repositories=True)
        strict_ecr.creation_templates = [CREATION_TEMPLATE]
        if reaction.call in FINISHING:
            strict_ecr.create(repository)
            handler.unfinished_repositories.begin((None, repository))
    key = f"{repository}/{content.digest if reaction.known else 'layer'}"
    s3_double.objects[key] = stored
    event = put_event(key, SIZE, stored.etag)
    if reaction.call == "s3:HeadObject":
        del event["Records"][0]["s3"]["object"]["size"]

    layer = content.digest if reaction.known else f'IfMatch "{stored.etag}" of s3://{BUCKET}/{key}'
    with handler.leases.layer((None, "app"), layer) if reaction.answer == "leased to another" else nullcontext():
        arrange(reaction, gremlin, s3_double, strict_ecr, stored, FOREVER if lasting else 1)
        outcome = invoke(handler, event)
    assert outcome == (reaction.lasting if lasting else reaction.once)

    if outcome != "uploaded":
        # The fault is repaired, and a lease that could not be released has ended.
        gremlin.rest()
        s3_double.faults.rest()
        s3_double.objects[key] = stored
        handler.let_leases_end()
        assert invoke(handler, event) in ("uploaded", "skipped")
    assert strict_ecr.content_of(repository, content.digest) == content.slice(0, SIZE)
    assert list(strict_ecr.repositories[repository].layers) == [content.digest]
    if reaction.call in CREATING and reaction.answer != "UnknownOperationException":
        made = strict_ecr.repositories[repository]
        assert (made.lifecycle_policy, made.repository_policy) == (LIFECYCLE_POLICY, REPOSITORY_POLICY)
    if not reaction.anew and outcome not in ("TransferCorrupted", "DigestMismatch", "UploadLost"):
        # While a fault lasts, the SDK sends a part four times. The next delivery may send one to learn ECR's position.
        more = 4 if lasting else 1.5 if reaction.answer.startswith("ECR lost bytes") else 1
        assert strict_ecr.bytes_received <= SIZE + more * PART


def invoke(handler: Function, event: dict[str, Any]) -> str:
    """The action, or the type of the error, for the event's only object."""
    try:
        [result] = handler.lambda_handler(event, Invocation())["results"]
    except S3ToEcrError as error:
        return type(error).__name__
    return str(result["action"]).replace("pushed", "uploaded")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("reaction", [reaction for reaction in reactions() if reaction.of_image], ids=str)
def test_every_answer_to_an_images_calls_has_its_documented_reaction(
    reaction: Reaction, lasting: bool, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put_all(s3_double, images.oci_layout({"1.0": IMAGE}))[0]
    repository = strict_ecr.repositories["app"]

    def put_already() -> None:
        repository.images[IMAGE.digest] = Image(IMAGE.manifest.decode(), IMAGE.media_type)
        repository.tags["1.0"] = IMAGE.digest

    everything = dict(s3_double.objects)
    if reaction.answer == "ImageAlreadyExistsException":
        gremlin.meddle(reaction.call, put_already)
    elif reaction.answer == "NoSuchKey" and lasting:
        del s3_double.objects[f"app/blobs/{next(iter(IMAGE.blobs)).replace(':', '/')}"]
    elif reaction.is_failure:
        strict_ecr.faults.add("ImageFailure", Fault(reaction.answer), times=FOREVER if lasting else 1)
    else:
        # The first two calls are for the index and the manifest, the third for a blob.
        nth = 3 if reaction.call == "s3:HeadObject" else 1
        gremlin.fail(reaction.call, reaction.answer, nth=nth, times=FOREVER if lasting else 1)
    outcome = invoke(handler, event)
    assert outcome == (reaction.lasting if lasting else reaction.once)

    if outcome != "uploaded":
        assert repository.tags == {} or "after" in reaction.answer
        gremlin.rest()
        strict_ecr.faults.rest()
        s3_double.objects.update(everything)
        handler.let_leases_end()
        assert invoke(handler, event) in ("uploaded", "skipped")
    assert_pullable(strict_ecr, "1.0", IMAGE)
    assert strict_ecr.bytes_received == sum(map(len, IMAGE.blobs.values()))


def test_every_error_of_a_transfer_is_in_the_table() -> None:
    documented = {name for reaction in reactions() for name in (reaction.once, reaction.lasting)}
    assert documented - {"uploaded"} == {
        "AccessDenied", "BlobsMissing", "BrokenManifest", "DigestMismatch", "ObjectArchived", "ObjectChanged",
        "ObjectMissing", "RepositoryMissing", "RequestRefused", "ServiceUnavailable", "TagTaken", "TransferCorrupted",
        "UploadInProgress", "UploadLost",
    }  # fmt: skip
