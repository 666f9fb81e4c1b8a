"""Amazon ECR's API for layers, images and repositories: one method for each call, in the words of ECR's documentation.

Source of every rule here: the ECR API reference (ecr/2015-09-21) and ECR's service quotas.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from botocore.exceptions import ClientError

from s3_to_ecr.aws.sdk_errors import Codes, translated
from s3_to_ecr.ecr.completion import COMPLETION_HANDLERS
from s3_to_ecr.ecr.creation_templates import CreationTemplate, parse_template
from s3_to_ecr.ecr.layer_part import PART_HANDLERS, LayerPart
from s3_to_ecr.errors import (
    AccessDenied,
    BlobsMissing,
    BrokenManifest,
    DigestMismatch,
    RepositoryMissing,
    RequestRefused,
    S3ToEcrError,
    ServiceUnavailable,
    TagTaken,
    UploadLost,
)
from s3_to_ecr.media_types import MANIFEST_TYPES, SCHEMA_1_TYPES
from s3_to_ecr.telemetry.logs import logger

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

    from s3_to_ecr.deadline import Deadline

T = TypeVar("T")
LayerAvailability = Literal["AVAILABLE", "UNAVAILABLE", "ARCHIVED"]

# ECR's service quotas "Layer parts" and "Layer size".
MAX_LAYER_PARTS = 4_200
MAX_LAYER_BYTES = 52_000 * 1024 * 1024

# How many layers one call of BatchCheckLayerAvailability may ask for.
_LAYERS_AT_ONCE = 100

# BatchGetImage answers whole manifests, of up to 4 MiB each. The 100 that it may be asked for would need more memory
# than the function has; ten of the largest take 126 MB, which the smallest function has. An image with nine tags still
# takes one call. DescribeImages answers no manifests, but fails as a whole if a single image is missing.
_IMAGES_AT_ONCE = 10

# ECR converts an image that is asked for by tag, and answers another digest, unless its type is accepted.
_ACCEPTED_TYPES = sorted(MANIFEST_TYPES | SCHEMA_1_TYPES)

_MISSING = "Create the repository, or set CREATE_REPOSITORIES to true."
_MISMATCH = "The content does not have the digest that its key names, or its manifest."
_TAKEN = "The repository's tags are immutable: choose another tag, or delete the image that has it."
_CLEANED_UP = "ECR has removed them since; they will be uploaded again."
_KMS = "The repository's KMS key could not be used: allow the function's role to use it."
_UPSTREAM = "The repository is a pull through cache, and its upstream denies access: push to another repository."

_CODES: Codes = {
    "RepositoryNotFoundException": (RepositoryMissing, _MISSING),
    "UploadNotFoundException": (UploadLost, ""),
    # ECR stands elsewhere in the upload, and does not say where.
    "InvalidLayerPartException": (UploadLost, ""),
    "InvalidLayerException": (DigestMismatch, _MISMATCH),
    # ECR has lost parts that it had accepted. That is the upload's fault, not the object's.
    "EmptyUploadException": (UploadLost, ""),
    "LayerPartTooSmallException": (UploadLost, ""),
    "KmsException": (AccessDenied, _KMS),
    "ImageTagAlreadyExistsException": (TagTaken, _TAKEN),
    "ImageDigestDoesNotMatchException": (BrokenManifest, ""),
    "LayersNotFoundException": (BlobsMissing, _CLEANED_UP),
    "ReferencedImagesNotFoundException": (BlobsMissing, _CLEANED_UP),
    # These are failure codes of single images. Any other may pass, such as an upstream registry that is busy.
    "KmsError": (AccessDenied, _KMS),
    "UpstreamAccessDenied": (AccessDenied, _UPSTREAM),
    "InvalidImageDigest": (RequestRefused, ""),
    "InvalidImageTag": (RequestRefused, ""),
    "InvalidTagParameterException": (RequestRefused, ""),
    "TooManyTagsException": (RequestRefused, ""),
}

# How CompleteLayerUpload may be answered when the layer has been completed already, or is being completed just now.
_COMPLETED_BEFORE = {"UploadNotFoundException", "InvalidLayerException", "LayerAlreadyExistsException"}

# The answers of an ECR that has no creation templates, as those of some regions had none.
_UNKNOWN_OPERATION = ("UnknownOperationException", "UnsupportedCommandTypeException")


@dataclass(frozen=True)
class LayerUpload:
    """An upload that ECR has opened. `part_size`, in bytes, is what ECR expects of every part but the last."""

    repository: str
    upload_id: str
    part_size: int


@dataclass(frozen=True)
class PartReceipt:
    """What ECR holds after a part. `last_byte` is inclusive; -1 means nothing.

    `resends` counts how often the part was sent again: by the SDK's retries, or because ECR already had it.
    """

    last_byte: int
    resends: int


@dataclass(frozen=True)
class ImagesFound:
    """What ECR has of the images that it was asked for: their digests, and the digest that each tag names.

    An archived image is not `there`, because it cannot be pulled; putting it again restores it. A tag that names one is
    taken all the same: by `None`, since ECR does not tell the digest.
    """

    there: frozenset[str]
    named: Mapping[str, str | None]


class Registry:
    """One ECR registry: that of the account `registry_id`, or by `None` the caller's own.

    Questions that take several calls end with `OutOfTime` at the `deadline`.
    """

    def __init__(self, client: ECRClient, deadline: Deadline, registry_id: str | None = None) -> None:
        """The `client` becomes the registry's own, because the handlers change two of its calls."""
        self._client = client
        self._deadline = deadline
        self._id = registry_id
        self._members: dict[str, Any] = {"registryId": registry_id} if registry_id else {}
        for event, handler in (PART_HANDLERS | COMPLETION_HANDLERS).items():
            client.meta.events.register(event, handler, unique_id=event)

    def scope(self, repository: str) -> tuple[str | None, str]:
        """What distinguishes this repository from one of the same name in another registry."""
        return self._id, repository

    def layer_availability(self, repository: str, digests: Iterable[str]) -> dict[str, LayerAvailability]:
        """BatchCheckLayerAvailability, in as many calls as the digests need.

        A layer that ECR lacks is UNAVAILABLE here, whether it comes back as such or among the failures. An ARCHIVED
        layer belongs to archived images, and cannot be pulled until one of them is restored.
        """
        found: dict[str, LayerAvailability] = dict.fromkeys(digests, "UNAVAILABLE")
        for batch in _batches(found, _LAYERS_AT_ONCE):
            self._deadline.require("looking for the next layers")
            with _calling("BatchCheckLayerAvailability", repository):
                answer = self._client.batch_check_layer_availability(
                    repositoryName=repository, layerDigests=batch, **self._members
                )
            for layer in answer.get("layers", []):
                if layer.get("layerDigest") in found and "layerAvailability" in layer:
                    found[layer["layerDigest"]] = layer["layerAvailability"]
        return found

    def initiate(self, repository: str) -> LayerUpload:
        """InitiateLayerUpload."""
        with _calling("InitiateLayerUpload", repository):
            answer = self._client.initiate_layer_upload(repositoryName=repository, **self._members)
        return LayerUpload(repository, answer["uploadId"], answer["partSize"])

    def part(self, upload: LayerUpload, first_byte: int, length: int, used: LayerPart | None = None) -> LayerPart:
        """A part to write bytes into and then send. It takes over the memory of a `used` part, if there is one."""
        members = {**self._members, "repositoryName": upload.repository, "uploadId": upload.upload_id}
        return LayerPart(members, first_byte, length, used)

    def upload_part(self, upload: LayerUpload, part: LayerPart) -> PartReceipt:
        """UploadLayerPart, for a part of this upload that has been written in full. Returns what ECR holds now.

        A part that ECR takes is the last of what it holds: the `lastByteReceived` of a success has been seen to stay at
        the first part's end. A part that is not the next one is no error here: ECR says where it stands, and the caller
        resumes there. A part that landed although its answer was lost is reported in the same way.
        Raises `UploadLost` when ECR no longer knows the upload, or does not say where it stands.
        """
        with _calling("UploadLayerPart", upload.repository):
            try:
                answer: Mapping[str, Any] = self._client.upload_layer_part(
                    **part.members,
                    layerPartBlob=cast("Any", part),
                )
                expected, sent_before = part.end, False
            except ClientError as error:
                answer = cast("Mapping[str, Any]", error.response)  # has the modelled exception's members
                told = _expected_byte(answer, part.first_byte)
                if told is None:
                    raise
                expected, sent_before = told, told >= part.end
        return PartReceipt(expected - 1, max(answer["ResponseMetadata"]["RetryAttempts"], sent_before))

    def complete(self, upload: LayerUpload, digest: str, deadline: Deadline, *, again: bool = False) -> str | None:
        """CompleteLayerUpload, which may take until the `deadline`. Returns the layer's digest as ECR has computed it.

        A layer that exists already is success, because layers are named by their content. Raises `DigestMismatch` when
        the parts do not have the `digest`, and `UploadLost` when ECR no longer knows the upload.

        Such an answer means little to a call that is made `again`, by the SDK or by another invocation: ECR may still
        be completing the layer for the first one. Then `None` is returned, and the layer's availability tells.
        """
        with _calling("CompleteLayerUpload", upload.repository):
            try:
                answer = self._client.complete_layer_upload(
                    repositoryName=upload.repository,
                    uploadId=upload.upload_id,
                    layerDigests=[digest],
                    **self._members,
                    **cast("Any", {"deadline": deadline}),
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in _COMPLETED_BEFORE and (again or error.response["ResponseMetadata"]["RetryAttempts"]):
                    return None
                if code != "LayerAlreadyExistsException":
                    raise
                return digest
        return answer["layerDigest"]

    def images(self, repository: str, digests: Iterable[str], tags: Iterable[str] = ()) -> ImagesFound:
        """BatchGetImage, in as many calls as needed: which of the images exist, and what the tags name.

        Raises an error for an image that ECR can neither show nor call missing: its tag must not pass for free.
        """
        identifiers = [{"imageDigest": digest} for digest in digests] + [{"imageTag": tag} for tag in tags]
        there: set[str] = set()
        named: dict[str, str | None] = {}
        for batch in _batches(identifiers, _IMAGES_AT_ONCE):
            self._deadline.require("looking for the next images")
            with _calling("BatchGetImage", repository):
                answer = self._client.batch_get_image(
                    repositoryName=repository,
                    imageIds=cast("Any", batch),
                    acceptedMediaTypes=_ACCEPTED_TYPES,
                    **self._members,
                )
            for image in answer.get("images", []):
                found = image["imageId"]
                there.add(found["imageDigest"])
                if "imageTag" in found:
                    named[found["imageTag"]] = found["imageDigest"]
            for failure in answer.get("failures", []):
                wanted = failure.get("imageId", {})
                if failure.get("failureCode") == "ImageInaccessible":
                    logger.warning("ECR has archived an image. Pushing it again restores it", image=wanted)
                    named |= {wanted["imageTag"]: None} if "imageTag" in wanted else {}
                elif failure.get("failureCode") != "ImageNotFound":
                    raise _unreadable(repository, failure)
        return ImagesFound(frozenset(there), named)

    def put_image(self, repository: str, digest: str, media_type: str, content: bytes, tag: str | None = None) -> None:
        """PutImage, with the manifest's exact bytes. It is success if the image exists already, under the same tag.

        Raises `TagTaken` when the tag is immutable and names another image, `BlobsMissing` when ECR lacks what the
        manifest names, and `BrokenManifest` when ECR finds another digest.
        """
        tagged: dict[str, Any] = {"imageTag": tag} if tag else {}
        with _calling("PutImage", repository):
            try:
                self._client.put_image(
                    repositoryName=repository,
                    imageManifest=content.decode(),
                    imageManifestMediaType=media_type,
                    imageDigest=digest,
                    **tagged,
                    **self._members,
                )
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ImageAlreadyExistsException":
                    return
                is_taken = code == "ImageTagAlreadyExistsException"
                # Another invocation may have put the same image just now.
                if not is_taken or not tag or self.images(repository, [], [tag]).named.get(tag) != digest:
                    raise

    def creation_templates(self) -> list[CreationTemplate]:
        """DescribeRepositoryCreationTemplates, in as many calls as needed: those for repositories that a push creates.

        ECR shows an account only its own registry's templates. Of another account's registry there are none here.
        """
        found: list[CreationTemplate | None] = []
        with translated("DescribeRepositoryCreationTemplates", _CODES):
            try:
                for page in self._client.get_paginator("describe_repository_creation_templates").paginate():
                    if self._id not in (None, page.get("registryId")):
                        return []
                    found += map(parse_template, page.get("repositoryCreationTemplates", []))
            except ClientError as error:
                if error.response["Error"]["Code"] not in _UNKNOWN_OPERATION:
                    raise
        return [template for template in found if template]

    def create_repository(self, repository: str, settings: Mapping[str, Any]) -> bool:
        """CreateRepository. `False` if the repository exists already."""
        with _calling("CreateRepository", repository):
            return _succeeds(
                lambda: self._client.create_repository(repositoryName=repository, **settings, **self._members),
                "RepositoryAlreadyExistsException",
            )

    def has_lifecycle_policy(self, repository: str) -> bool:
        """GetLifecyclePolicy."""
        with _calling("GetLifecyclePolicy", repository):
            return _succeeds(
                lambda: self._client.get_lifecycle_policy(repositoryName=repository, **self._members),
                "LifecyclePolicyNotFoundException",
            )

    def put_lifecycle_policy(self, repository: str, policy: str) -> None:
        """PutLifecyclePolicy."""
        with _calling("PutLifecyclePolicy", repository):
            self._client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=policy, **self._members)

    def has_repository_policy(self, repository: str) -> bool:
        """GetRepositoryPolicy."""
        with _calling("GetRepositoryPolicy", repository):
            return _succeeds(
                lambda: self._client.get_repository_policy(repositoryName=repository, **self._members),
                "RepositoryPolicyNotFoundException",
            )

    def set_repository_policy(self, repository: str, policy: str) -> None:
        """SetRepositoryPolicy, even if the policy does not let the function's role change it again."""
        with _calling("SetRepositoryPolicy", repository):
            self._client.set_repository_policy(
                repositoryName=repository, policyText=policy, force=True, **self._members
            )


