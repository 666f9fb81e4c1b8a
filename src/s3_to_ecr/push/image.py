"""Pushing images: everything that an image is made of first, then its manifest, with every tag.

one call asks ECR for the images and their tags; what ECR has is skipped
the manifests that ECR lacks are read, from the root down
the layers that ECR lacks are all found before the image's first is uploaded
the layers of all images are uploaded several at a time, the largest first; meanwhile the next image is looked at
PutImage for each manifest, children first; the root last, once for every tag; in turn, as ECR takes ten a second
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from s3_to_ecr.blobs import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import ImagesFound
from s3_to_ecr.errors import (
    RepositoryMissing,
    S3ToEcrError,
    combined,
    forget_locals,
)
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.manifests import Descriptor, Manifest
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.images.references import Reference, check_tag, is_tag
from s3_to_ecr.push.image_layers import ImageLayers, ImageUploads, LayerUploads, Streamed
from s3_to_ecr.push.image_manifests import RETRIED_FIRST, ImageManifests
from s3_to_ecr.push.repositories import Repositories
from s3_to_ecr.push.targets import Target, targets_of, without_ambiguous_tags
from s3_to_ecr.results import PushedImage, Result
from s3_to_ecr.telemetry.logs import log_with, logger, object_context
from s3_to_ecr.telemetry.outcomes import Outcomes

# The manifests of images whose layers are on their way. Hundreds of usual images have fewer bytes.
_MOST_WAITING_BYTES = 1024 * 1024

# The layers that one pass through a stream uploads, each counted once for every repository. An image of 10,000 layers
# may go to 1,000 repositories.
_MOST_IN_A_PASS = 20_000


@dataclass(frozen=True)
class ImagePusher:
    """Pushes images to the registry of the `repositories`: their blobs through `layers`, then their `manifests`."""

    repositories: Repositories
    layers: ImageLayers
    manifests: ImageManifests
    deadline: Deadline
    outcomes: Outcomes

    def push(self, request: PushRequest, destination: Callable[[Reference | None], Destination]) -> Result:
        """Pushes every image that ECR lacks to the `destination` of its references. One failure stops no other image.

        Raises the failure. If there are several, it is one that may pass by itself, with the reasons of all. Raises
        `UnsupportedManifest` at once if the object's manifests exceed their allowance.
        """
        targets, nowhere = targets_of(request.images, destination)
        targets, ambiguous = without_ambiguous_tags(targets)
        push = _Push(self, request, targets)
        push.run()
        missing = [_all_missing(push.missing)] if push.missing else []
        if failures := [*missing, *nowhere, *ambiguous, *push.failures]:
            raise combined(failures, RETRIED_FIRST)
        repositories = list(dict.fromkeys(target.repository for target in targets))
        return _result(request, [push.pushed[number] for number in sorted(push.pushed)], repositories)


@dataclass(frozen=True)
class _Pushed:
    """What became of a target. `kept_tags` are its tags that were not moved, because a later write has set them."""

    target: Target
    changed: bool
    kept_tags: tuple[str, ...] = ()

    @property
    def tags(self) -> list[str]:
        """The tags that name the image now."""
        return [tag for tag in self.target.tags if tag not in self.kept_tags]


@dataclass(frozen=True)
class _Begun:
    """The target of that `number` on its way. Its `manifests` are to be put, children first; none if ECR has them.

    If the image `exists` in ECR, it is put only for its `missing_tags`. It was `started` by the monotonic clock.
    """

    number: int
    target: Target
    exists: bool
    missing_tags: list[str]
    manifests: list[Manifest]
    started: float


class _Push:
    """The images of one object on their way to their targets. `pushed` has what became of each, by its number.

    What fails is in `failures`, and `missing` has the repositories that ECR lacks.
    """

    def __init__(self, pusher: ImagePusher, request: PushRequest, targets: Sequence[Target]) -> None:
        self.pushed: dict[int, _Pushed] = {}
        self.failures: list[S3ToEcrError] = []
        self.missing: dict[str, RepositoryMissing] = {}
        self._pusher = pusher
        self._request = request
        self._targets = targets
        self._found: dict[str, ImagesFound] = {}
        self._begun: dict[ImageUploads, _Begun] = {}
        self._put: set[tuple[str, str]] = set()  # without a tag, by repository and digest

    def run(self) -> None:
        """Finishes each image as soon as its layers are there. Meanwhile the next ones are begun."""
        streamed = self._push_stream() if self._request.is_stream else {}
        with self._pusher.layers.uploads(self._request, streamed) as uploads:
            for number, target in enumerate(self._targets):
                self._finish_ended(uploads, wait=self._request.is_stream or self._are_enough())
                if target.repository not in self.missing:
                    with self._noting(target):
                        start = partial(self._begin, number, target, self._look_up(target.repository), uploads)
                        self._pusher.repositories.within(target.repository, start)
            self._finish_ended(uploads, wait=True)

    def _push_stream(self) -> Streamed:
        """Uploads the layers of all images. One pass through the stream is enough for all real archives."""
        streamed: Streamed = {}
        blobs: dict[tuple[str, str], Blob] = {}
        for target in self._targets:
            if len(blobs) > _MOST_IN_A_PASS:
                streamed |= self._pusher.layers.push_in_order(blobs, self._request.document.key)
                blobs.clear()
                if sum(map(bool, streamed.values())) > _MOST_IN_A_PASS:
                    return streamed  # hardly any layer can be read
            # What is wrong with an image is reported when the image is pushed.
            with suppress(S3ToEcrError):
                if target.image.digest in self._look_up(target.repository).there:
                    continue
                missing = self._pusher.repositories.within(target.repository, partial(self._missing_blobs, target))
                blobs |= {(target.repository, digest): blob for digest, blob in missing.items()}
        return streamed | self._pusher.layers.push_in_order(blobs, self._request.document.key)

    def _look_up(self, repository: str) -> ImagesFound:
        """What ECR has of the repository's targets and their tags. If the repository is missing, that is nothing."""
        if repository not in self._found:
            mine = [target for target in self._targets if target.repository == repository]
            tags = [tag for target in mine for tag in target.tags if is_tag(tag)]
            digests = [target.image.digest for target in mine]
            try:
                self._found[repository] = self._pusher.repositories.registry.images(repository, digests, tags)
            except RepositoryMissing:
                self._found[repository] = ImagesFound(frozenset(), {})
        return self._found[repository]

    def _missing_blobs(self, target: Target) -> dict[str, Blob]:
        manifests = self._pusher.manifests.missing(_descriptor(target), self._request, target.repository)
        return self._pusher.layers.missing(manifests, self._request, target.repository)

    def _begin(self, number: int, target: Target, found: ImagesFound, uploads: LayerUploads) -> None:
        """Begins to upload the image's layers, unless ECR was `found` to have the image."""
        self._pusher.deadline.require("the next image")
        started = time.monotonic()
        for tag in target.tags:
            check_tag(tag)
        root = _descriptor(target)
        exists = root.digest in found.there
        missing_tags = [tag for tag in target.tags if found.named.get(tag) != root.digest]
        manifests: list[Manifest] = []
        if not exists:
            manifests = self._pusher.manifests.missing(root, self._request, target.repository)
        elif missing_tags:
            manifests = [self._request.manifest(root)]
        on_their_way = uploads.begin([] if exists else manifests, target.repository)
        self._begun[on_their_way] = _Begun(number, target, exists, missing_tags, manifests, started)

    def _are_enough(self) -> bool:
        """Whether the manifests that wait for their layers take all of the memory that they may."""
        waiting = (manifest for image in self._begun.values() for manifest in image.manifests)
        return sum(len(manifest.content) for manifest in waiting) >= _MOST_WAITING_BYTES

    def _finish_ended(self, uploads: LayerUploads, *, wait: bool) -> None:
        """Finishes the images whose layers have ended, or all if it is to `wait` for their layers."""
        while self._begun and (ended := uploads.next_ended(wait=wait)):
            image = self._begun.pop(ended)
            with self._noting(image.target):
                ended.check()
                finish = partial(self._finish, image)
                self.pushed[image.number] = self._pusher.repositories.within(image.target.repository, finish)

    def _finish(self, begun: _Begun) -> _Pushed:
        """Puts an image whose layers are there."""
        target, document = begun.target, self._request.document
        repository = target.repository
        if not begun.manifests:
            if self._request.shares_tags and target.tags:
                self._pusher.manifests.claim(target.tags, document, repository)
            pushed = _Pushed(target, changed=False)
        else:
            *children, manifest = begun.manifests
            # Another image of the object may have brought the same children meanwhile.
            for child in children:
                if (repository, child.digest) not in self._put:
                    self._pusher.manifests.put(repository, child)
                    self._put.add((repository, child.digest))
            kept_tags = self._pusher.manifests.put_tagged(manifest, begun.missing_tags, document, repository)
            if not begun.exists and len(kept_tags) == len(begun.missing_tags):
                self._pusher.manifests.put(repository, manifest)
            changed = not begun.exists or len(kept_tags) < len(begun.missing_tags)
            pushed = _Pushed(target, changed, tuple(kept_tags))
        if target.image.remark:
            logger.warning("Only a part of the image is in the archive", reason=target.image.remark)
        self._pusher.outcomes.record_image(pushed.tags, time.monotonic() - begun.started, pushed=pushed.changed)
        return pushed

    @contextmanager
    def _noting(self, target: Target) -> Iterator[None]:
        """Work on one target, which logs its name. What fails is noted, and stops no other target.

        But once the request has exceeded its allowance, no target is tried any more, not even those that only wait.
        """
        with object_context():
            log_with(repository=target.repository, digest=target.image.digest)
            try:
                yield
            except RepositoryMissing as error:
                forget_locals(error)
                self.missing[target.repository] = error
            except S3ToEcrError as error:
                if self._request.allowance.is_exceeded:
                    raise
                forget_locals(error)
                self.failures.append(error)


