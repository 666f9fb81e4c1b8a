"""An ECR that enforces the rules which moto lacks. It speaks ECR's JSON 1.1 protocol over HTTP.

The rules are those of the API reference. A part begins where the last one ended, and is as long as its offsets say.
Parts but the last have a minimum size. A layer has the declared digest, and is not empty. An image's layers and
children exist before the image.

Nobody has seen some of ECR's answers, so the double has modes: attributes that may be set at any time.

    missing_as       how BatchCheckLayerAvailability lists a layer that is not there
    receipts         what `lastByteReceived` says after success: the "part" just received; "stale", always the first
                     part's end; or "relative", counted from the part's first byte
    refusals         how the refusal of a part tells the position: in the "member" `lastValidByteReceived`; only in the
                     message, which has the byte that is "expected first" or the one that was "sent first"; or "nowhere"
    complete_seconds how long CompleteLayerUpload takes. Meanwhile the upload is gone and the layer is not there yet,
                     even if the connection is cut
    while_completing how another CompleteLayerUpload is refused meanwhile
    converts_by_tag  whether BatchGetImage converts an image that is asked for by tag, unless its type is accepted; the
                     digest is then that of the converted manifest
    known_refusals   whether PutImage refuses manifests that ECR has been seen to refuse

Over HTTP it also serves pulls like a registry, for skopeo.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pybase64

from tests.doubles.server import Fault, Faults, QuietHandler, answer_in_process, serving

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

_TARGET = "AmazonEC2ContainerRegistry_V20150921."
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[a-zA-Z0-9_.-]{1,300}")
MAX_PART_BYTES = 20_971_520
MAX_MANIFEST_CHARACTERS = 4_194_304
MAX_LAYERS = 500
MIN_PART_BYTES = 5 * 1024 * 1024

# The attestations of BuildKit's option `oci-artifact=true`.
REFUSED_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"

# Between these two kinds of manifests, ECR converts.
_CONVERTED = {
    "application/vnd.oci.image.manifest.v1+json": "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json": "application/vnd.oci.image.manifest.v1+json",
}

LIFECYCLE_POLICY = json.dumps(
    {
        "rules": [
            {
                "rulePriority": 1,
                "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9},
                "action": {"type": "expire"},
            }
        ]
    }
)
REPOSITORY_POLICY = json.dumps(
    {"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "ecr:SetRepositoryPolicy"}]}
)
# A creation template for all repositories.
CREATION_TEMPLATE = {
    "prefix": "ROOT",
    "appliedFor": ["CREATE_ON_PUSH"],
    "lifecyclePolicy": LIFECYCLE_POLICY,
    "repositoryPolicy": REPOSITORY_POLICY,
}


@dataclass(frozen=True)
class Call:
    """A received request, without a part's content."""

    operation: str
    members: dict[str, Any]

    @property
    def span(self) -> tuple[int, int]:
        """The inclusive offsets of a part."""
        return self.members["partFirstByte"], self.members["partLastByte"]


@dataclass
class Upload:
    """An upload in progress. The content is kept only if the double keeps content."""

    repository: str
    sha256: Any = field(default_factory=hashlib.sha256)
    received: int = 0
    parts: list[int] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Image:
    """A manifest as it was put, with the media type that it is served under."""

    manifest: str
    media_type: str
    pushed: float = field(default_factory=time.time)


@dataclass
class Repository:
    """The contents of one repository: layers by digest (content, or `None`), images by digest, tags.

    `archived` are digests of layers and images. Putting an archived image restores it and its layers.
    """

    layers: dict[str, bytes | None] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    images: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    immutable_tags: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # members of CreateRepository
    lifecycle_policy: str | None = None
    repository_policy: str | None = None


@dataclass(frozen=True)
class Completion:
    """A layer that is there from the time `ready` on."""

    repository: Repository
    digest: str
    content: bytes | None
    ready: float


