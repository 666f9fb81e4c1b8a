"""Which image a tag names in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from local import images
from local.invocation import put_event
from s3_to_ecr.errors import (
    OutOfTime,
    S3ToEcrError,
    TagTaken,
    UploadInProgress,
)
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.ecr import EcrDouble, Image
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import Hourglass
from tests.doubles.layouts import (
    AMD64,
    ARM64,
    FOLDERS,
    LAYOUTS,
    MULTI_ARCH,
    assert_pullable,
    assert_there,
    etag,
    invoke,
    put,
    put_all,
)
from tests.doubles.s3 import Bytes, S3Double, Stored
from tests.doubles.server import Fault

pytestmark = pytest.mark.usefixtures("no_backoff")


def test_with_immutable_tags_a_repeat_is_skipped_and_another_image_is_rejected(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.repositories["app"].immutable_tags = True
    first = put_all(s3_double, images.static_registry("1.0", AMD64))
    invoke(handler, first)
    strict_ecr.calls.clear()

    assert invoke(handler, [first[0]])[0]["action"] == "skipped"
    assert strict_ecr.operations == ["BatchGetImage"]

    other = put_all(s3_double, images.static_registry("1.0", ARM64))
    with pytest.raises(TagTaken, match=r"tag 1\.0: .*immutable"):
        invoke(handler, [other[0]])
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_tag_that_is_taken_does_not_stop_the_images_other_tags(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    invoke(handler, [put(s3_double, "app/x.tar", images.docker_save(["app:1", "app:2"], ARM64))])
    strict_ecr.repositories["app"].immutable_tags = True
    before = dict(strict_ecr.repositories["app"].tags)

    with pytest.raises(TagTaken, match=r"2 failures: tag 1: .*; tag 2: "):
        invoke(handler, [put(s3_double, "app/y.tar", images.docker_save_25(["app:1", "app:2", "app:3"], AMD64))])

    assert strict_ecr.repositories["app"].tags == before | {"3": AMD64.digest}


def test_a_tag_that_another_invocation_has_just_set_is_no_error(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    repository = strict_ecr.repositories["app"]
    repository.immutable_tags = True

    def put_first() -> None:
        repository.images[AMD64.digest] = Image(AMD64.manifest.decode(), AMD64.media_type)
        repository.tags["1.0"] = AMD64.digest

    gremlin.meddle("ecr:PutImage", put_first)
    results = invoke(handler, put_all(s3_double, images.static_registry("1.0", AMD64))[:1])

    assert results[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "1.0", AMD64)


@pytest.mark.parametrize("layout", ["static registry", "OCI layout", "registry storage"])
def test_a_tag_names_the_image_written_last_whatever_the_order_of_events(
    layout: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    folder = FOLDERS.get(layout, "app/")
    old = put_all(s3_double, LAYOUTS[layout](AMD64), folder)
    new = put_all(s3_double, LAYOUTS[layout](ARM64), folder)

    invoke(handler, [*new, *old])

    assert_pullable(strict_ecr, "1.0", ARM64)


def test_an_overwritten_archive_does_not_move_tags_back(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    old = images.docker_save_25(["app:latest", "app:1"], AMD64)
    new = put(s3_double, "app/image.tar", images.docker_save_25(["app:latest", "app:2"], ARM64))
    invoke(handler, [new])
    # The event of the older version is late. The key names the newer version by then.
    s3_double.versions["app/image.tar", "v0"] = Stored(Bytes(old), etag(old), "v0")
    late = put_event("app/image.tar", len(old), etag(old), versionId="v0")

    [result] = invoke(handler, [late])

    assert result["action"] == "pushed"
    assert strict_ecr.repositories["app"].tags == {"latest": ARM64.digest, "2": ARM64.digest, "1": AMD64.digest}
    assert_there(strict_ecr, AMD64)


def test_a_tag_that_several_archives_set_names_the_image_written_last(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    old = put(s3_double, "app/build-1.tar", images.docker_save_25(["app:latest", "app:1"], AMD64), modified=1)
    new = put(s3_double, "app/build-2.tar", images.docker_save_25(["app:latest", "app:2"], ARM64), modified=2)
    expected = {"latest": ARM64.digest, "2": ARM64.digest, "1": AMD64.digest}

    invoke(handler, [old, new])
    assert strict_ecr.repositories["app"].tags == expected
    # S3 may send an event twice, and a backfill may send it years later.
    [again] = invoke(handler, [old])
    assert strict_ecr.repositories["app"].tags == expected
    assert (again["action"], again["images"]) == (
        "skipped",
        [{"repository": "app", "digest": AMD64.digest, "tags": ["1"]}],
    )

    strict_ecr.create("app")
    invoke(handler, [new, old])
    assert strict_ecr.repositories["app"].tags == expected
    assert_there(strict_ecr, AMD64)


def test_tagging_an_image_again_counts_as_the_last_write_even_if_the_tag_is_set(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """The third build is the first image again, so its tag is already set. The second build's event is late."""
    first, again = images.docker_save_25(["app:latest"], AMD64), images.docker_save_25(["app:latest", "app:b3"], AMD64)
    builds = [
        put(s3_double, "app/b1.tar", first, modified=1),
        put(s3_double, "app/b2.tar", images.docker_save_25(["app:latest"], ARM64), modified=2),
        put(s3_double, "app/b3.tar", again, modified=3),
    ]

    invoke(handler, [builds[0], builds[2], builds[2], builds[1]])

    assert strict_ecr.repositories["app"].tags["latest"] == AMD64.digest


