from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import images
from s3_to_ecr.errors import BrokenManifest, UnsupportedManifest
from s3_to_ecr.images.manifests import Descriptor, digest_of, is_manifest, parse_manifest
from s3_to_ecr.images.model import Image
from s3_to_ecr.images.oci_index import images_of
from s3_to_ecr.images.references import Reference, parse_reference

LAYER = "sha256:" + "1" * 64
IMAGE = images.image([b"layer"])
INDEX = images.index(IMAGE)


def manifest(**members: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **members}).encode()


def test_a_manifest_names_its_blobs_children_and_subject() -> None:
    content = manifest(
        mediaType="application/vnd.oci.image.manifest.v1+json",
        config={"digest": LAYER[:-1] + "0"},
        layers=[{"digest": LAYER, "mediaType": "x"}, {"digest": LAYER[:-1] + "2", "urls": ["https://elsewhere"]}],
        manifests=[{"digest": LAYER[:-1] + "3", "mediaType": "y", "annotations": {"a": "b"}}],
        subject={"digest": LAYER[:-1] + "4"},
    )

    found = parse_manifest(content, Descriptor(digest_of(content), "what the index says"))

    assert found.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert found.content == content
    assert found.blobs == (LAYER[:-1] + "0", LAYER)
    assert found.children == (Descriptor(LAYER[:-1] + "3", "y"),)
    assert found.subject == Descriptor(LAYER[:-1] + "4")


def test_the_descriptor_gives_the_media_type_if_the_manifest_does_not() -> None:
    content = manifest(layers=[])

    assert parse_manifest(content, Descriptor(digest_of(content), "x/y")).media_type == "x/y"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (IMAGE.manifest, True),
        (INDEX.manifest, True),
        (manifest(mediaType="application/vnd.docker.distribution.manifest.list.v2+json"), True),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), True),
        (manifest(manifests=[]), True),
        (manifest(config={}, layers=[]), True),
        (manifest(config={}), False),
        (json.dumps({"config": {}, "layers": []}).encode(), False),
        (next(iter(IMAGE.blobs.values())), False),
        (manifest(mediaType="application/vnd.cyclonedx+json", manifests=[]), False),
        (manifest(mediaType=["a", "list"]), False),
        (b"[]", False),
        (b"\x1f\x8b", False),
        (b"", False),
    ],
)
def test_a_manifest_among_blobs_is_recognised_by_its_media_type_or_members(content: bytes, expected: bool) -> None:
    assert is_manifest(content) is expected


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("app:1.0", "1.0"),
        ("docker.io/library/app:1.0", "1.0"),
        ("localhost:5000/team/app:1.0", "1.0"),
        ("localhost:5000/team/app", None),
        ("app:1.0@sha256:0123", "1.0"),
        ("app@sha256:0123", None),
        ("app", None),
        ("", None),
    ],
)
def test_a_references_tag_follows_its_last_name(reference: str, tag: str | None) -> None:
    assert parse_reference(reference).tag == tag


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("app:1.0", "app"),
        ("localhost:5000/team/app:1.0", "localhost:5000/team/app"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("docker.io/team/app@sha256:0123", "docker.io/team/app"),
        ("", None),
    ],
)
def test_a_references_name_has_its_host_but_no_tag_and_no_digest(reference: str, name: str | None) -> None:
    assert parse_reference(reference).name == name


def tags_of(image: Image) -> list[str | None]:
    return list(dict.fromkeys(reference.tag for reference in image.references if reference.tag))


@pytest.mark.parametrize(
    ("annotations", "tags"),
    [
        ({"org.opencontainers.image.ref.name": "1.0"}, ("1.0",)),
        ({"org.opencontainers.image.ref.name": "docker.io/team/app:1.0"}, ("1.0",)),
        ({"org.opencontainers.image.ref.name": "docker.io/team/app"}, ()),
        ({"io.containerd.image.name": "docker.io/team/app:1.0"}, ("1.0",)),
        ({"io.containerd.image.name": "a:1.0", "org.opencontainers.image.ref.name": "1.0"}, ("1.0",)),
        ({"io.containerd.image.name": "a:1.0", "org.opencontainers.image.ref.name": "latest"}, ("latest", "1.0")),
        ({"org.opencontainers.image.ref.name": ""}, ()),
        ({"org.opencontainers.image.ref.name": 1, "io.containerd.image.name": None}, ()),
        ([], ()),
        (None, ()),
    ],
)
def test_tags_come_from_the_annotations_of_the_index(annotations: Any, tags: tuple[str, ...]) -> None:
    [image] = images_of(manifest(manifests=[{"digest": LAYER, "mediaType": "x", "annotations": annotations}]))

    assert (image.digest, tags_of(image), image.media_type) == (LAYER, list(tags), "x")


REF_NAME, CONTAINERD, BASE = (
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
    "org.opencontainers.image.base.name",
)