def _all_missing(missing: dict[str, RepositoryMissing]) -> RepositoryMissing:
    """One error that names all missing repositories, so that all can be created at once."""
    if len(missing) == 1:
        [error] = missing.values()
        return error
    return RepositoryMissing(
        f"ECR lacks {len(missing)} repositories: {', '.join(missing)}. Create them, or set CREATE_REPOSITORIES to true."
    )


def _descriptor(target: Target) -> Descriptor:
    return Descriptor(target.image.digest, target.image.media_type)


def _result(request: PushRequest, pushed: list[_Pushed], repositories: list[str]) -> Result:
    """The answer for the object. The top level names a repository or digest only if there is exactly one."""
    remarks = list(dict.fromkeys(image.target.image.remark for image in pushed if image.target.image.remark))
    skipped_because = None
    if not pushed:
        skipped_because = "it names no images"
        logger.info("Nothing to push", reason=skipped_because)
    elif not any(image.changed for image in pushed):
        skipped_because = "ECR has everything that is asked for"
        if any(image.kept_tags for image in pushed):
            skipped_because = "later writes have set their tags"
    return Result(
        bucket=request.document.bucket,
        key=request.document.key,
        action="skipped" if skipped_because else "pushed",
        repository=repositories[0] if len(repositories) == 1 else None,
        digest=pushed[0].target.image.digest if len(pushed) == 1 else None,
        size=request.document.size,
        reason="; ".join(filter(None, [skipped_because, *remarks])) or None,
        images=[
            PushedImage(repository=image.target.repository, digest=image.target.image.digest, tags=image.tags)
            for image in pushed
        ],
    )
