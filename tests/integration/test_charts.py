"""Helm charts are pushed as `helm push` does, with their provenance in whatever order it arrives."""

from __future__ import annotations

import gzip
import itertools
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from local import images
from local.images import Files
from local.layers import gzipped_layer
from s3_to_ecr import errors
from s3_to_ecr.errors import S3ToEcrError
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.gremlin import Gremlin
from tests.doubles.layouts import AMD64, assert_pullable, invoke, put
from tests.doubles.s3 import Bytes, S3Double, Stored

CHART_YAML = """apiVersion: v2
name: web
version: 1.2.3+build.5
appVersion: 1.10
description: Serves <everything>
maintainers: [{name: A, email: a@example.com}, {name: B}]
"""
CHART = images.helm_chart(CHART_YAML)
# Its digest comes before the chart's, so Helm makes it the first layer.
PROVENANCE = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nfiles: {27}\n"
KEY, PROVENANCE_KEY = "charts/any.tgz", "charts/any.tgz.prov"
REPOSITORY, TAG = "charts/web", "1.2.3_build.5"
CONFIG = (
    b'{"name":"web","version":"1.2.3+build.5","description":"Serves \\u003ceverything\\u003e",'
    b'"maintainers":[{"name":"A","email":"a@example.com"},{"name":"B"}],"apiVersion":"v2","appVersion":"1.1"}'
)

Put = Callable[[], dict[str, Any]]


@pytest.fixture(autouse=True)
def repositories(strict_ecr: EcrDouble) -> None:
    strict_ecr.create("charts", REPOSITORY)


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": images.digest_of(content), "size": len(content)}


def manifest(*layers: dict[str, Any]) -> str:
    """What Helm puts, without the time of the push."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor("application/vnd.cncf.helm.config.v1+json", CONFIG),
            "layers": sorted(layers, key=lambda layer: layer["digest"]),
            "annotations": {
                "org.opencontainers.image.authors": "A (a@example.com), B",
                "org.opencontainers.image.description": "Serves <everything>",
                "org.opencontainers.image.title": "web",
                "org.opencontainers.image.version": "1.2.3+build.5",
            },
        },
        separators=(",", ":"),
    ).replace("<", "\\u003c").replace(">", "\\u003e")  # fmt: skip


CHART_LAYER = descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", CHART)
PROVENANCE_LAYER = descriptor("application/vnd.cncf.helm.chart.provenance.v1.prov", PROVENANCE)
assert PROVENANCE_LAYER["digest"] < CHART_LAYER["digest"]
UNSIGNED, SIGNED = manifest(CHART_LAYER), manifest(CHART_LAYER, PROVENANCE_LAYER)


def tagged(ecr: EcrDouble) -> str:
    """The manifest under the chart's only tag, after a check that its layers are there."""
    repository = ecr.repositories[REPOSITORY]
    assert list(repository.tags) == [TAG]
    image = repository.images[repository.tags[TAG]]
    assert image.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert repository.layers[images.digest_of(CONFIG)] == CONFIG
    assert repository.layers[images.digest_of(CHART)] == CHART
    return image.manifest


