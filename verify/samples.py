"""The objects that are put into the bucket, and what has to be in ECR afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from local import images
from local.images import Built, Files
from local.layers import gzipped_layer, layer


@dataclass(frozen=True)
class Sample:
    """Files that make one layer, or one image under a `tag`. `files` are in the order in which they are put."""

    title: str
    files: Files
    blobs: Files
    image: Built | None = None
    tag: str | None = None


@dataclass(frozen=True)
class BrokenSample:
    """A file that is to be rejected, with the error that the dead-letter queue has to name."""

    title: str
    path: str
    content: bytes
    error_type: str


# Its content is not what its name says. ECR finds out, and not the function.
BROKEN = BrokenSample(
    "a layer under another digest", images.digest_of(b"other bytes"), b"not these bytes", "DigestMismatch"
)


def samples(part_size: int) -> list[Sample]:
    """A layer of three parts of so many bytes, an OCI layout of two architectures, and a `docker save` archive."""
    large = gzipped_layer(2 * part_size)
    multi_arch = images.index(
        images.image([layer("srv/hello", b"Hello, amd64!\n")]),
        images.image([layer("srv/hello", b"Hello, arm64!\n")], architecture="arm64"),
    )
    saved = images.image([layer("srv/hello", b"Hello, docker save!\n")])
    return [
        Sample(f"a layer of {-(-len(large) // part_size)} parts", {"layer.tar.gz": large}, _by_digest(large)),
        # Its index comes first, so it has to wait for everything else.
        Sample(
            "an OCI layout, index first",
            images.oci_layout({"multi-arch": multi_arch}),
            multi_arch.all_blobs,
            multi_arch,
            "multi-arch",
        ),
        Sample(
            "a `docker save` archive",
            {"saved.tar": images.docker_save_25(["app:saved"], saved)},
            saved.all_blobs,
            saved,
            "saved",
        ),
    ]


def _by_digest(content: bytes) -> Files:
    return {images.digest_of(content): content}
