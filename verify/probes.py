"""Asks ECR itself what the function assumes of it: answers that AWS does not document, or that only others saw."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from botocore.exceptions import ClientError

from local import images
from local.images import Built, digest_of
from verify.failures import explained, lacking
from verify.report import Answer, Report
from verify.repository import MEDIA_TYPES, Repository
from verify.workspace import Workspace

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB

# ECR's documented minimum of a part but the last, and the service model's maximum of any.
_PART_SIZES: Final = range(5 * _MIB, 20 * _MIB + 1)

# The largest layer, 41 GiB, has to be completed within an invocation of 15 minutes.
_SECONDS_PER_GIB: Final = 20

_DOCKER_MANIFEST: Final = MEDIA_TYPES[-1]
_LAYER: Final = random.Random(0).randbytes(1000)  # noqa: S311 (not a secret)
_ABSENT: Final = digest_of(b"s3-to-ecr never uploads this")


@dataclass(frozen=True)
class Refusal:
    """An error that ECR answered with."""

    code: str
    message: str
    members: Mapping[str, Any]

    def __str__(self) -> str:
        position = self.members.get("lastValidByteReceived")
        return f"{self.code}{'' if position is None else f' with lastValidByteReceived {position}'}: {self.message}"


# An answer in words, and whether it agrees with what is assumed; `None` if nothing depends on it.
Found = tuple[str, bool | None]


class _Upload:
    """An upload of a layer to the repository."""

    def __init__(self, repository: Repository) -> None:
        answer = repository.ecr.initiate_layer_upload(**repository.members)
        self._ecr = repository.ecr
        self._members: Any = {**repository.members, "uploadId": answer["uploadId"]}
        self.part_size = answer["partSize"]

    def send(self, first_byte: int, content: bytes) -> int | None:
        """UploadLayerPart. Returns the position in the answer."""
        answer: Mapping[str, Any] = self._ecr.upload_layer_part(
            **self._members,
            partFirstByte=first_byte,
            partLastByte=first_byte + len(content) - 1,
            layerPartBlob=content,
        )
        return answer.get("lastByteReceived")

    def complete(self, digest: str) -> str:
        """CompleteLayerUpload. Returns the digest in the answer."""
        return self._ecr.complete_layer_upload(**self._members, layerDigests=[digest])["layerDigest"]


class Probes:
    """The questions, asked in repositories of the workspace. The answers go into the `report`."""

    def __init__(self, workspace: Workspace, report: Report, large_bytes: int) -> None:
        self._workspace = workspace
        self._report = report
        self._large_bytes = large_bytes

    def run(self) -> None:
        """Asks every question, whatever becomes of the others. Raises `Stopped` without a repository to ask in."""
        self._repository = self._workspace.create_repository("-probe")
        for ask in (self._parts, self._layers, self._requests, self._manifests, self._tags, self._repositories):
            with self._noting(f"the questions about {ask.__name__.strip('_')}", "they can be asked"):
                ask()
        self._large_layer()

    def _ask(self, question: str, assumed: str, find: Callable[[], Found]) -> None:
        with self._noting(question, assumed):
            answered, agrees = find()
            self._report.answer(Answer(question, assumed, answered, agrees))

    @contextmanager
    def _noting(self, question: str, assumed: str) -> Iterator[None]:
        """Notes an error that is not an answer to the question: a lacking permission, or any other surprise."""
        try:
            yield
        except ClientError as error:
            asked = "Not asked. " if lacking(error) else ""
            self._report.answer(Answer(question, assumed, f"{asked}{explained(error)}", agrees=False))

    def _parts(self) -> None:
        upload = _Upload(self._repository)
        size = upload.part_size
        parts = [_random_bytes(number, length) for number, length in enumerate((size, size, 1000))]
        digest = digest_of(b"".join(parts))
        accepted = [upload.send(0, parts[0]), upload.send(size, parts[1])]
        self._ask(
            "the size of a part",
            f"from {_PART_SIZES.start:,} to {_PART_SIZES[-1]:,} bytes",
            lambda: (f"{size:,} bytes", size in _PART_SIZES),
        )
        self._ask(
            "lastByteReceived after each of two accepted parts",
            f"{size - 1} and {2 * size - 1}, or a stale {size - 1} again",
            lambda: (" and ".join(map(str, accepted)), accepted in ([size - 1, 2 * size - 1], [size - 1, size - 1])),
        )
        where = f"InvalidLayerPartException, which gives or mentions byte {2 * size} as the next"
        for question, first_byte, content in (
            ("a part that leaves bytes out", 3 * size, parts[2]),
            ("a part that was accepted before", size, parts[1]),
            ("an upload started over at byte 0", 0, parts[0]),
        ):
            self._ask(question, where, partial(_refused_at, 2 * size, upload, first_byte, content))
        self._ask(
            "the upload after these refusals",
            f"it goes on, and is completed as {digest}",
            lambda: _completed(upload, digest, 2 * size, parts[2]),
        )
        self._ask_refusal(
            "the same upload completed twice",
            lambda: upload.complete(digest),
            "UploadNotFoundException",
            "LayerAlreadyExistsException",
        )

    def _layers(self) -> None:
        self._upload(_LAYER)
        self._ask_refusal(
            "a layer that exists, completed", lambda: self._upload_again(_LAYER), "LayerAlreadyExistsException"
        )
        self._ask_refusal(
            "a layer completed under another digest",
            lambda: self._upload_again(_LAYER, _ABSENT),
            "InvalidLayerException",
        )
        self._ask_refusal(
            "an upload without bytes, completed",
            lambda: _Upload(self._repository).complete(_ABSENT),
            "EmptyUploadException",
        )
        self._ask_refusal(
            f"two parts of {len(_LAYER):,} bytes, completed",
            lambda: self._upload_again(_LAYER, digest_of(2 * _LAYER), times=2),
            "LayerPartTooSmallException",
        )
        self._ask("a part one byte larger than partSize", "nothing", self._oversized)
        self._ask(
            "BatchCheckLayerAvailability for a missing layer", "UNAVAILABLE or MissingLayerDigest", self._missing_layer
        )

    def _oversized(self) -> Found:
        upload = _Upload(self._repository)
        content = _random_bytes(3, upload.part_size + 1)
        refusal = _refusal(lambda: upload.send(0, content)) or _refusal(lambda: upload.complete(digest_of(content)))
        return str(refusal or "accepted, and the layer was completed"), None

    def _missing_layer(self) -> Found:
        answer = self._repository.ecr.batch_check_layer_availability(**self._repository.members, layerDigests=[_ABSENT])
        found: list[Any] = [layer.get("layerAvailability") for layer in answer.get("layers", [])]
        found += [failure.get("failureCode") for failure in answer.get("failures", [])]
        return ", ".join(map(str, found)), found in (["UNAVAILABLE"], ["MissingLayerDigest"])

    def _requests(self) -> None:
        self._ask(
            "a part with its hash in the header X-Amz-Content-SHA256",
            "accepted",
            lambda: self._with_header(lambda body: digest_of(body).removeprefix("sha256:")),
        )
        self._ask(
            "a part with UNSIGNED-PAYLOAD in the header X-Amz-Content-SHA256",
            "nothing",
            lambda: (self._with_header(lambda _: "UNSIGNED-PAYLOAD")[0], None),
        )

    def _with_header(self, value: Callable[[bytes], str]) -> Found:
        def add(params: dict[str, Any], **_: object) -> None:
            params["headers"]["X-Amz-Content-SHA256"] = value(params["body"])

        events = self._repository.ecr.meta.events
        events.register("before-call.ecr.UploadLayerPart", add)
        try:
            upload = _Upload(self._repository)
            refusal = _refusal(lambda: upload.send(0, _LAYER))
        finally:
            events.unregister("before-call.ecr.UploadLayerPart", add)
        return str(refusal or "accepted"), refusal is None

    def _manifests(self) -> None:
        lacking_layers = images.image([_random_bytes(4, 1000)])
        image = images.image([_LAYER])
        for content in image.blobs.values():
            self._upload(content)
        self._ask_refusal(
            "an image whose layers are missing", lambda: self._put(lacking_layers), "LayersNotFoundException"
        )
        self._ask_refusal(
            "an index whose images are missing",
            lambda: self._put(images.index(lacking_layers)),
            "ReferencedImagesNotFoundException",
        )

        for question, refused in _refused_manifests(image).items():
            self._ask_refusal(question, partial(self._put, refused), "InvalidParameterException")
        artifact = images.image([], artifactType="application/vnd.s3-to-ecr.verify")
        for content in artifact.blobs.values():
            self._upload(content)
        self._ask(
            "an artifact without layers",
            "nothing",
            lambda: (str(_refusal(lambda: self._put(artifact)) or "accepted"), None),
        )

    def _tags(self) -> None:
        image, other = images.image([_LAYER]), images.image([_LAYER], architecture="arm64")
        for content in (image.all_blobs | other.all_blobs).values():
            self._upload(content)
        self._put(image, "probe")
        as_put = f"{images.OCI_MANIFEST} {image.digest}"
        by_tag, by_digest = {"imageTag": "probe"}, {"imageDigest": image.digest}
        for question, image_id, types, assumed in (
            ("an OCI image by tag, every media type accepted", by_tag, MEDIA_TYPES, as_put),
            ("an OCI image by digest, only Docker's type accepted", by_digest, [_DOCKER_MANIFEST], as_put),
            ("an OCI image by tag, only Docker's type accepted", by_tag, [_DOCKER_MANIFEST], None),
            ("an OCI image by tag, no type mentioned", by_tag, [], None),
            ("a tag that does not exist", {"imageTag": "absent"}, MEDIA_TYPES, "ImageNotFound"),
        ):
            self._ask(
                question,
                assumed or "nothing",
                partial(self._found_image, image_id, types, assumed),
            )
        immutable = self._workspace.create_repository("-immutable", imageTagMutability="IMMUTABLE")
        for content in (image.all_blobs | other.all_blobs).values():
            self._upload(content, immutable)
        self._put(image, "probe", immutable)
        self._ask_refusal(
            "the same image under its immutable tag again",
            lambda: self._put(image, "probe", immutable),
            "ImageTagAlreadyExistsException",
            "ImageAlreadyExistsException",
        )
        self._ask_refusal(
            "another image under an immutable tag",
            lambda: self._put(other, "probe", immutable),
            "ImageTagAlreadyExistsException",
        )

    def _found_image(self, image_id: Any, types: list[str], assumed: str | None) -> Found:
        accepted: Any = {"acceptedMediaTypes": types} if types else {}
        answer = self._repository.ecr.batch_get_image(**self._repository.members, imageIds=[image_id], **accepted)
        found = [
            f"{image.get('imageManifestMediaType')} {digest_of(image['imageManifest'].encode())}"
            for image in answer.get("images", [])
        ]
        found += [str(failure.get("failureCode")) for failure in answer.get("failures", [])]
        return ", ".join(found), None if assumed is None else found == [assumed]

    def _repositories(self) -> None:
        # A template of the registry might create it. It would then be deleted with the others.
        missing = self._workspace.repository("-missing")
        self._ask_refusal(
            "InitiateLayerUpload for a repository that does not exist",
            lambda: _Upload(missing),
            "RepositoryNotFoundException",
        )

    def _large_layer(self) -> None:
        self._ask(
            f"the time that CompleteLayerUpload takes for {self._large_bytes // _MIB:,} MiB",
            f"at most {_SECONDS_PER_GIB} s for 1 GiB, so that the largest layer is completed within an invocation",
            self._completing_seconds,
        )

    def _completing_seconds(self) -> Found:
        upload = _Upload(self._repository)
        block = _random_bytes(5, upload.part_size)
        sha256 = hashlib.sha256()
        for first_byte in range(0, self._large_bytes, upload.part_size):
            part = (first_byte.to_bytes(8) + block[8:])[: self._large_bytes - first_byte]
            upload.send(first_byte, part)
            sha256.update(part)
            tenth = self._large_bytes // 10
            if (first_byte + len(part)) // tenth > first_byte // tenth:
                self._report.say(f"sent {(first_byte + len(part)) // _MIB:,} MiB of the large layer")
        started = time.monotonic()
        upload.complete(f"sha256:{sha256.hexdigest()}")
        seconds = time.monotonic() - started
        return f"{seconds:.1f} s", seconds <= _SECONDS_PER_GIB * max(self._large_bytes / _GIB, 1)

    def _ask_refusal(self, question: str, call: Callable[[], object], *codes: str) -> None:
        """Asks what ECR refuses a call with. One of the codes is assumed."""

        def find() -> Found:
            refusal = _refusal(call)
            return str(refusal or "accepted"), refusal is not None and refusal.code in codes

        self._ask(question, " or ".join(codes), find)

    def _upload(self, content: bytes, repository: Repository | None = None) -> None:
        """Uploads a layer of one part, unless it is there."""
        repository = repository or self._repository
        if not repository.has_layer(digest_of(content)):
            upload = _Upload(repository)
            upload.send(0, content)
            upload.complete(digest_of(content))

    def _upload_again(self, content: bytes, digest: str = "", times: int = 1) -> None:
        """Uploads parts of this content, and completes them as this digest, or else the content's own."""
        upload = _Upload(self._repository)
        for number in range(times):
            upload.send(number * len(content), content)
        upload.complete(digest or digest_of(content))

    def _put(self, image: Built, tag: str | None = None, repository: Repository | None = None) -> None:
        """PutImage."""
        repository = repository or self._repository
        tagged: Any = {"imageTag": tag} if tag else {}
        repository.ecr.put_image(
            **repository.members,
            imageManifest=image.manifest.decode(),
            imageManifestMediaType=image.media_type,
            **tagged,
        )