def test_a_chart_is_pushed_as_helm_does(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    event = put(s3_double, KEY, CHART)

    [result] = invoke(handler, [event])

    assert tagged(strict_ecr) == UNSIGNED
    assert (result["action"], result["repository"], result["digest"], result["size"]) == (
        "pushed", REPOSITORY, images.digest_of(UNSIGNED.encode()), len(CHART),
    )  # fmt: skip
    assert result["images"] == [{"repository": REPOSITORY, "digest": result["digest"], "tags": [TAG]}]
    assert invoke(handler, [event])[0]["action"] == "skipped"


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["chart", "chart", "signed", "signed"]))))
def test_a_chart_gets_its_provenance_in_whatever_order_events_come(
    order: tuple[str, ...], handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    """An object is there from its first event on."""
    for step in order:
        event = put(s3_double, KEY, CHART) if step == "chart" else put(s3_double, PROVENANCE_KEY, PROVENANCE)
        [result] = invoke(handler, [event])
        if KEY in s3_double.objects:
            signed = PROVENANCE_KEY in s3_double.objects
            assert tagged(strict_ecr) == (SIGNED if signed else UNSIGNED)
            assert result["action"] in ("pushed", "skipped")
        else:
            assert (result["action"], result["key"]) == ("ignored", PROVENANCE_KEY)
    assert strict_ecr.repositories[REPOSITORY].layers[images.digest_of(PROVENANCE)] == PROVENANCE


def test_the_answer_for_a_provenance_names_its_own_key(handler: Function, s3_double: S3Double) -> None:
    put(s3_double, KEY, CHART)
    [result] = invoke(handler, [put(s3_double, PROVENANCE_KEY, PROVENANCE)])

    assert (result["action"], result["key"]) == ("pushed", PROVENANCE_KEY)


def test_a_provenance_that_arrives_during_the_push_is_pushed_too(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble, gremlin: Gremlin
) -> None:
    event = put(s3_double, KEY, CHART)
    gremlin.meddle("ecr:PutImage", lambda: put(s3_double, PROVENANCE_KEY, PROVENANCE))

    invoke(handler, [event])

    assert tagged(strict_ecr) == SIGNED


def test_an_older_chart_of_the_same_version_does_not_take_the_tag_back(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    newer = put(s3_double, KEY, CHART, modified=1_700_000_100)
    older = put(s3_double, "charts/old.tgz", images.helm_chart(CHART_YAML, {"old": b""}), modified=1_700_000_000)

    invoke(handler, [newer, older])

    assert tagged(strict_ecr) == UNSIGNED


def test_what_signs_something_else_than_a_chart_stays_a_layer(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    put(s3_double, KEY, gzipped_layer(100))
    results = invoke(handler, [
        put(s3_double, PROVENANCE_KEY, PROVENANCE), put(s3_double, "charts/b.tgz.prov", b"no message"),
    ])  # fmt: skip

    assert [result["action"] for result in results] == ["uploaded", "uploaded"]
    assert set(strict_ecr.repositories["charts"].layers) == {
        images.digest_of(b"no message"),
        images.digest_of(PROVENANCE),
    }


def test_an_image_archive_called_tgz_is_still_one(
    handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    archive = gzip.compress(images.tar(images.oci_layout({"1.0": AMD64})))

    invoke(handler, [put(s3_double, "app/any.tgz", archive)])

    assert_pullable(strict_ecr, "1.0", AMD64)


def tgz(files: Files) -> bytes:
    return gzip.compress(images.tar(files))


@pytest.mark.parametrize(
    "content",
    [
        tgz({"usr/bin/app": b"x", "usr/Chart.txt": b"y"}),
        tgz({"chart/charts/sub/Chart.yaml": CHART_YAML.encode()}),
        tgz({"Chart.yaml": CHART_YAML.encode()}),
        tgz({"etc/passwd": b"x", "chart/Chart.yaml": CHART_YAML.encode()}),
        images.compress(images.tar({"chart/Chart.yaml": CHART_YAML.encode()}), "zstd"),
        images.tar({"chart/Chart.yaml": CHART_YAML.encode()}),
        gzip.compress(b"chart/Chart.yaml"),
    ],
    ids=["layer", "subchart", "no folder", "two folders", "zstd", "plain tar", "no tar"],
)
def test_a_tgz_that_is_not_a_chart_stays_a_layer_and_is_read_once(
    content: bytes, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    [result] = invoke(handler, [put(s3_double, KEY, content)])

    assert (result["action"], result["repository"]) == ("uploaded", "charts")
    assert strict_ecr.content_of("charts", images.digest_of(content)) == content
    assert len(s3_double.reads) == 1


def test_chart_yaml_need_not_come_first(handler: Function, s3_double: S3Double, strict_ecr: EcrDouble) -> None:
    content = tgz({"any/templates/a.yaml": b"x" * 5000, "any/values.yaml": b"", "any/Chart.yaml": CHART_YAML.encode()})

    [result] = invoke(handler, [put(s3_double, KEY, content)])

    assert result["repository"] == REPOSITORY
    assert strict_ecr.content_of(REPOSITORY, images.digest_of(content)) == content


def with_a_file_of(size: int) -> bytes:
    """A chart that ends with the header of a file of that size."""
    member = tarfile.TarInfo("chart/large")
    member.size = size
    return gzip.compress(images.tar({"chart/Chart.yaml": CHART_YAML.encode()})[:1536] + member.tobuf())


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in itertools.pairwise("abcdefghi")
)
BAD: dict[str, tuple[bytes, type[S3ToEcrError], str]] = {
    "without a name": (images.helm_chart("version: 1.0.0\n"), errors.BrokenChart, "has no name"),
    "without a version": (images.helm_chart("name: web\n"), errors.BrokenChart, "has no version"),
    "a version that is none": (images.helm_chart("name: web\nversion: latest\n"), errors.BrokenChart, "'latest'"),
    "a name that ECR cannot take": (
        images.helm_chart("name: Web\nversion: 1.0.0\n"), errors.InvalidRepositoryName, "charts/Web"),
    "a name that is a path": (images.helm_chart("name: ../web\nversion: 1.0.0\n"), errors.BrokenChart, "'../web'"),
    "a version that is too long": (
        images.helm_chart(f"name: web\nversion: 1.0.0-{'a' * 200}\n"), errors.InvalidTag, "not a valid tag"),
    "text instead of a mapping": (images.helm_chart("web\n"), errors.BrokenChart, "has to be a mapping"),
    "nothing": (images.helm_chart(""), errors.BrokenChart, "has no name"),
    "no YAML": (images.helm_chart("name: [web\n"), errors.BrokenChart, "not YAML"),
    "no UTF-8": (tgz({"chart/Chart.yaml": b"name: \xff\n"}), errors.BrokenChart, "not YAML"),
    "aliases of aliases": (images.helm_chart(f"{CHART_YAML}{BOMB}"), errors.BrokenChart, "more than 20,000 values"),
    "aliases of a long text": (
        images.helm_chart(f"{CHART_YAML}x: &a {'x' * 100_000}\nkeywords: [{'*a,' * 1000}]\n"),
        errors.BrokenChart, "more than 1,048,576 characters"),
    "an endless alias": (images.helm_chart(f"{CHART_YAML}x: &a {{b: *a}}\n"), errors.BrokenChart, "nested too deeply"),
    "deep nesting": (images.helm_chart(f"{CHART_YAML}x: {'[' * 5000}\n"), errors.BrokenChart, "nested too deeply"),
    "a large Chart.yaml": (images.helm_chart(f"{CHART_YAML}# {'x' * 300_000}\n"), errors.BrokenChart, "more than"),
    "more than Helm unpacks": (
        with_a_file_of(100 * 1024 * 1024),
        errors.BrokenChart, "Helm's own limit"),
    "truncated": (CHART[:-3000], errors.BrokenArchive, "truncated"),
    "damaged": (CHART[:-8] + bytes(8), errors.BrokenArchive, "damaged"),
    "large, and damaged at its end": (
        images.helm_chart(CHART_YAML, {"large": bytes(300_000)})[:-8] + bytes(8), errors.BrokenArchive, "damaged"),
    "something behind it": (CHART + b"garbage", errors.BrokenArchive, "something else follows"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_chart_is_rejected_with_its_reason(
    case: str, handler: Function, s3_double: S3Double, strict_ecr: EcrDouble
) -> None:
    content, error, reason = BAD[case]

    with pytest.raises(error, match=reason):
        invoke(handler, [put(s3_double, KEY, content)])
    assert strict_ecr.repositories[REPOSITORY].tags == {}
    assert strict_ecr.operations.count("UploadLayerPart") == 0


def test_a_chart_that_was_overwritten_with_another_is_the_newer_events(handler: Function, s3_double: S3Double) -> None:
    event = put(s3_double, KEY, CHART)
    s3_double.objects[KEY] = Stored(Bytes(images.helm_chart(CHART_YAML, {"new": b""})), "another", version_id="null")

    with pytest.raises(errors.ObjectChanged):
        invoke(handler, [event])
