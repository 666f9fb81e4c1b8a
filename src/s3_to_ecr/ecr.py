"""Amazon ECR's layer API, one method a call, in the words of its documentation.

Source of every rule here: the ECR API reference (ecr/2015-09-21) and ECR's service quotas.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from botocore.exceptions import ClientError

from s3_to_ecr.aws import Codes, translated
from s3_to_ecr.errors import (
    AccessDenied,
    DigestMismatch,
    RepositoryMissing,
    UploadLost,
)
from s3_to_ecr.layer_part import PART_HANDLERS, LayerPart

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

LayerAvailability = Literal["AVAILABLE", "UNAVAILABLE", "ARCHIVED"]

# Service quotas "Layer parts" and "Layer size".
MAX_LAYER_PARTS = 4_200
MAX_LAYER_BYTES = 52_000 * 1024 * 1024

_MISSING = "Create the repository, or set CREATE_REPOSITORIES to true."
_MISMATCH = "The object's content does not have the digest that its key names."
_KMS = "The repository's KMS key could not be used: allow the function's role to use it."

_CODES: Codes = {
    "RepositoryNotFoundException": (RepositoryMissing, _MISSING),
    "UploadNotFoundException": (UploadLost, ""),
    "InvalidLayerException": (DigestMismatch, _MISMATCH),
    # What ECR holds of the upload is not what it took: the upload's state, not the object's fault.
    "EmptyUploadException": (UploadLost, ""),
    "LayerPartTooSmallException": (UploadLost, ""),
    "KmsException": (AccessDenied, _KMS),
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


class Registry:
    """One ECR registry: the account `registry_id`'s, or by `None` the caller's own."""

    def __init__(self, client: ECRClient, registry_id: str | None = None) -> None:
        """The `client` becomes the registry's own: it does not serialise UploadLayerPart itself any more."""
        self._client = client
        self._registry: dict[str, Any] = {"registryId": registry_id} if registry_id else {}
        for event, handler in PART_HANDLERS.items():
            client.meta.events.register(event, handler, unique_id=event)

    def layer_availability(self, repository: str, digest: str) -> LayerAvailability:
        """BatchCheckLayerAvailability for one digest.

        A layer that ECR lacks comes back as UNAVAILABLE or among the failures: UNAVAILABLE here. An ARCHIVED one
        belongs to archived images and cannot be pulled until one of them is restored.
        """
        with _calling("BatchCheckLayerAvailability", repository):
            answer = self._client.batch_check_layer_availability(
                repositoryName=repository, layerDigests=[digest], **self._registry
            )
        for layer in answer.get("layers", []):
            if layer.get("layerDigest") == digest:
                return layer.get("layerAvailability", "UNAVAILABLE")
        return "UNAVAILABLE"

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

    def create_repository(self, repository: str) -> None:
        """CreateRepository, with the registry's defaults. That another invocation was faster is no error."""
        with _calling("CreateRepository", repository):
            try:
                self._client.create_repository(repositoryName=repository, **self._registry)
            except ClientError as error:
                if error.response["Error"]["Code"] != "RepositoryAlreadyExistsException":
                    raise


def _calling(operation: str, repository: str) -> AbstractContextManager[None]:
    return translated(f"{operation} for ECR repository {repository}", _CODES)
