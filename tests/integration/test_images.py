"""Whole images in every layout, from a bucket's objects to a pullable image, with strict doubles of S3 and ECR."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from local import images
from local.images import Built
from local.invocation import Invocation
from local.layers import layer
from s3_to_ecr.ecr.layer_part import base64_bytes
from s3_to_ecr.errors import (
    BlobsMissing,
    DigestMismatch,
    OutOfTime,
    RepositoryMissing,
    UnsupportedManifest,
    UploadInProgress,
)
from s3_to_ecr.push.layer import LayerPusher
from s3_to_ecr.telemetry.outcomes import Outcomes
from tests.conftest import ROOT, SMALL_PART, Load
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.invocation import Hourglass, let_parts_take
from tests.doubles.layouts import (
    AMD64,
    ARM64,
    FOLDERS,
    KINDS,
    LAYERS,
    LAYOUTS,
    MULTI_ARCH,
    assert_pullable,
    assert_there,
    invoke,
    put,
    put_all,
)
from tests.doubles.s3 import S3Double

pytestmark = pytest.mark.usefixtures("no_backoff")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_in_any_layout_keeps_its_digests(
    layout: str, kind: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = KINDS[kind]
    events = put_all(s3_double, LAYOUTS[layout](built), FOLDERS.get(layout, "app/"))

    results = invoke(handler, events)

    assert_pullable(strict_ecr, "1.0", built)
    assert list(strict_ecr.repositories["app"].tags) == ["1.0"]
    assert "pushed" in {result["action"] for result in results}
    pushed = [result for result in results if result["action"] == "pushed" and result["images"][0]["tags"]]
    assert [(result["digest"], result["images"]) for result in pushed] == [
        (built.digest, [{"repository": "app", "digest": built.digest, "tags": ["1.0"]}])
    ]

    # The same events again: nothing is sent, and nothing fails.
    strict_ecr.calls.clear()
    again = invoke(handler, events)
    assert {result["action"] for result in again} <= {"skipped", "ignored"}
    assert set(strict_ecr.operations) <= {"BatchGetImage", "BatchCheckLayerAvailability"}
    assert len(strict_ecr.calls) <= len(events)


def test_nondistributable_layers_are_left_out_and_the_rest_is_unchanged(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    zstd = b"\x28\xb5\x2f\xfd whatever"
    descriptors = [
        images.blob_descriptor(zstd, f"{images.OCI_LAYER}+zstd"),
        images.blob_descriptor(b"windows", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        | {"urls": ["https://example.com/layer"]},
        images.blob_descriptor(b"without urls", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        images.blob_descriptor(LAYERS[0], images.OCI_LAYER),
    ]
    config = next(iter(AMD64.blobs.values()))
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": docker,
            "config": images.blob_descriptor(config, "application/vnd.docker.container.image.v1+json"),
            "layers": descriptors,
        },
        indent=3,
    ).encode()
    blobs = {images.digest_of(blob): blob for blob in (config, zstd, LAYERS[0])}
    built = Built(manifest, docker, blobs)

    invoke(handler, put_all(s3_double, images.static_registry("1.0", built)))

    assert_pullable(strict_ecr, "1.0", built)
    assert strict_ecr.repositories["app"].layers == blobs


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"manifests": []}, images.OCI_INDEX),
        ({"config": None}, images.OCI_MANIFEST),
        (
            {"config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": None}},
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
    ],
)
def test_the_media_type_of_a_manifest_without_one_is_inferred(
    members: dict[str, Any], expected: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    config = next(iter(AMD64.blobs.values()))
    if members.get("config"):
        members["config"]["digest"] = images.digest_of(config)
    if "manifests" not in members:
        members["layers"] = [images.blob_descriptor(config, "application/x")]
    manifest = json.dumps({"schemaVersion": 2, **members}).encode()
    put(s3_double, f"app/blobs/{images.digest_of(config)}", config)

    invoke(handler, [put(s3_double, "app/manifests/1.0", manifest)])

    [image] = strict_ecr.repositories["app"].images.values()
    assert (image.manifest.encode(), image.media_type) == (manifest, expected)


def test_an_artifact_is_pushed_after_its_subject_if_the_layout_has_it(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    sbom = images.image([b'{"spdx": true}'], artifactType="application/spdx+json", subject=AMD64.descriptor)
    orphan = images.image([b"signature"], artifactType="application/sig", subject=ARM64.descriptor)
    layout = images.oci_layout({"": sbom, "sig": orphan}) | images.oci_layout({"x": AMD64})
    layout["index.json"] = images.oci_layout({"": sbom, "sig": orphan})["index.json"]

    invoke(handler, [put_all(s3_double, layout)[0]])

    put_images = [images.digest_of(call.members["imageManifest"].encode()) for call in strict_ecr.calls_of("PutImage")]
    assert put_images == [AMD64.digest, sbom.digest, orphan.digest]
    assert strict_ecr.repositories["app"].tags == {"sig": orphan.digest}
    assert_there(strict_ecr, sbom)


def test_a_missing_repository_is_created_for_an_image_if_allowed(
    doubled: dict[str, str], load_handler: Load, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    empty = images.index()
    event = put(s3_double, "team/new/manifests/1.0", empty.manifest)

    with pytest.raises(RepositoryMissing, match="team/new"):
        invoke(load_handler(doubled), [event])
    invoke(load_handler(doubled, CREATE_REPOSITORIES="true"), [event])

    assert_pullable(strict_ecr, "1.0", empty, "team/new")


def test_only_missing_layers_are_uploaded_sixteen_at_once_and_checked_in_hundreds(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [layer(f"srv/{number}", b"x") for number in range(130)]
    built = images.image(layers)
    strict_ecr.repositories["app"].layers.update({images.digest_of(content): content for content in layers[:100]})
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()
    push_missing = LayerPusher.push_missing

    def counted(*arguments: Any) -> Any:
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        time.sleep(0.02)
        try:
            return push_missing(*arguments)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(LayerPusher, "push_missing", counted)
    invoke(handler, put_all(s3_double, images.static_registry("1.0", built))[:1])

    assert_pullable(strict_ecr, "1.0", built)
    assert [len(call.members["layerDigests"]) for call in strict_ecr.calls_of("BatchCheckLayerAvailability")] == [
        100,
        31,
    ]
    assert len(strict_ecr.calls_of("CompleteLayerUpload")) == 31
    assert max(at_once) == 16


@pytest.mark.usefixtures("small_parts")
def test_the_largest_layers_go_first_as_many_as_the_memory_has_room_for(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_to_ecr.push.image_layers._USUAL_PART_BYTES", SMALL_PART)
    monkeypatch.setattr("s3_to_ecr.push.image_layers._SMALL_BYTES", 500)
    monkeypatch.setattr("s3_to_ecr.push.image_layers._ON_THE_WAY_BYTES", 0)
    # Three layers of two parts fit into a seventh of this memory.
    handler.configure(memory=7 * 3 * base64_bytes(2 * SMALL_PART))
    sizes = [2, 9, 4, 7, 3, 8, 5, 6]
    built = images.image([bytes([size]) * size * SMALL_PART for size in sizes])
    running: list[int] = []
    started: list[int] = []
    most_large = 0
    lock = threading.Lock()
    push_missing = LayerPusher.push_missing

    def watched(pusher: LayerPusher, blob: Any, *arguments: Any) -> Any:
        nonlocal most_large
        with lock:
            running.append(blob.size)
            started.append(blob.size // SMALL_PART)
            most_large = max(most_large, sum(size > 500 for size in running))
        time.sleep(0.02)
        try:
            return push_missing(pusher, blob, *arguments)
        finally:
            with lock:
                running.remove(blob.size)

    monkeypatch.setattr(LayerPusher, "push_missing", watched)
    invoke(handler, put_all(s3_double, images.static_registry("1.0", built))[:1])

    assert_pullable(strict_ecr, "1.0", built)
    assert most_large == 3
    # Layers that start at the same time may say so in any order.
    largest_first = sorted(sizes, reverse=True)
    places = [largest_first.index(size) for size in started if size]
    assert all(abs(place - number) < most_large for number, place in enumerate(places))


def test_log_lines_of_concurrent_layers_name_their_own_layer(
    handler: Function, s3_double: S3Double, logs: Callable[[], list[dict[str, Any]]]
) -> None:
    built = images.image([layer(f"srv/{number}", b"x") for number in range(8)])

    invoke(handler, put_all(s3_double, images.static_registry("1.0", built))[:1])

    uploaded = [line for line in logs() if line["message"] == "Layer uploaded"]
    assert sorted(line["digest"] for line in uploaded) == sorted(built.blobs)
    assert {line["key"] for line in uploaded} == {"app/manifests/1.0"}
    assert len({line["upload_id"] for line in uploaded}) == len(uploaded)
    [pushed] = [line for line in logs() if line["message"] == "Image pushed"]
    assert pushed["digest"] == built.digest
    assert "upload_id" not in pushed


def test_a_rejected_layer_fails_the_image_and_a_leased_one_does_not_stop_the_others(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = images.image([layer(f"srv/{number}", b"x") for number in range(12)])
    files = images.static_registry("1.0", built)
    event = put_all(s3_double, files)[0]
    config, second, *_ = built.blobs

    with handler.leases.layer((None, "app"), second), pytest.raises(UploadInProgress, match=f"layer {second}"):
        invoke(handler, [event])
    assert len(strict_ecr.repositories["app"].layers) == len(built.blobs) - 1

    strict_ecr.repositories["app"].layers.clear()
    put(s3_double, f"app/blobs/{config}", b"other")
    with pytest.raises(DigestMismatch, match=f"layer {config}"):
        invoke(handler, [event])
    assert strict_ecr.repositories["app"].tags == {}


@pytest.mark.usefixtures("small_parts")
def test_an_image_that_takes_longer_than_an_invocation_resumes_in_the_next(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = images.image([layer("srv/large", bytes(12 * SMALL_PART))])
    event = put_all(s3_double, images.static_registry("1.0", built))[0]

    invocations = 0
    while not strict_ecr.repositories["app"].tags:
        invocation = Hourglass(60)
        with monkeypatch.context() as patch, suppress(OutOfTime):
            let_parts_take(patch, invocation, 10)
            handler.lambda_handler(event, invocation)
        invocations += 1
        assert invocation.seconds > 2

    assert invocations > 2
    assert_pullable(strict_ecr, "1.0", built)
    assert strict_ecr.bytes_received == sum(map(len, built.blobs.values()))


def test_an_image_without_time_left_makes_no_calls_to_ecr(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]

    with pytest.raises(OutOfTime):
        handler.lambda_handler(event, Hourglass(1))
    assert strict_ecr.calls == []


@pytest.mark.parametrize("lost", ["LayersNotFoundException", "ReferencedImagesNotFoundException"])
def test_what_ecr_deletes_before_the_image_is_pushed_is_sent_again(
    lost: str, handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    built = MULTI_ARCH if lost.startswith("Referenced") else AMD64
    event = put_all(s3_double, images.static_registry("1.0", built))[0]
    repository = strict_ecr.repositories["app"]

    def clean_up() -> None:
        repository.layers.clear()
        if lost.startswith("Referenced"):
            repository.images.clear()

    gremlin.meddle("ecr:PutImage", clean_up, nth=len(built.manifests))
    with pytest.raises(BlobsMissing, match=lost):
        invoke(handler, [event])
    assert repository.tags == {}
    invoke(handler, [event])
    assert_pullable(strict_ecr, "1.0", built)


def test_pushing_many_images_stops_in_time_and_makes_progress(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, strict_ecr: EcrDouble, outcomes: list[Outcomes]
) -> None:
    built = {f"v{number}": images.image([layer(f"srv/{number}", b"x")]) for number in range(6)}
    event = put(s3_double, "app/all.tar", images.tar(images.oci_layout(built)))
    late = 0

    gremlin.meddle("ecr:PutImage", lambda: invocation.pass_by(4), times=100)
    while len(strict_ecr.repositories["app"].tags) < len(built):
        invocation = Hourglass(13)
        try:
            handler.lambda_handler(event, invocation)
        except OutOfTime:
            late += 1
        assert outcomes[-1].progressed
        assert invocation.seconds >= 1
    assert late >= 1


def test_only_looking_for_an_image_is_no_progress(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, outcomes: list[Outcomes]
) -> None:
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]
    invocation = Hourglass(3.5)

    gremlin.meddle("ecr:BatchGetImage", lambda: invocation.pass_by(2))
    with pytest.raises(OutOfTime):
        handler.lambda_handler(event, invocation)
    assert not outcomes[-1].progressed


def test_a_batch_operations_task_without_an_etag_is_pushed(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    put(s3_double, "app/1.0.tar", images.docker_save_25([], AMD64))
    job = json.loads((ROOT / "events/batch-operations.json").read_text())
    job["tasks"] = [job["tasks"][0] | {"s3Key": "app/1.0.tar", "s3VersionId": None}]

    [result] = handler.lambda_handler(job, Invocation())["results"]

    assert (result["resultCode"], result["resultString"]) == ("Succeeded", f"pushed, app, {AMD64.digest}")
    assert_pullable(strict_ecr, "1.0", AMD64)


def test_the_key_prefix_is_part_of_every_key_but_not_of_the_repository(
    doubled: dict[str, str], load_handler: Load, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    strict_ecr.create("mirror/app")
    handler = load_handler(doubled, KEY_PREFIX="in/", REPOSITORY_PREFIX="mirror/")
    for layout, tag in {"OCI layout": "1.0", "static registry": "1.0", "registry storage": "1.0"}.items():
        strict_ecr.repositories["mirror/app"].tags.clear()
        invoke(handler, put_all(s3_double, LAYOUTS[layout](MULTI_ARCH), f"in/{FOLDERS.get(layout, 'app/')}"))
        assert_pullable(strict_ecr, tag, MULTI_ARCH, "mirror/app")


def test_a_layer_that_ecr_has_archived_is_uploaded(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    repository = strict_ecr.repositories["app"]
    digest, content = next(iter(AMD64.blobs.items()))
    repository.layers[digest] = content
    repository.archived.add(digest)

    invoke(handler, put_all(s3_double, images.static_registry("1.0", AMD64))[:1])

    assert len(strict_ecr.calls_of("CompleteLayerUpload")) == len(AMD64.blobs)


def test_after_a_rejected_layer_no_other_is_started(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_to_ecr.push.image_layers.LAYERS_AT_ONCE", 1)
    built = images.image([layer(f"srv/{number}", b"x") for number in range(40)])
    event = put_all(s3_double, images.static_registry("1.0", built))[0]
    leased, bad, *_ = built.blobs
    # The larger goes first.
    put(s3_double, f"app/blobs/{leased}", bytes(30_000))
    put(s3_double, f"app/blobs/{bad}", bytes(20_000))

    with handler.leases.layer((None, "app"), leased), pytest.raises(DigestMismatch, match=f"layer {bad}"):
        invoke(handler, [event])
    assert [call.members["layerDigests"] for call in strict_ecr.calls_of("CompleteLayerUpload")] == [[bad]]


def test_an_image_whose_layers_take_all_the_time_makes_progress(
    handler: Function, gremlin: Gremlin, s3_double: S3Double, outcomes: list[Outcomes]
) -> None:
    event = put_all(s3_double, images.static_registry("1.0", AMD64))[0]
    invocation = Hourglass(60)

    gremlin.meddle("ecr:CompleteLayerUpload", lambda: invocation.pass_by(59), nth=len(AMD64.blobs))
    with pytest.raises(OutOfTime, match="putting the image"):
        handler.lambda_handler(event, invocation)
    assert outcomes[-1].progressed


def test_the_total_size_of_an_images_manifests_is_limited(
    handler: Function, s3_double: S3Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3_to_ecr.images.manifests._MOST_BYTES", len(MULTI_ARCH.manifest) + 1)

    with pytest.raises(UnsupportedManifest, match="more than"):
        invoke(handler, put_all(s3_double, images.static_registry("1.0", MULTI_ARCH))[:1])


def test_the_blobs_of_an_artifact_manifest_are_uploaded(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """OCI 1.1's release candidates had this kind of manifest, and ORAS wrote it."""
    blob = b"sbom"
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    document = {"schemaVersion": 2, "mediaType": kind, "blobs": [images.blob_descriptor(blob, "x")]}
    manifest = json.dumps(document).encode()

    invoke(handler, put_all(s3_double, {"manifests/1": manifest, f"blobs/{images.digest_of(blob)}": blob})[:1])

    assert_pullable(strict_ecr, "1", Built(manifest, kind, {images.digest_of(blob): blob}))


