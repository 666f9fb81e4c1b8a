"""Amazon ECR's layer and image API, one method a call, in the words of its documentation.

Source of every rule here: the ECR API reference (ecr/2015-09-21) and ECR's service quotas.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from botocore.exceptions import ClientError

from s3_to_ecr.aws.clients import Codes, translated
from s3_to_ecr.aws.ecr_part import PART_HANDLERS, LayerPart
from s3_to_ecr.errors import (
    AccessDenied,
    BlobsMissing,
    BrokenManifest,
    DigestMismatch,
    RepositoryMissing,
    TagTaken,
    UploadLost,
)
from s3_to_ecr.images.manifests import Manifest

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

T = TypeVar("T")
LayerAvailability = Literal["AVAILABLE", "UNAVAILABLE", "ARCHIVED"]

# Service quotas "Layer parts" and "Layer size".
MAX_LAYER_PARTS = 4_200
MAX_LAYER_BYTES = 52_000 * 1024 * 1024

# BatchCheckLayerAvailability and BatchGetImage: how many a call may ask for.
_BATCH = 100

_MISSING = "Create the repository, or set CREATE_REPOSITORIES to true."
_MISMATCH = "The content does not have the digest that its key names, or its manifest."
_TAKEN = "The repository's tags are immutable: choose another tag, or delete the image that has it."
_CLEANED_UP = "ECR has removed them in the meantime; they are uploaded again."
_KMS = "The repository's KMS key could not be used: allow the function's role to use it."

_CODES: Codes = {
    "RepositoryNotFoundException": (RepositoryMissing, _MISSING),
    "UploadNotFoundException": (UploadLost, ""),
    "InvalidLayerException": (DigestMismatch, _MISMATCH),
    # What ECR holds of the upload is not what it took: the upload's state, not the object's fault.
    "EmptyUploadException": (UploadLost, ""),
    "LayerPartTooSmallException": (UploadLost, ""),
    "KmsException": (AccessDenied, _KMS),
    "ImageTagAlreadyExistsException": (TagTaken, _TAKEN),
    "ImageDigestDoesNotMatchException": (BrokenManifest, ""),
    "LayersNotFoundException": (BlobsMissing, _CLEANED_UP),
    "ReferencedImagesNotFoundException": (BlobsMissing, _CLEANED_UP),
}


@dataclass(frozen=True)
class LayerUpload:
    """An upload that ECR has opened. `part_size` is in bytes: what ECR expects of every part but the last."""

    repository: str
    upload_id: str
    part_size: int


@dataclass(frozen=True)
class PartReceipt:
    """What ECR holds after a part. `last_byte` is inclusive, -1 for none.

    `resends` is how often the part was sent again: by the SDK's own retries, or since another invocation had sent it.
    """

    last_byte: int
    resends: int


@dataclass(frozen=True)
class ImagesFound:
    """What ECR has of the images that it was asked for: their digests, and those that tags name."""

    there: frozenset[str]
    named: Mapping[str, str]


class Registry:
    """One ECR registry: the account `registry_id`'s, or by `None` the caller's own."""

    def __init__(self, client: ECRClient, registry_id: str | None = None) -> None:
        """The `client` becomes the registry's own: it does not serialise UploadLayerPart itself any more."""
        self._client = client
        self._registry: dict[str, Any] = {"registryId": registry_id} if registry_id else {}
        for event, handler in PART_HANDLERS.items():
            client.meta.events.register(event, handler, unique_id=event)

    def layer_availability(self, repository: str, digests: Iterable[str]) -> dict[str, LayerAvailability]:
        """BatchCheckLayerAvailability, as often as it takes for so many digests.

        A layer that ECR lacks comes back as UNAVAILABLE or among the failures: UNAVAILABLE here. An ARCHIVED one
        belongs to archived images and cannot be pulled until one of them is restored.
        """
        found: dict[str, LayerAvailability] = dict.fromkeys(digests, "UNAVAILABLE")
        for batch in _batches(found):
            with _calling("BatchCheckLayerAvailability", repository):
                answer = self._client.batch_check_layer_availability(
                    repositoryName=repository, layerDigests=batch, **self._registry
                )
            for layer in answer.get("layers", []):
                if layer.get("layerDigest") in found and "layerAvailability" in layer:
                    found[layer["layerDigest"]] = layer["layerAvailability"]
        return found

    def initiate(self, repository: str) -> LayerUpload:
        """InitiateLayerUpload."""
        with _calling("InitiateLayerUpload", repository):
            answer = self._client.initiate_layer_upload(repositoryName=repository, **self._registry)
        return LayerUpload(repository, answer["uploadId"], answer["partSize"])

    def part(self, upload: LayerUpload, first_byte: int, length: int, used: LayerPart | None = None) -> LayerPart:
        """A part to write bytes into, and to send; in the memory of a `used` one, which is then lost."""
        members = {**self._registry, "repositoryName": upload.repository, "uploadId": upload.upload_id}
        return LayerPart(members, first_byte, length, used)

    def upload_part(self, upload: LayerUpload, part: LayerPart) -> PartReceipt:
        """UploadLayerPart, for a part of this upload that is written in full. Returns what ECR holds now.

        A part that is not the next one is no error here: ECR then tells where it stands, and the caller goes on from
        there. That is also how a part comes back that landed although its answer was lost.
        Raises `UploadLost` when ECR does not know the upload any more.
        """
        with _calling("UploadLayerPart", upload.repository):
            try:
                answer: Mapping[str, Any] = self._client.upload_layer_part(
                    **part.members,
                    layerPartBlob=cast("Any", part),
                )
                last_byte, sent_before = answer["lastByteReceived"], False
            except ClientError as error:
                answer = cast("Mapping[str, Any]", error.response)  # with the members of the modelled exception
                if answer["Error"]["Code"] != "InvalidLayerPartException" or "lastValidByteReceived" not in answer:
                    raise
                last_byte = answer["lastValidByteReceived"]
                sent_before = last_byte >= part.end - 1
        return PartReceipt(last_byte, max(answer["ResponseMetadata"]["RetryAttempts"], sent_before))

    def complete(self, upload: LayerUpload, digest: str) -> str:
        """CompleteLayerUpload. Returns the layer's digest as ECR sees it.

        That the layer exists already is success: layers are named by their content. Raises `DigestMismatch` when the
        parts do not have the `digest`, `UploadLost` when ECR does not know the upload any more.
        """
        with _calling("CompleteLayerUpload", upload.repository):
            try:
                answer = self._client.complete_layer_upload(
                    repositoryName=upload.repository,
                    uploadId=upload.upload_id,
                    layerDigests=[digest],
                    **self._registry,
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "LayerAlreadyExistsException":
                    raise
                return digest
        return answer["layerDigest"]

    def images(self, repository: str, digests: Iterable[str], tags: Iterable[str] = ()) -> ImagesFound:
        """BatchGetImage, as often as it takes: which of the images are there, and what the tags name."""
        identifiers = [{"imageDigest": digest} for digest in digests] + [{"imageTag": tag} for tag in tags]
        there: set[str] = set()
        named: dict[str, str] = {}
        for batch in _batches(identifiers):
            with _calling("BatchGetImage", repository):
                answer = self._client.batch_get_image(
                    repositoryName=repository, imageIds=cast("Any", batch), **self._registry
                )
            for image in answer.get("images", []):
                found = image["imageId"]
                there.add(found["imageDigest"])
                if "imageTag" in found:
                    named[found["imageTag"]] = found["imageDigest"]
        return ImagesFound(frozenset(there), named)

    def put_image(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        """PutImage, with the manifest's exact bytes. That the image is there already, so tagged, is success.

        Raises `TagTaken` when the tag is immutable and names another image, `BlobsMissing` when ECR lacks what the
        manifest names, `BrokenManifest` when ECR finds another digest.
        """
        tagged: dict[str, Any] = {"imageTag": tag} if tag else {}
        with _calling("PutImage", repository):
            try:
                self._client.put_image(
                    repositoryName=repository,
                    imageManifest=manifest.content.decode(),
                    imageManifestMediaType=manifest.media_type,
                    imageDigest=manifest.digest,
                    **tagged,
                    **self._registry,
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ImageAlreadyExistsException":
                    return
                is_taken = code == "ImageTagAlreadyExistsException"
                # By the same image, if another invocation has put it just now.
                if not is_taken or not tag or self.images(repository, [], [tag]).named.get(tag) != manifest.digest:
                    raise

    def create_repository(self, repository: str) -> None:
        """CreateRepository, with the registry's defaults. That another invocation was faster is no error."""
        with _calling("CreateRepository", repository):
            try:
                self._client.create_repository(repositoryName=repository, **self._registry)
            except ClientError as error:
                if error.response["Error"]["Code"] != "RepositoryAlreadyExistsException":
                    raise


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of as many as a call takes."""
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, _BATCH)):
        yield batch


def _calling(operation: str, repository: str) -> AbstractContextManager[None]:
    return translated(f"{operation} for ECR repository {repository}", _CODES)