@pytest.mark.parametrize(
    ("annotations", "references"),
    [
        ({CONTAINERD: "docker.io/library/a:1", REF_NAME: "1"}, ["docker.io/library/a:1"]),
        ({CONTAINERD: "docker.io/library/a:1", REF_NAME: "a:1"}, ["docker.io/library/a:1"]),
        ({REF_NAME: "quay.io/a/b:1", BASE: "c:2"}, ["quay.io/a/b:1"]),
        ({BASE: "ghcr.io/zarf/agent:1"}, ["ghcr.io/zarf/agent:1"]),
        ({BASE: "ghcr.io/zarf/agent:1", REF_NAME: "2"}, ["ghcr.io/zarf/agent:2"]),
        ({CONTAINERD: f"quay.io/a/b@{LAYER}"}, ["quay.io/a/b"]),
        ({CONTAINERD: f"quay.io/a/b@{LAYER}", REF_NAME: "1"}, ["quay.io/a/b:1"]),
        # Hauler's newest: containerd's annotation names the image that this one belongs to.
        ({CONTAINERD: "quay.io/a/b:1", REF_NAME: f"a/b@{LAYER}"}, ["a/b"]),
        ({CONTAINERD: "quay.io/a/b:1", REF_NAME: f"a/b:sha256-{'0' * 64}.sig"}, [f"a/b:sha256-{'0' * 64}.sig"]),
    ],
)
def test_the_first_full_reference_names_the_repository(annotations: dict[str, str], references: list[str]) -> None:
    [image] = images_of(manifest(manifests=[{"digest": LAYER, "annotations": annotations}]))

    assert image.references == tuple(map(parse_reference, references))


def test_cranes_placeholder_for_a_digest_is_no_tag() -> None:
    assert parse_reference("index.docker.io/library/alpine:i-was-a-digest") == Reference(
        None, "index.docker.io/library/alpine"
    )


@pytest.mark.parametrize("vendor", ["dev.cosignproject.cosign", "dev.hauler"])
def test_signatures_have_the_tags_by_which_cosign_looks_for_them(vendor: str) -> None:
    one, two = f"sha256:{1:064}", f"sha256:{2:064}"
    accessories = [("sigs", 3), ("atts", 4), ("sboms", 5), ("referrers/" + "6" * 64, 6), ("sigs/" + "7" * 64, 7)]
    index = manifest(
        manifests=[
            {"digest": one, "annotations": {"kind": f"{vendor}/image", REF_NAME: "quay.io/a/b:1"}},
            {"digest": two, "annotations": {"kind": f"{vendor}/imageIndex", REF_NAME: "quay.io/a/b:2"}},
            *(
                {
                    "digest": f"sha256:{number:064}",
                    "annotations": {"kind": f"{vendor}/{kind}", REF_NAME: "quay.io/a/b:1"},
                }
                for kind, number in accessories
            ),
        ]
    )

    found = {image.digest: (image.references, image.accessory) for image in images_of(index)}

    hexes = f"{1:064}", f"{1:064}", f"{1:064}", None, "7" * 64
    tags = [f"sha256-{hexes[n]}{end}" for n, end in enumerate([".sig", ".att", ".sbom"])] + [
        None,
        f"sha256-{hexes[4]}.sig",
    ]
    assert found == {
        one: ((Reference("1", "quay.io/a/b"),), False),
        two: ((Reference("2", "quay.io/a/b"),), False),
        **{
            f"sha256:{number:064}": ((Reference(tag, "quay.io/a/b"),), True)
            for (_, number), tag in zip(accessories, tags, strict=True)
        },
    }


def test_a_signature_that_cosign_saved_without_a_reference_belongs_to_the_only_image() -> None:
    signature = f"sha256:{2:064}"
    kind = "dev.cosignproject.cosign"
    entries = [
        {"digest": LAYER, "annotations": {"kind": f"{kind}/image"}},
        {"digest": signature, "annotations": {"kind": f"{kind}/sigs"}},
    ]

    image, accessory = images_of(manifest(manifests=entries))

    assert (image.digest, image.references) == (LAYER, ())
    assert accessory.references == (Reference(f"sha256-{LAYER.removeprefix('sha256:')}.sig"),)


def test_a_signature_of_an_unknown_image_has_no_tag() -> None:
    entry = {"digest": LAYER, "annotations": {"kind": "dev.hauler/sigs", REF_NAME: "quay.io/a/b:1"}}

    [image] = images_of(manifest(manifests=[entry]))

    assert image.references == (Reference(None, "quay.io/a/b"),)


def test_an_image_named_twice_in_an_index_is_one_image_with_two_tags() -> None:
    name = "org.opencontainers.image.ref.name"
    entries = [{"digest": LAYER, "annotations": {name: tag}} for tag in ("1", "2", "1")]

    [image] = images_of(manifest(manifests=entries))

    assert image.references == (Reference("1"), Reference("2"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from([LAYER, "sha256:x", "sha512:00"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "subject", "digest", "urls",
             "annotations", "fsLayers", "org.opencontainers.image.ref.name"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_document_is_a_manifest_or_rejected(document: Any) -> None:
    content = json.dumps(document).encode()
    for read in (lambda: parse_manifest(content, Descriptor(digest_of(content))), lambda: images_of(content)):
        with suppress(BrokenManifest, UnsupportedManifest):
            read()
    assert is_manifest(content) in (True, False)