def _succeeds(call: Callable[[], object], unless: str) -> bool:
    """Makes the call. `False` if ECR answers with this error code."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != unless:
            raise
        return False
    return True


def _batches(items: Iterable[T], at_once: int) -> Iterator[list[T]]:
    """The items in lists of so many."""
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, at_once)):
        yield batch


def _expected_byte(refusal: Mapping[str, Any], sent: int) -> int | None:
    """The byte that ECR expects instead of the one that was `sent` first, or `None` if the refusal does not tell."""
    if refusal["Error"]["Code"] != "InvalidLayerPartException":
        return None
    if "lastValidByteReceived" in refusal:
        return int(refusal["lastValidByteReceived"]) + 1
    # "First byte of the layer part is 10485760 instead of 20971520". Reports differ on which of the two was sent.
    named = re.search(r"(\d+) instead of (\d+)", refusal["Error"].get("Message", ""))
    if not named:
        return None
    one, other = int(named[1]), int(named[2])
    expected = {one: other, other: one}.get(sent)
    return None if expected == sent else expected


def _unreadable(repository: str, failure: Mapping[str, Any]) -> S3ToEcrError:
    """The error for a failure that BatchGetImage reports for one image."""
    code = failure.get("failureCode", "no failure code")
    wanted = " ".join(failure.get("imageId", {}).values())
    kind, advice = _CODES.get(code, (ServiceUnavailable, ""))
    reason = failure.get("failureReason", "")
    return kind(
        f"BatchGetImage for {wanted} in ECR repository {repository} failed with {code}: {reason} {advice}".strip()
    )


def _calling(operation: str, repository: str) -> AbstractContextManager[None]:
    return translated(f"{operation} for ECR repository {repository}", _CODES)
