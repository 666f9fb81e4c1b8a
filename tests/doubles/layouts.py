"""Images in every layout for the S3 double, and checks that the strict ECR has them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from local import images
from local.images import Built, Files
from local.invocation import Invocation, put_event
from local.layers import layer
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function
from tests.doubles.s3 import Bytes, S3Double, Stored

LAYERS = [layer(f"srv/{name}", name.encode() * 100) for name in ("one", "two", "three")]


AMD64 = images.image(LAYERS)


ARM64 = images.image([LAYERS[0], layer("srv/arm", b"arm")], architecture="arm64")


MULTI_ARCH = images.index(AMD64, ARM64)


NESTED = images.index(images.index(AMD64), MULTI_ARCH)


def etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def put(s3: S3Double, key: str, content: bytes, modified: int = 1_700_000_000) -> dict[str, Any]:
    """Puts an object into the bucket, and returns the event about it."""
    s3.objects[key] = Stored(Bytes(content), etag(content), version_id="null", modified=modified)
    return put_event(key, len(content), etag(content))


def put_all(s3: S3Double, files: Files, folder: str = "app/") -> list[dict[str, Any]]:
    return [put(s3, folder + path, content) for path, content in files.items()]


def invoke(handler: Function, events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [handler.lambda_handler(event, Invocation())["results"][0] for event in events]


def assert_pullable(ecr: EcrDouble, tag: str, built: Built, repository: str = "app") -> None:
    """All of the image can be pulled by its tag, byte for byte."""
    found = ecr.repositories[repository]
    assert found.tags[tag] == built.digest
    assert_there(ecr, built, repository)


def assert_there(ecr: EcrDouble, built: Built, repository: str = "app") -> None:
    found = ecr.repositories[repository]
    for digest, manifest in built.manifests.items():
        assert found.images[digest].manifest.encode() == manifest
    assert found.images[built.digest].media_type == built.media_type
    for digest, blob in built.all_blobs.items():
        assert found.layers[digest] == blob


LAYOUTS: dict[str, Callable[[Built], Files]] = {
    "OCI layout": lambda built: images.oci_layout({"1.0": built}),
    "static registry": lambda built: images.static_registry("1.0", built),
    "registry storage": lambda built: images.registry_storage("app", "1.0", built),
    "skopeo dir": images.skopeo_dir,
    "OCI archive": lambda built: {"1.0.tar": images.tar(images.oci_layout({"1.0": built}))},
    "OCI archive without a tag": lambda built: {"1.0.tar": images.tar(images.oci_layout({"": built}))},
}


KINDS = {"image": AMD64, "multi-arch": MULTI_ARCH, "nested": NESTED}


FOLDERS = {"registry storage": "root/", "skopeo dir": "app:1.0/"}
