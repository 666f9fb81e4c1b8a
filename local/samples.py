"""The objects that the events in `events/` are about, for the local bucket."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from local import images
from local.images import Built, Files
from local.layers import layer
from local.stack import BUCKET, BUNDLE_REPOSITORIES, CHART_REPOSITORY, REPOSITORY

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


def _sample_layer(name: str) -> bytes:
    return layer("srv/hello.txt", f"Hello, {name}!\n".encode())


@dataclass(frozen=True)
class Sample:
    """An object, and the way it is uploaded, which decides its ETag."""

    key: str
    body: bytes
    way: Literal["put", "multipart"] = "put"

    @property
    def etag(self) -> str:
        """The ETag that S3 gives it: the MD5, or for a multipart upload the MD5 of its one part's MD5, and "-1"."""
        md5 = hashlib.md5(self.body, usedforsecurity=False)
        if self.way == "multipart":
            return hashlib.md5(md5.digest(), usedforsecurity=False).hexdigest() + "-1"
        return md5.hexdigest()


def _sample_image(name: str) -> Built:
    """A different image for each name, so that every sample has something to upload."""
    return images.image([_sample_layer(name)])


def _sample_bundle() -> bytes:
    """An OCI archive of two repositories' images, each under its full reference."""
    built = {f"docker.io/{name}:bundle": _sample_image(f"bundle, {name}") for name in BUNDLE_REPOSITORIES}
    return images.tar(images.oci_layout(built))


def _samples(folder: str, files: Files) -> tuple[Sample, ...]:
    return tuple(Sample(folder + path, content) for path, content in files.items())


_KNOWN = _sample_layer("known digest")
_STATIC = _sample_layer("static registry")

_CHARTS, _, _CHART = CHART_REPOSITORY.rpartition("/")
_CHART_YAML = f"""apiVersion: v2
name: {_CHART}
version: 1.0.0+sample
description: A chart that says hello
"""

SAMPLES = (
    Sample("layer-test/put.layer", _sample_layer("put")),
    Sample("layer-test/multipart.layer", _sample_layer("multipart"), "multipart"),
    Sample(f"layer-test/{images.digest_of(_KNOWN)}", _KNOWN),
    Sample(f"layer-test/blobs/{images.digest_of(_STATIC)}", _STATIC),
    Sample("layer-test/Grüße + 100%2B ✨ a+b.layer", _sample_layer("odd key")),
    Sample("layer-test/", b""),
    Sample("layer-test/sqs.layer", _sample_layer("SQS")),
    Sample("layer-test/eventbridge + 1%2B.layer", _sample_layer("EventBridge")),
    *_samples(f"{REPOSITORY}/", images.oci_layout({"oci-layout": _sample_image("OCI layout")})),
    *_samples(f"{REPOSITORY}/", images.static_registry("static-registry", _sample_image("static registry"))),
    *_samples("", images.registry_storage(REPOSITORY, "registry-storage", _sample_image("registry storage"))),
    Sample(f"{REPOSITORY}/docker-save.tar", images.docker_save([], _sample_image("docker save"))),
    Sample(f"{REPOSITORY}/docker-save-25.tar", images.docker_save_25([], _sample_image("docker save 25"))),
    *_samples(f"{REPOSITORY}:skopeo-dir/", images.skopeo_dir(_sample_image("skopeo dir"))),
    Sample("_/bundle.tar", _sample_bundle()),
    Sample(f"{REPOSITORY}/gzip.tgz", images.stored(images.docker_save([], _sample_image("gzip")))),
    Sample(f"{REPOSITORY}/zstd.tar.zst", images.compress(images.docker_save_25([], _sample_image("zstd")), "zstd")),
    Sample(f"{_CHARTS}/{_CHART}-1.0.0.tgz", images.helm_chart(_CHART_YAML)),
)


def put_samples(s3: S3Client) -> None:
    """Puts every sample into the local bucket."""
    for sample in SAMPLES:
        if sample.way == "put":
            s3.put_object(Bucket=BUCKET, Key=sample.key, Body=sample.body)
            continue
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=sample.key)["UploadId"]
        part = s3.upload_part(Bucket=BUCKET, Key=sample.key, UploadId=upload, PartNumber=1, Body=sample.body)
        s3.complete_multipart_upload(
            Bucket=BUCKET,
            Key=sample.key,
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
