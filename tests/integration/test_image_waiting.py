"""An image waits for missing blobs. The arrival of the last one pushes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from local import images
from local.layers import layer
from s3_to_ecr.dispatcher import Dispatcher
from s3_to_ecr.errors import (
    BlobsMissing,
    ObjectChanged,
    OutOfTime,
    RetryLater,
    ServiceUnavailable,
    UploadInProgress,
)
from s3_to_ecr.s3_objects import S3Object
from s3_to_ecr.state.waiting_images import WaitingImages
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import Hourglass
from tests.doubles.layouts import (
    AMD64,
    ARM64,
    FOLDERS,
    KINDS,
    LAYOUTS,
    MULTI_ARCH,
    assert_pullable,
    invoke,
    put,
    put_all,
)
from tests.doubles.s3 import S3Double

pytestmark = pytest.mark.usefixtures("no_backoff")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["OCI layout", "static registry", "registry storage", "skopeo dir"])
@pytest.mark.parametrize("order", [list, lambda files: list(reversed(files))], ids=["as written", "reversed"])
def test_files_may_arrive_in_any_order_and_the_last_one_pushes_the_image(
    order: Callable[[Any], list[str]],
    layout: str,
    kind: str,
    handler: Function,
    s3_double: S3Double,
    strict_ecr: EcrDouble,
) -> None:
    built = KINDS[kind]
    files = LAYOUTS[layout](built)

    for path in order(files):
        assert not strict_ecr.repositories["app"].tags
        with suppress(BlobsMissing):
            invoke(handler, put_all(s3_double, {path: files[path]}, FOLDERS.get(layout, "app/")))
    assert_pullable(strict_ecr, "1.0", built)


def test_a_blob_that_arrives_while_its_note_is_written_is_pushed_at_once(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("1.0", AMD64)
    [first, *_] = put_all(s3_double, files)
    missing = f"app/blobs/{next(iter(AMD64.blobs))}"
    stored = s3_double.objects.pop(missing)
    gremlin.meddle("dynamodb:UpdateItem", lambda: s3_double.objects.update({missing: stored}))

    assert invoke(handler, [first])[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_an_image_whose_blob_is_overwritten_or_deleted_during_the_push_is_retried(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event, *_ = put_all(s3_double, images.static_registry("1.0", AMD64))
    key = f"app/blobs/{next(iter(AMD64.blobs))}"
    stored = s3_double.objects[key]

    # The same bytes with another ETag, as a different kind of upload gives them. Later, no blob for a while.
    gremlin.meddle("ecr:InitiateLayerUpload", lambda: s3_double.objects.update({key: replace(stored, etag="other")}))
    assert invoke(handler, [event])[0]["action"] == "pushed"
    assert_pullable(strict_ecr, "1.0", AMD64)

    strict_ecr.create("app")
    gremlin.rest()
    gremlin.meddle("ecr:InitiateLayerUpload", lambda: s3_double.objects.pop(key, None), times=10)
    with pytest.raises(BlobsMissing, match=key):
        invoke(handler, [event])
    gremlin.rest()
    assert invoke(handler, [put(s3_double, key, stored.content.slice(0, 10_000))])[0]["action"] == "uploaded"
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_an_image_whose_layer_is_leased_is_pushed_when_that_layer_arrives(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event, *_ = put_all(s3_double, images.static_registry("1.0", AMD64))
    digest, content = next(iter(AMD64.blobs.items()))

    with handler.leases.layer((None, "app"), digest), pytest.raises(UploadInProgress):
        invoke(handler, [event])
    assert strict_ecr.repositories["app"].tags == {}
    invoke(handler, [put(s3_double, f"app/blobs/{digest}", content)])
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_registrys_link_pushes_images_that_waited_for_its_layer(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.registry_storage("app", "1.0", AMD64)
    events = dict(zip(files, put_all(s3_double, files, ""), strict=True))
    digest = next(iter(AMD64.blobs))
    [tag] = [event for path, event in events.items() if path.endswith("current/link")]
    [link] = [event for path, event in events.items() if f"_layers/sha256/{digest.partition(':')[2]}" in path]

    with handler.leases.layer((None, "app"), digest), pytest.raises(UploadInProgress):
        invoke(handler, [tag])
    invoke(handler, [link])
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_each_image_of_a_layout_is_pushed_when_its_own_last_blob_arrives(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.oci_layout({"a": AMD64, "b": ARM64})
    paths = [f"blobs/sha256/{next(iter(built.blobs)).partition(':')[2]}" for built in (AMD64, ARM64)]
    contents = [files.pop(path) for path in paths]
    with pytest.raises(BlobsMissing, match="2 failures"):
        invoke(handler, put_all(s3_double, files)[:1])

    invoke(handler, [put(s3_double, f"app/{paths[1]}", contents[1])])
    assert strict_ecr.repositories["app"].tags == {"b": ARM64.digest}
    invoke(handler, [put(s3_double, f"app/{paths[0]}", contents[0])])
    assert_pullable(strict_ecr, "a", AMD64)


def test_a_static_registrys_child_may_arrive_under_either_key(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("1.0", MULTI_ARCH)
    for digest in (AMD64.digest, ARM64.digest):
        files[f"blobs/{digest}"] = files.pop(f"manifests/{digest}")

    for path, content in files.items():
        with suppress(BlobsMissing):
            invoke(handler, [put(s3_double, f"app/{path}", content)])
    assert_pullable(strict_ecr, "1.0", MULTI_ARCH)


def test_a_waiting_image_that_fails_does_not_stop_the_others(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("aa", AMD64) | images.static_registry("zz", AMD64)
    blob = f"blobs/{next(iter(AMD64.blobs))}"
    content = files.pop(blob)
    put_all(s3_double, files)
    for tag in ("aa", "zz"):
        with pytest.raises(BlobsMissing):
            invoke(handler, [put(s3_double, f"app/manifests/{tag}", AMD64.manifest)])

    gremlin.fail("ecr:PutImage", "error 500", times=4)
    with pytest.raises(ServiceUnavailable, match="manifests/aa"):
        invoke(handler, [put(s3_double, f"app/{blob}", content)])
    assert strict_ecr.repositories["app"].tags == {"zz": AMD64.digest}


def test_a_waiting_image_that_fails_is_retried_while_another_in_its_layout_still_waits(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.oci_layout({"a": AMD64, "b": ARM64})
    blob, missing = (f"blobs/sha256/{next(iter(built.blobs)).partition(':')[2]}" for built in (AMD64, ARM64))
    content = files.pop(blob)
    del files[missing]
    with pytest.raises(BlobsMissing):
        invoke(handler, put_all(s3_double, files)[:1])
    event = put(s3_double, f"app/{blob}", content)

    gremlin.fail("ecr:PutImage", "error 500", times=100)
    with pytest.raises(RetryLater, match="PutImage"):
        invoke(handler, [event])
    gremlin.rest()
    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert strict_ecr.repositories["app"].tags == {"a": AMD64.digest}


def test_a_waiting_image_with_another_layer_leased_is_retried(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("1.0", AMD64)
    first, second, *_ = AMD64.blobs
    content = files.pop(f"blobs/{first}")
    with pytest.raises(BlobsMissing):
        invoke(handler, put_all(s3_double, files)[:1])
    event = put(s3_double, f"app/blobs/{first}", content)

    with handler.leases.layer((None, "app"), second), pytest.raises(UploadInProgress):
        invoke(handler, [event])
    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_the_calls_for_waiting_images_grow_only_with_the_number_of_files(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = images.image([layer(f"srv/{number}", b"x") for number in range(40)])
    files = images.oci_layout({"1.0": built})

    for path, content in files.items():
        with suppress(BlobsMissing):
            invoke(handler, [put(s3_double, f"app/{path}", content)])

    assert_pullable(strict_ecr, "1.0", built)
    assert len(gremlin.calls) < 30 * len(files)


def test_an_image_whose_note_cannot_be_written_still_waits(
    handler: Function, gremlin: Gremlin, s3_double: S3Double
) -> None:
    event, *_ = put_all(s3_double, {"manifests/1.0": AMD64.manifest})

    gremlin.fail("dynamodb:UpdateItem", "ValidationException")
    with pytest.raises(BlobsMissing):
        invoke(handler, [event])


def test_a_waiting_image_that_is_rejected_does_not_fail_its_blob(
    handler: Function, s3_double: S3Double, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    files = images.static_registry("1.0", AMD64)
    del files[f"manifests/{AMD64.digest}"]
    blob = f"blobs/{next(iter(AMD64.blobs))}"
    content = files.pop(blob)
    first = put_all(s3_double, files)[0]
    with pytest.raises(BlobsMissing):
        invoke(handler, [first])

    # The tag's manifest has been replaced by something else in the meantime.
    put(s3_double, "app/manifests/1.0", b"<html>")
    event = put(s3_double, f"app/{blob}", content)
    assert invoke(handler, [event])[0]["action"] == "uploaded"
    [rejected] = [line for line in logs() if line["message"] == "Rejected"]
    assert (rejected["key"], rejected["error_type"]) == ("app/manifests/1.0", "BrokenManifest")

    # The next delivery does not retry it.
    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert len([line for line in logs() if line["message"] == "Rejected"]) == 1


def test_after_an_ecr_failure_the_blobs_next_delivery_retries_the_waiting_image(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("1.0", AMD64)
    blob = f"blobs/{next(iter(AMD64.blobs))}"
    content = files.pop(blob)
    with pytest.raises(BlobsMissing):
        invoke(handler, put_all(s3_double, files)[:1])
    event = put(s3_double, f"app/{blob}", content)

    gremlin.fail("ecr:PutImage", "error 500", times=100)
    with pytest.raises(ServiceUnavailable, match=r"s3://s3-to-ecr-local/app/manifests/1\.0: "):
        invoke(handler, [event])
    gremlin.rest()
    assert invoke(handler, [event])[0]["action"] == "skipped"
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_no_layer_of_an_image_is_uploaded_before_all_its_blobs_exist(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    files = images.static_registry("1.0", AMD64)
    del files[f"blobs/{list(AMD64.blobs)[-1]}"]

    with pytest.raises(BlobsMissing):
        invoke(handler, put_all(s3_double, files)[:1])
    assert strict_ecr.repositories["app"].layers == {}


def test_a_waiting_image_is_retried_although_another_in_its_layout_is_rejected(
    handler: Function, s3_double: S3Double
) -> None:
    files = images.oci_layout({"bad one": AMD64, "good": ARM64})
    missing = next(digest for digest in ARM64.blobs if digest not in AMD64.blobs)
    del files[images.blob_path(missing)]

    with pytest.raises(BlobsMissing, match=r"2 failures.*bad one"):
        invoke(handler, put_all(s3_double, files)[:1])


def test_an_image_whose_manifest_is_overwritten_while_it_is_read_waits(
    handler: Function, gremlin: Gremlin, s3_double: S3Double
) -> None:
    event = put_all(s3_double, images.oci_layout({"1.0": MULTI_ARCH}))[0]
    key = f"app/blobs/{AMD64.digest.replace(':', '/')}"
    stored = s3_double.objects[key]
    etags = itertools.count()

    def overwrite() -> None:
        s3_double.objects[key] = replace(stored, etag=f"{next(etags)}")

    gremlin.meddle("s3:GetObject", overwrite, times=50)
    with pytest.raises(BlobsMissing, match=key):
        invoke(handler, [event])


def test_an_image_archive_does_not_wait_for_itself(handler: Function, gremlin: Gremlin, s3_double: S3Double) -> None:
    event = put(s3_double, "app/1.tar", images.docker_save_25([], AMD64))

    with handler.leases.layer((None, "app"), next(iter(AMD64.blobs))), pytest.raises(UploadInProgress) as raised:
        invoke(handler, [event])
    assert raised.value.awaited == ()
    gremlin.meddle("ecr:InitiateLayerUpload", lambda: put(s3_double, "app/1.tar", b"new"))
    with pytest.raises(ObjectChanged):
        invoke(handler, [event])


def test_an_image_whose_blob_is_deleted_before_the_retry_waits_again(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = images.static_registry("1.0", AMD64)
    digest = next(iter(AMD64.blobs))
    blob, content = f"app/blobs/{digest}", files.pop(f"blobs/{digest}")
    with pytest.raises(BlobsMissing):
        invoke(handler, put_all(s3_double, files)[:1])
    run_job = Dispatcher._run_job

    def delete_first(dispatcher: Dispatcher, job: Any, target: S3Object) -> Any:
        if target.key != blob:
            s3_double.objects.pop(blob, None)
            strict_ecr.repositories["app"].layers.pop(digest, None)
        return run_job(dispatcher, job, target)

    with monkeypatch.context() as patch:
        patch.setattr(Dispatcher, "_run_job", delete_first)
        invoke(handler, [put(s3_double, blob, content)])
    assert strict_ecr.repositories["app"].tags == {}
    invoke(handler, [put(s3_double, blob, content)])
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_link_whose_blob_is_missing_retries_no_image(
    handler: Function, s3_double: S3Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: content for path, content in images.registry_storage("app", "1.0", AMD64).items() if "/link" in path}
    event = put_all(s3_double, files, "")[0]

    monkeypatch.setattr(WaitingImages, "keys", None)
    with pytest.raises(BlobsMissing, match=next(iter(AMD64.blobs))):
        invoke(handler, [event])


def waiting_for_a_layer(handler: Function, s3: S3Double, *tags: str) -> dict[str, Any]:
    """Lets images with these tags wait for one layer, and returns the event about it."""
    files = images.static_registry("1.0", AMD64)
    blob = f"blobs/{next(iter(AMD64.blobs))}"
    content = files.pop(blob)
    manifest = files.pop("manifests/1.0")
    put_all(s3, files)
    for tag in tags:
        with pytest.raises(BlobsMissing):
            invoke(handler, [put(s3, f"app/manifests/{tag}", manifest)])
    return put(s3, f"app/{blob}", content)


def test_the_result_for_the_last_blob_lists_the_images_that_it_completed(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    [result] = invoke(handler, [waiting_for_a_layer(handler, s3_double, "a", "b")])

    assert (result["action"], result["key"].rpartition("/")[2]) == ("uploaded", next(iter(AMD64.blobs)))
    assert [(image["key"], image["action"], image["images"][0]["tags"]) for image in result["completed"]] == [
        ("app/manifests/a", "pushed", ["a"]),
        ("app/manifests/b", "pushed", ["b"]),
    ]
    assert_pullable(strict_ecr, "b", AMD64)


def test_each_failure_of_a_waiting_image_is_logged_and_counted_under_its_own_key(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble,
    logs: Callable[[], list[dict[str, Any]]], metrics: Callable[[], dict[str, Any]],
) -> None:  # fmt: skip
    event = waiting_for_a_layer(handler, s3_double, "a", "b", "c")
    metrics()
    seen = len(logs())

    gremlin.fail("ecr:PutImage", "error 500", times=8)  # of the first two, including the SDK's retries
    with pytest.raises(ServiceUnavailable, match="2 failures"):
        invoke(handler, [event])

    retried = [line["key"] for line in logs()[seen:] if line["message"] == "Will be retried"]
    assert retried[:2] == ["app/manifests/a", "app/manifests/b"]
    assert metrics()["RetriedLater"] == 3  # these two, and the layer's event, which retries them
    assert_pullable(strict_ecr, "c", AMD64)
    gremlin.rest()
    [result] = invoke(handler, [event])
    assert [image["key"] for image in result["completed"]] == ["app/manifests/a", "app/manifests/b"]


def test_running_out_of_time_outranks_other_failures_of_waiting_images(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, outcomes: list[Outcomes]
) -> None:
    event = waiting_for_a_layer(handler, s3_double, "a", "b")
    invocation = Hourglass(60)

    gremlin.fail("ecr:PutImage", "error 500", times=4)
    gremlin.meddle("ecr:BatchGetImage", lambda: invocation.pass_by(58.5), nth=2)
    with pytest.raises(OutOfTime, match=r"2 failures: .*ServerException.*; .* s left"):
        handler.lambda_handler(event, invocation)
    assert outcomes[-1].progressed  # the layer itself was uploaded


def test_every_key_that_a_missing_manifest_may_have_gets_a_note(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """Some static registries keep the children of an index under `blobs/` only."""
    files = images.static_registry("1.0", MULTI_ARCH)
    child = files.pop(f"manifests/{AMD64.digest}")
    with pytest.raises(BlobsMissing) as raised:
        invoke(handler, put_all(s3_double, files)[:1])
    assert len(raised.value.awaited) == 2

    invoke(handler, [put(s3_double, f"app/blobs/{AMD64.digest}", child)])
    assert_pullable(strict_ecr, "1.0", MULTI_ARCH)
