"""A repository in ECR that is verify's own: what the proof makes of it and reads from it."""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local.images import OCI_INDEX, OCI_MANIFEST
from verify.failures import Stopped

if TYPE_CHECKING:
    from datetime import datetime

    from types_boto3_ecr.client import ECRClient

# Asked by tag, ECR converts a manifest of any other type.
MEDIA_TYPES: Final = [
    OCI_INDEX,
    OCI_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]

_DOWNLOAD_SECONDS: Final = 60


@dataclass(frozen=True)
class Pulled:
    """A manifest as ECR returns it, under the digest that ECR says it has."""

    digest: str
    manifest: bytes


class Repository:
    """The repository `name`. `registry` is the member of requests that names its registry, if it needs one."""

    def __init__(self, ecr: ECRClient, registry: Mapping[str, Any], name: str) -> None:
        self.ecr = ecr
        self.name = name
        self.members: dict[str, Any] = {**registry, "repositoryName": name}

    def create(self, **settings: Any) -> None:
        """CreateRepository with these settings. An error of ECR's is raised if it exists already."""
        self.ecr.create_repository(**self.members, **settings)

    def delete(self) -> None:
        """DeleteRepository, with everything in it. It is no error if there is none."""
        try:
            self.ecr.delete_repository(**self.members, force=True)
        except self.ecr.exceptions.RepositoryNotFoundException:
            return

    def part_size(self) -> int:
        """How many bytes ECR expects in a part of a layer."""
        return self.ecr.initiate_layer_upload(**self.members)["partSize"]

    def has_layer(self, digest: str) -> bool:
        """Whether ECR has the layer ready to be pulled."""
        answer = self.ecr.batch_check_layer_availability(**self.members, layerDigests=[digest])
        return [layer.get("layerAvailability") for layer in answer.get("layers", [])] == ["AVAILABLE"]

    def image(self, *, tag: str | None = None, digest: str | None = None) -> Pulled | None:
        """The manifest that has the tag or the digest; `None` if there is none."""
        image_id: Any = {"imageTag": tag} if tag else {"imageDigest": digest}
        answer = self.ecr.batch_get_image(**self.members, imageIds=[image_id], acceptedMediaTypes=MEDIA_TYPES)
        for image in answer.get("images", []):
            return Pulled(image["imageId"]["imageDigest"], image["imageManifest"].encode())
        return None

    def layer(self, digest: str) -> bytes:
        """The layer's bytes, downloaded as a client that pulls does it. Raises `Stopped` if that fails."""
        url = self.ecr.get_download_url_for_layer(**self.members, layerDigest=digest)["downloadUrl"]
        tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        try:
            with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS, context=tls) as answer:  # noqa: S310 (ECR's own)
                content: bytes = answer.read()
        except OSError as error:
            raise Stopped(f"The layer {digest} cannot be downloaded from where ECR says it is: {error}") from error
        return content

    def pushed(self) -> dict[str, datetime]:
        """When each image was pushed, by digest."""
        pages = self.ecr.get_paginator("describe_images").paginate(**self.members)
        return {image["imageDigest"]: image["imagePushedAt"] for page in pages for image in page["imageDetails"]}