def _refused_manifests(image: Built) -> dict[str, Built]:
    """Variants of an image that the function rejects, because ECR is known to refuse them."""
    manifest = json.loads(image.manifest)
    config, [layer] = manifest["config"], manifest["layers"]
    variants: dict[str, dict[str, Any]] = {
        "an image without layers": {"layers": []},
        "an image of 501 layers": {"layers": [layer] * 501},
        "a media type with a semicolon": {"layers": [layer | {"mediaType": f"{layer['mediaType']};a=b"}]},
        "a config with annotations": {"config": config | {"annotations": {"a": "b"}}},
    }
    return {question: Built(json.dumps(manifest | changed).encode()) for question, changed in variants.items()}


def _refusal(call: Callable[[], object]) -> Refusal | None:
    """The error that ECR answers the call with. Raises the error if the caller may not ask."""
    try:
        call()
    except ClientError as error:
        if lacking(error):
            raise
        answer: Mapping[str, Any] = error.response
        return Refusal(answer["Error"]["Code"], answer["Error"]["Message"], answer)
    return None


def _refused_at(expected: int, upload: _Upload, first_byte: int, content: bytes) -> Found:
    """What becomes of a part that is not the next one: `expected` is the byte that should be."""
    refusal = _refusal(lambda: upload.send(first_byte, content))
    if refusal is None:
        return "accepted", False
    given = refusal.members.get("lastValidByteReceived") == expected - 1
    mentioned = str(expected) in refusal.message
    return str(refusal), refusal.code == "InvalidLayerPartException" and (given or mentioned)


def _completed(upload: _Upload, digest: str, first_byte: int, last_part: bytes) -> Found:
    upload.send(first_byte, last_part)
    found = upload.complete(digest)
    return f"completed as {found}", found == digest


def _random_bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311 (not a secret)