class EcrError(Exception):
    """An error of the service model, with its members."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(code)
        self.answer = {"__type": code, "message": message, **members}


class EcrDouble:
    """The registry. `calls` holds all requests in order; `faults` the planned faults.

    Faults for "ImageFailure" are for one image each: their code is reported among the failures of BatchGetImage.
    """

    def __init__(
        self,
        *,
        part_size: int = 10_485_760,
        min_part_bytes: int | None = None,
        missing_as: Literal["failure", "unavailable"] = "failure",
        keep_content: bool = True,
    ) -> None:
        self.part_size = part_size
        # A test's small part size lowers the minimum, too, or no part would be large enough.
        self.min_part_bytes = min(MIN_PART_BYTES, part_size) if min_part_bytes is None else min_part_bytes
        self.missing_as = missing_as
        self.receipts: Literal["part", "stale", "relative"] = "part"
        self.refusals: Literal["member", "expected first", "sent first", "nowhere"] = "member"
        self.complete_seconds = 0.0
        self.while_completing: Literal[
            "UploadNotFoundException", "InvalidLayerException", "LayerAlreadyExistsException"
        ] = "UploadNotFoundException"
        self.converts_by_tag = False
        self.known_refusals = True
        # A test without a network may let time pass by itself.
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], object] = time.sleep
        self.keep_content = keep_content
        self.repositories: dict[str, Repository] = {}
        self.registry_id = "123456789012"
        self.creation_templates: list[dict[str, Any]] = []
        self.uploads: dict[str, Upload] = {}
        self.calls: list[Call] = []
        self.faults = Faults()
        self.answered_digest: str | None = None
        self._completing: dict[str, Completion] = {}
        self._lock = threading.Lock()
        self.url = ""
        # The position of a byte that is pulled wrong from every layer that has it.
        self.damaged_byte: int | None = None

    def create(self, *repositories: str) -> EcrDouble:
        """Creates repositories, and returns the double."""
        self.repositories.update({name: Repository() for name in repositories})
        return self

    def calls_of(self, operation: str) -> list[Call]:
        """The requests of one operation."""
        return [call for call in self.calls if call.operation == operation]

    @property
    def operations(self) -> list[str]:
        """The operations called, in order."""
        return [call.operation for call in self.calls]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The offsets of all parts sent, in order."""
        return [call.span for call in self.calls_of("UploadLayerPart")]

    @property
    def bytes_received(self) -> int:
        """The number of bytes in all received parts, whether accepted or not."""
        return sum(last - first + 1 for first, last in self.spans)

    def content_of(self, repository: str, digest: str) -> bytes:
        """A layer's content; fails if it does not exist or was not kept."""
        content = self.repositories[repository].layers[digest]
        assert content is not None
        return content

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[EcrDouble]:
        """Serves the double over HTTP or HTTPS at `url`.

        Faults for "BreakRequest" cut the connection while a part is being sent.
        """
        double = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                operation = self.headers["X-Amz-Target"].removeprefix(_TARGET)
                if operation == "UploadLayerPart" and double.faults.take("BreakRequest"):
                    self.cut()
                    return
                body = self.body()
                answered = double.answer(operation, json.loads(body))
                if answered is None:
                    self.cut()
                    return
                status, answer = answered
                self.reply(status, json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.1"})

            def do_GET(self) -> None:
                self.reply(*double.pull(self.path))

            def do_HEAD(self) -> None:
                self.do_GET()

        with serving(Handler, tls) as url:
            self.url = url
            yield self
        # The handler refers to the double, in a cycle. What the double holds may be large, so it is freed now.
        for held in (self.repositories, self.uploads, self._completing, self.calls):
            held.clear()

    def attach(self, client: ECRClient) -> None:
        """Answers the client's calls without a network."""
        answer_in_process(client, self.answer)

    def answer(self, operation: str, members: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The HTTP status and the body, or `None` to cut the connection."""
        blob = pybase64.b64decode(members.pop("layerPartBlob", ""), validate=True)
        with self._lock:
            self._finish_completions()
            self.calls.append(Call(operation, members))
            fault = self.faults.take(operation)
            if fault and not fault.after:
                return self._refuse(fault)
            try:
                answer = self._operations[operation](members, blob)
            except EcrError as error:
                return 400, error.answer
            if fault:
                return self._refuse(fault)
        if operation == "CompleteLayerUpload" and self.complete_seconds:
            self.sleep(self.complete_seconds)
            with self._lock:
                self._finish_completions()
        return 200, answer

    def truncate_uploads(self, received: int) -> None:
        """Drops all bytes from `received` on from every upload in progress."""
        with self._lock:
            for upload in self.uploads.values():
                del upload.content[received:]
                upload.received = received
                ends = itertools.accumulate(upload.parts)
                kept = [min(size, received - (end - size)) for size, end in zip(upload.parts, ends, strict=True)]
                upload.parts = [size for size in kept if size > 0]
                upload.sha256 = hashlib.sha256(upload.content)

    def forget_uploads(self) -> None:
        """Forgets every upload in progress."""
        with self._lock:
            self.uploads.clear()

    @property
    def _operations(self) -> dict[str, Callable[[dict[str, Any], bytes], dict[str, Any]]]:
        return {
            "BatchCheckLayerAvailability": self._batch_check,
            "InitiateLayerUpload": self._initiate,
            "UploadLayerPart": self._upload_part,
            "CompleteLayerUpload": self._complete,
            "DescribeRepositoryCreationTemplates": self._describe_creation_templates,
            "CreateRepository": self._create_repository,
            "GetLifecyclePolicy": self._get_lifecycle_policy,
            "PutLifecyclePolicy": self._put_lifecycle_policy,
            "GetRepositoryPolicy": self._get_repository_policy,
            "SetRepositoryPolicy": self._set_repository_policy,
            "PutImage": self._put_image,
            "BatchGetImage": self._batch_get_image,
            "DescribeImages": self._describe_images,
            "GetDownloadUrlForLayer": self._get_download_url,
            "DeleteRepository": self._delete_repository,
        }

    @staticmethod
    def _refuse(fault: Fault) -> tuple[int, dict[str, Any]] | None:
        if fault.code is None:
            return None
        return fault.status, {"__type": fault.code, "message": "a fault on demand", **fault.members}

    def _finish_completions(self) -> None:
        """Shows the layers that are complete by now."""
        for upload_id, completion in list(self._completing.items()):
            if self.clock() >= completion.ready:
                completion.repository.layers[completion.digest] = completion.content
                del self._completing[upload_id]

    def _repository(self, members: dict[str, Any]) -> Repository:
        name = members["repositoryName"]
        if name not in self.repositories:
            raise EcrError("RepositoryNotFoundException", f"The repository with name '{name}' does not exist")
        return self.repositories[name]

    def _upload(self, members: dict[str, Any]) -> Upload:
        self._repository(members)
        upload = self.uploads.get(members["uploadId"])
        if upload is None or upload.repository != members["repositoryName"]:
            raise EcrError("UploadNotFoundException", "The upload could not be found, or is not valid here")
        return upload

    def _batch_check(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        if not 1 <= len(members["layerDigests"]) <= 100:
            raise EcrError("InvalidParameterException", "layerDigests takes 1 to 100 digests")
        layers, failures = [], []
        for digest in members["layerDigests"]:
            if not _DIGEST.fullmatch(digest):
                failures.append({"layerDigest": digest, "failureCode": "InvalidLayerDigest"})
            elif digest in repository.archived:
                layers.append({"layerDigest": digest, "layerAvailability": "ARCHIVED"})
            elif digest in repository.layers:
                layers.append({"layerDigest": digest, "layerAvailability": "AVAILABLE"})
            elif self.missing_as == "unavailable":
                layers.append({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"})
            else:
                failures.append({"layerDigest": digest, "failureCode": "MissingLayerDigest"})
        return {"layers": layers, "failures": failures}

    def _initiate(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        self._repository(members)
        upload_id = str(uuid.uuid4())
        self.uploads[upload_id] = Upload(members["repositoryName"])
        return {"uploadId": upload_id, "partSize": self.part_size}

    def _upload_part(self, members: dict[str, Any], blob: bytes) -> dict[str, Any]:
        upload = self._upload(members)
        first, last = members["partFirstByte"], members["partLastByte"]
        if len(blob) > MAX_PART_BYTES or not blob:
            raise EcrError("InvalidParameterException", f"a part of {len(blob)} bytes")
        if first != upload.received or last - first + 1 != len(blob):
            raise self._invalid_part(members, upload.received)
        upload.sha256.update(blob)
        upload.received += len(blob)
        upload.parts.append(len(blob))
        if self.keep_content:
            upload.content += blob
        last_byte = {"part": last, "stale": upload.parts[0] - 1, "relative": last - first}[self.receipts]
        return {"uploadId": members["uploadId"], "lastByteReceived": last_byte}

    def _invalid_part(self, members: dict[str, Any], expected: int) -> EcrError:
        code, upload_id, sent = "InvalidLayerPartException", members["uploadId"], members["partFirstByte"]
        match self.refusals:
            case "nowhere":
                return EcrError(code, "The layer part is invalid", uploadId=upload_id)
            case "expected first":
                message = f"First byte of the layer part is {expected} instead of {sent}"
                return EcrError(code, message, uploadId=upload_id)
            case _:
                message = f"First byte of the layer part is {sent} instead of {expected}"
                told = {"lastValidByteReceived": expected - 1} if self.refusals == "member" else {}
                return EcrError(code, message, uploadId=upload_id, **told)

    def _complete(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        if members["uploadId"] in self._completing:
            raise EcrError(self.while_completing, "The upload is being completed")
        upload = self._upload(members)
        repository = self._repository(members)
        digests = members["layerDigests"]
        if not upload.parts:
            raise EcrError("EmptyUploadException", "The upload has no parts")
        if any(size < self.min_part_bytes for size in upload.parts[:-1]):
            raise EcrError("LayerPartTooSmallException", "A part other than the last is under the minimum")
        found = f"sha256:{upload.sha256.hexdigest()}"
        if found not in digests:
            raise EcrError("InvalidLayerException", f"The layer has the digest {found}, not {digests}")
        if found in repository.layers:
            raise EcrError("LayerAlreadyExistsException", f"The layer {found} exists already")
        content = bytes(upload.content) if self.keep_content else None
        del self.uploads[members["uploadId"]]
        ready = self.clock() + self.complete_seconds
        self._completing[members["uploadId"]] = Completion(repository, found, content, ready)
        self._finish_completions()
        return {"uploadId": members["uploadId"], "layerDigest": self.answered_digest or found}

    def _create_repository(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        name = members["repositoryName"]
        if name in self.repositories:
            raise EcrError("RepositoryAlreadyExistsException", f"The repository {name} exists already")
        settings = {key: value for key, value in members.items() if key not in ("registryId", "repositoryName")}
        _check_settings(settings)
        immutable_tags = settings.get("imageTagMutability") == "IMMUTABLE"
        self.repositories[name] = Repository(immutable_tags=immutable_tags, settings=settings)
        return {"repository": {"repositoryName": name}}

    def _describe_creation_templates(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        """A page of two templates."""
        first = int(members.get("nextToken", 0))
        page = {
            "registryId": self.registry_id,
            "repositoryCreationTemplates": self.creation_templates[first : first + 2],
        }
        return page if first + 2 >= len(self.creation_templates) else page | {"nextToken": str(first + 2)}

    def _get_lifecycle_policy(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        policy = self._repository(members).lifecycle_policy
        if policy is None:
            raise EcrError("LifecyclePolicyNotFoundException", "The repository has no lifecycle policy")
        return {"lifecyclePolicyText": policy}

    def _put_lifecycle_policy(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        if "rules" not in _json_object(members["lifecyclePolicyText"]):
            raise EcrError("InvalidParameterException", "The lifecycle policy has no rules")
        repository.lifecycle_policy = members["lifecyclePolicyText"]
        return {"lifecyclePolicyText": repository.lifecycle_policy}

    def _get_repository_policy(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        policy = self._repository(members).repository_policy
        if policy is None:
            raise EcrError("RepositoryPolicyNotFoundException", "The repository has no policy")
        return {"policyText": policy}

    def _set_repository_policy(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Takes a policy that denies anything only if it is forced, as it may lock the caller out."""
        repository = self._repository(members)
        statements = _json_object(members["policyText"]).get("Statement", [])
        if not statements or (any(found["Effect"] == "Deny" for found in statements) and not members.get("force")):
            raise EcrError("InvalidParameterException", "The repository policy is empty, or needs force")
        repository.repository_policy = members["policyText"]
        return {"policyText": repository.repository_policy}

    def _delete_repository(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        if repository.images and not members.get("force"):
            raise EcrError("RepositoryNotEmptyException", "The repository has images")
        del self.repositories[members["repositoryName"]]
        return {"repository": {"repositoryName": members["repositoryName"]}}

    def _put_image(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        manifest, tag = members["imageManifest"], members.get("imageTag")
        digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        if members.get("imageDigest", digest) != digest:
            raise EcrError("ImageDigestDoesNotMatchException", f"The image has the digest {digest}")
        content = json.loads(manifest)
        media_type = str(members.get("imageManifestMediaType") or content.get("mediaType") or "")
        well_formed = media_type and content.get("schemaVersion") == 2
        if not well_formed or len(manifest) > MAX_MANIFEST_CHARACTERS or (tag is not None and not _TAG.fullmatch(tag)):
            raise EcrError("InvalidParameterException", f"No image of the media type {media_type} with the tag {tag}")
        if self.known_refusals:
            _check_form(content, media_type)
        _check_references(content, repository)
        named = repository.tags.get(tag) if tag else None
        is_restored = digest in repository.archived
        if is_restored:
            repository.archived -= {digest, *(layer["digest"] for layer in _blobs(content))}
        if named and repository.immutable_tags and not (is_restored and named == digest):
            raise EcrError("ImageTagAlreadyExistsException", f"The tag {tag} exists, and tags are immutable")
        if digest in repository.images and not is_restored and (tag is None or named == digest):
            raise EcrError("ImageAlreadyExistsException", f"The image {digest} exists already")
        repository.images[digest] = Image(manifest, media_type)
        if tag is not None:
            repository.tags[tag] = digest
        return {"image": {"imageId": {"imageDigest": digest}, "repositoryName": members["repositoryName"]}}

    def _batch_get_image(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        if not 1 <= len(members["imageIds"]) <= 100:
            raise EcrError("InvalidParameterException", "imageIds takes 1 to 100 images")
        images, failures = [], []
        for image_id in members["imageIds"]:
            digest = image_id.get("imageDigest") or repository.tags.get(image_id["imageTag"])
            code = "ImageInaccessible" if digest in repository.archived else "ImageNotFound"
            if fault := self.faults.take("ImageFailure"):
                code = str(fault.code)
            elif digest in repository.images and digest not in repository.archived:
                images.append(self._answered(image_id, repository.images[digest], members.get("acceptedMediaTypes")))
                continue
            failures.append({"imageId": image_id, "failureCode": code, "failureReason": "a reason"})
        return {"images": images, "failures": failures}

    def _answered(self, image_id: dict[str, str], image: Image, accepted: list[str] | None) -> dict[str, Any]:
        """An image as BatchGetImage answers it."""
        is_accepted = image.media_type in (accepted or [])
        if "imageTag" in image_id and self.converts_by_tag and not is_accepted and image.media_type in _CONVERTED:
            media_type = _CONVERTED[image.media_type]
            image = Image(json.dumps(json.loads(image.manifest) | {"mediaType": media_type}), media_type)
        return {
            "imageId": {**image_id, "imageDigest": f"sha256:{hashlib.sha256(image.manifest.encode()).hexdigest()}"},
            "imageManifest": image.manifest,
            "imageManifestMediaType": image.media_type,
        }

    def pull(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a registry's answer to a GET of `path`: manifests by tag or digest, and blobs."""
        if path == "/v2/":
            return 200, b"", {}
        parsed = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        repository = self.repositories.get(parsed[1]) if parsed else None
        if not parsed or not repository:
            return 404, b"", {}
        if parsed[2] == "blobs":
            content = repository.layers.get(parsed[3])
            return (200, self._damaged(content), {}) if content is not None else (404, b"", {})
        digest = repository.tags.get(parsed[3], parsed[3])
        if digest not in repository.images:
            return 404, b"", {}
        image = repository.images[digest]
        return 200, image.manifest.encode(), {"Content-Type": image.media_type, "Docker-Content-Digest": digest}

    def _describe_images(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        repository = self._repository(members)
        return {
            "imageDetails": [
                {"imageDigest": digest, "imagePushedAt": image.pushed} for digest, image in repository.images.items()
            ]
        }

    def _get_download_url(self, members: dict[str, Any], _: bytes) -> dict[str, Any]:
        digest = members["layerDigest"]
        if digest not in self._repository(members).layers:
            raise EcrError("LayerInaccessibleException", f"The layer {digest} cannot be downloaded")
        return {"layerDigest": digest, "downloadUrl": f"{self.url}/v2/{members['repositoryName']}/blobs/{digest}"}

    def _damaged(self, content: bytes) -> bytes:
        at = self.damaged_byte
        if at is None or at >= len(content):
            return content
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise EcrError("InvalidParameterException", "The policy is no JSON object") from error


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises unless a repository can have these settings."""
    tags = settings.get("tags", [])
    if any(tag["Key"].startswith("aws:") for tag in tags):
        raise EcrError("InvalidTagParameterException", "A tag's key begins with aws:")
    if len(tags) > 50:
        raise EcrError("TooManyTagsException", f"{len(tags)} tags")
    filters = settings.get("imageTagMutabilityExclusionFilters")
    if bool(filters) != str(settings.get("imageTagMutability")).endswith("_WITH_EXCLUSION"):
        raise EcrError("InvalidParameterException", "The exclusion filters do not go with the tag mutability")
    encryption = settings.get("encryptionConfiguration", {})
    if "kmsKey" in encryption and (not encryption["kmsKey"] or encryption["encryptionType"] == "AES256"):
        raise EcrError("InvalidParameterException", "The key does not go with the encryption")


def _is_elsewhere(layer: dict[str, Any]) -> bool:
    kind = layer.get("mediaType", "")
    return bool(layer.get("urls")) or "foreign" in kind or "nondistributable" in kind


def _blobs(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The config and layers that a manifest names, except layers that may be elsewhere."""
    config = [content["config"]] if content.get("config") else []
    return config + [layer for layer in content.get("layers", []) if not _is_elsewhere(layer)]


def _check_form(content: dict[str, Any], media_type: str) -> None:
    """Raises for manifests that ECR has been seen to refuse, though the specifications allow them."""
    config, layers = content.get("config") or {}, content.get("layers")
    types = [
        media_type,
        content.get("artifactType", ""),
        *(blob.get("mediaType", "") for blob in [config, *(layers or [])]),
    ]
    message = None
    if layers == [] and not content.get("subject"):  # of artifacts with a subject, nobody has reported it
        message = "Image has to have at least 1 layer"
    elif len(layers or []) > MAX_LAYERS:
        message = "Limit on number of layers per image exceeded"
    elif any(";" in kind for kind in types) or config.get("annotations") or REFUSED_ARTIFACT in types:
        message = "Invalid JSON syntax"
    if message:
        raise EcrError(
            "InvalidParameterException",
            f"Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{message}'",
        )


def _check_references(content: dict[str, Any], repository: Repository) -> None:
    """Raises unless all that the manifest names exists, except layers that may be elsewhere."""
    if missing := [blob["digest"] for blob in _blobs(content) if blob["digest"] not in repository.layers]:
        raise EcrError("LayersNotFoundException", f"The layers {missing} do not exist")
    children = [entry["digest"] for entry in content.get("manifests", [])]
    if missing := [child for child in children if child not in repository.images]:
        raise EcrError("ReferencedImagesNotFoundException", f"The images {missing} do not exist")