def test_a_claim_on_a_tag_that_ecr_lacks_does_not_block_an_older_image(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    old = put(s3_double, "app/b1.tar", images.docker_save_25(["app:latest"], AMD64), modified=1)
    new = put(s3_double, "app/b2.tar", images.docker_save_25(["app:latest"], ARM64), modified=2)
    invoke(handler, [new])
    strict_ecr.create("app")  # an empty one

    assert invoke(handler, [old])[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "latest", AMD64)


def test_an_image_that_has_lost_all_its_tags_to_later_writes_is_skipped_with_a_reason(
    handler: Function,
    s3_double: S3Double,
    metrics: Callable[[], dict[str, Any]],
    logs: Callable[[], list[dict[str, Any]]],
) -> None:
    old = put(s3_double, "app/b1.tar", images.docker_save_25(["app:latest"], AMD64), modified=1)
    new = put(s3_double, "app/b2.tar", images.docker_save_25(["app:latest"], ARM64), modified=2)
    invoke(handler, [old, new])
    metrics()

    [result] = invoke(handler, [old])

    assert (result["action"], result["images"]) == (
        "skipped",
        [{"repository": "app", "digest": AMD64.digest, "tags": []}],
    )
    assert "later writes" in result["reason"]
    assert metrics()["ImagesSkipped"] == 1
    assert logs()[-1]["message"] == "Image skipped"


def test_a_repeat_is_skipped_although_ecr_converts_by_tag(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.converts_by_tag = True
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]
    invoke(handler, [event])
    strict_ecr.calls.clear()

    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert strict_ecr.operations == ["BatchGetImage"]


def test_the_tag_of_an_archived_image_is_not_free(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    old = put(s3_double, "app/b1.tar", images.docker_save_25(["app:latest"], AMD64), modified=1)
    new = put(s3_double, "app/b2.tar", images.docker_save_25(["app:latest"], ARM64), modified=2)
    invoke(handler, [new])
    strict_ecr.repositories["app"].archived.add(ARM64.digest)

    [result] = invoke(handler, [old])

    assert result["images"] == [{"repository": "app", "digest": AMD64.digest, "tags": []}]
    assert strict_ecr.repositories["app"].tags == {"latest": ARM64.digest}


@pytest.mark.parametrize("code", ["KmsError", "SomethingNew"])
def test_a_tag_that_cannot_be_read_is_not_set(
    code: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]
    strict_ecr.faults.add("ImageFailure", Fault(code), nth=2)

    with pytest.raises(S3ToEcrError, match=code):
        invoke(handler, [event])
    assert strict_ecr.operations == ["BatchGetImage"]


@pytest.mark.parametrize("immutable", [False, True])
def test_pushing_an_archived_image_restores_it(
    immutable: bool, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    repository = strict_ecr.repositories["app"]
    repository.immutable_tags = immutable
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]
    invoke(handler, [event])
    repository.archived |= {AMD64.digest, *repository.layers}

    assert invoke(handler, [event])[0]["action"] == "pushed"
    assert repository.archived == set()
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_tag_that_an_archive_names_repeatedly_is_set_once(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    saved = images.docker_save(["app:1.0", "mirror/app:1.0", "example.com/app:1.0"], AMD64)

    [result] = invoke(handler, [put(s3_double, "app/x.tar", saved)])

    assert result["images"][0]["tags"] == ["1.0"]
    assert len(strict_ecr.calls_of("PutImage")) == 1


def test_a_tag_is_set_by_one_invocation_at_a_time(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]

    with (
        handler.leases.tag((None, "app"), "1.0"),
        pytest.raises(UploadInProgress),
    ):
        invoke(handler, [event])
    assert strict_ecr.repositories["app"].tags == {}
    invoke(handler, [event])
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_tag_is_claimed_in_its_own_repository(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    strict_ecr.create("other")
    new = put(s3_double, "app/1.tar", images.docker_save_25([], AMD64), modified=2)
    old = put(s3_double, "other/1.tar", images.docker_save_25([], ARM64), modified=1)

    invoke(handler, [new, old])

    assert_pullable(strict_ecr, "1", ARM64, "other")


def test_a_new_tag_for_an_image_that_ecr_has_costs_two_calls(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    invoke(handler, put_all(s3_double, images.static_registry("1.0", MULTI_ARCH))[:1])
    strict_ecr.calls.clear()

    invoke(handler, [put(s3_double, "app/manifests/2.0", MULTI_ARCH.manifest)])

    assert strict_ecr.operations == ["BatchGetImage", "PutImage"]


def test_an_archive_that_is_deleted_during_the_push_still_sets_a_new_tag(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put(s3_double, "app/1.0.tar", images.docker_save_25([], AMD64))

    gremlin.meddle("ecr:CompleteLayerUpload", lambda: s3_double.objects.pop("app/1.0.tar"), nth=len(AMD64.blobs))
    assert invoke(handler, [event])[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_setting_several_tags_stops_in_time_and_makes_progress(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble, outcomes: list[Outcomes]
) -> None:
    event = put(s3_double, "app/x.tar", images.docker_save([f"app:{number}" for number in range(6)], AMD64))
    invocation = Hourglass(60)

    gremlin.meddle("ecr:PutImage", lambda: invocation.pass_by(20), times=10)
    with pytest.raises(OutOfTime):
        handler.lambda_handler(event, invocation)

    assert outcomes[-1].progressed
    assert len(strict_ecr.repositories["app"].tags) == 3