def test_every_result_has_the_key_of_its_event(handler: Function, s3_double: S3Double) -> None:
    files = images.registry_storage("app", "1.0", AMD64)

    assert [result["key"] for result in invoke(handler, put_all(s3_double, files, ""))] == list(files)


def test_a_link_may_end_with_a_newline(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    files = images.registry_storage("app", "1.0", AMD64)
    *_, last = put_all(
        s3_double, {path: content + b"\n" * path.endswith("link") for path, content in files.items()}, ""
    )

    invoke(handler, [last])

    assert_pullable(strict_ecr, "1.0", AMD64)


def test_a_blob_too_large_for_a_manifest_is_read_once(handler: Function, s3_double: S3Double) -> None:
    content = bytes(4_194_305)

    invoke(handler, [put(s3_double, f"app/{images.blob_path(images.digest_of(content))}", content)])

    assert len(s3_double.reads) == 1


@pytest.mark.usefixtures("small_parts")
def test_an_image_with_several_layers_that_run_out_of_time_makes_progress(
    handler: Function, s3_double: S3Double, monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcomes]
) -> None:
    built = images.image([layer(f"srv/{number}", bytes(12 * SMALL_PART)) for number in range(2)])
    event = put_all(s3_double, images.static_registry("1.0", built))[0]
    invocation = Hourglass(60)

    let_parts_take(monkeypatch, invocation, 10)
    with pytest.raises(OutOfTime, match="failures"):
        handler.lambda_handler(event, invocation)
    assert outcomes[-1].progressed
