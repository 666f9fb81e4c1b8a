"""Pushing images: everything that an image is made of first, then its manifest, with every tag.

one call asks ECR for the images and their tags; what ECR has is skipped
the manifests that ECR lacks are read, from the root down
the layers that ECR lacks are all found before the image's first is uploaded
the layers of all images are uploaded several at a time, the largest first; meanwhile the next image is looked at
PutImage for each manifest, children first; the root last, once for every tag; in turn, as ECR takes ten a second
"""

from __future__ import annotations

import graphlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import ImagesFound
from s3_to_ecr.errors import (
    BlobsMissing,
    BrokenManifest,
    OutOfTime,
    Rejected,
    RepositoryMissing,
    RequestRefused,
    RetryLater,
    S3ToEcrError,
    UnsupportedManifest,
    combined,
)
from s3_to_ecr.images.destination import Destination
from s3_to_ecr.images.manifests import MOST_LEVELS, Descriptor, Manifest
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.images.references import Reference, check_tag, is_tag
from s3_to_ecr.push.image_layers import ImageLayers, ImageUploads, LayerUploads
from s3_to_ecr.push.repositories import Repositories
from s3_to_ecr.push.targets import Target, targets_of, without_ambiguous_tags
from s3_to_ecr.results import PushedImage, Result
from s3_to_ecr.state.leases import Leases
from s3_to_ecr.state.tag_writes import TagWrites
from s3_to_ecr.telemetry.logs import log_with, logger, object_context
from s3_to_ecr.telemetry.outcomes import Outcomes

# The blobs of a whole image. Docker allows 127 layers; more than this limit is treated as abuse.
_MOST_BLOBS = 10_000

# The manifests of images whose layers are on their way. Hundreds of usual images have fewer bytes.
_MOST_WAITING_BYTES = 1024 * 1024

# If several images or tags fail, those that may still work are retried before the rest is given up.
_RANKING = (OutOfTime, BlobsMissing, RetryLater, Rejected)


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


class ImagePusher:
    """Pushes images to the registry of the `repositories`, and their blobs through `layers`."""

    def __init__(
        self,
        repositories: Repositories,
        layers: ImageLayers,
        leases: Leases,
        tag_writes: TagWrites,
        deadline: Deadline,
        outcomes: Outcomes,
    ) -> None:
        self._registry = repositories.registry
        self._repositories = repositories
        self._layers = layers
        self._leases = leases
        self._tag_writes = tag_writes
        self._deadline = deadline
        self._outcomes = outcomes

    def push(self, request: PushRequest, destination: Callable[[Reference | None], Destination]) -> Result:
        """Pushes every image that ECR lacks to the `destination` of its references. One failure stops no other image.

        Raises the failure. If there are several, it is one that may pass by itself, with the reasons of all. Raises
        `UnsupportedManifest` at once if the object's manifests exceed their allowance.
        """
        targets, nowhere = targets_of(request.images, destination)
        targets, ambiguous = without_ambiguous_tags(targets)
        failures: list[S3ToEcrError] = [*nowhere, *ambiguous]
        repositories = list(dict.fromkeys(target.repository for target in targets))
        found: dict[str, ImagesFound] = {}
        missing: dict[str, RepositoryMissing] = {}
        failed = self._push_stream(targets, request, found) if request.is_stream else {}
        pushed: dict[int, _Pushed] = {}
        put: set[tuple[str, str]] = set()
        begun: dict[ImageUploads, _Begun] = {}
        with self._layers.uploads(request, failed) as uploads:
            for number, target in [*enumerate(targets), (len(targets), None)]:
                # An image is finished as soon as its layers are there. Meanwhile the next ones are begun.
                wait = target is None or request.is_stream or _are_enough(begun.values())
                while begun and (ended := uploads.next_ended(wait=wait)):
                    image = begun.pop(ended)
                    with _noting(image.target, request, failures, missing):
                        ended.check()
                        work = partial(self._finish, image, request, put)
                        pushed[image.number] = self._repositories.within(image.target.repository, work)
                if target and target.repository not in missing:
                    with _noting(target, request, failures, missing):
                        if target.repository not in found:
                            found[target.repository] = self._look_up(target.repository, targets)
                        start = partial(self._begin, number, target, request, found[target.repository], uploads)
                        ended, image = self._repositories.within(target.repository, start)
                        begun[ended] = image
        if missing:
            failures.insert(0, _all_missing(missing))
        if failures:
            raise combined(failures, _RANKING)
        return _result(request, [pushed[number] for number in sorted(pushed)], repositories)

    def _look_up(self, repository: str, targets: Iterable[Target]) -> ImagesFound:
        """What ECR has of the repository's targets and their tags. If the repository is missing, that is nothing."""
        mine = [target for target in targets if target.repository == repository]
        tags = [tag for target in mine for tag in target.tags if is_tag(tag)]
        try:
            return self._registry.images(repository, [target.image.digest for target in mine], tags)
        except RepositoryMissing:
            return ImagesFound(frozenset(), {})

    def _push_stream(
        self, targets: Sequence[Target], request: PushRequest, found: dict[str, ImagesFound]
    ) -> dict[tuple[str, str], S3ToEcrError]:
        """Uploads the layers of all images in one pass, and returns what has failed, by repository and digest.

        It notes what is `found` in each repository.
        """
        blobs: dict[tuple[str, str], Blob] = {}
        for target in targets:
            # What is wrong with an image is reported when the image is pushed.
            with suppress(S3ToEcrError):
                if target.repository not in found:
                    found[target.repository] = self._look_up(target.repository, targets)
                if target.image.digest in found[target.repository].there:
                    continue
                find = partial(self._missing_blobs, target, request)
                missing = self._repositories.within(target.repository, find)
                blobs |= {(target.repository, digest): blob for digest, blob in missing.items()}
        return self._layers.push_in_order(blobs, request.document.key)

    def _missing_blobs(self, target: Target, request: PushRequest) -> dict[str, Blob]:
        manifests = self._missing_manifests(_descriptor(target), request, target.repository)
        return self._layers.missing(manifests, request, target.repository)

    def _begin(
        self, number: int, target: Target, request: PushRequest, found: ImagesFound, uploads: LayerUploads
    ) -> tuple[ImageUploads, _Begun]:
        """Begins to upload the image's layers, unless ECR was `found` to have the image."""
        self._deadline.require("the next image")
        started = time.monotonic()
        for tag in target.tags:
            check_tag(tag)
        root = _descriptor(target)
        exists = root.digest in found.there
        missing_tags = [tag for tag in target.tags if found.named.get(tag) != root.digest]
        manifests: list[Manifest] = []
        if not exists:
            manifests = self._missing_manifests(root, request, target.repository)
        elif missing_tags:
            manifests = [_read(root, request)]
        on_their_way = uploads.begin([] if exists else manifests, target.repository)
        return on_their_way, _Begun(number, target, exists, missing_tags, manifests, started)

    def _finish(self, begun: _Begun, request: PushRequest, put: set[tuple[str, str]]) -> _Pushed:
        """Puts an image whose layers are there, and notes what is `put` without a tag, by repository and digest."""
        target = begun.target
        repository = target.repository
        if not begun.manifests:
            if request.shares_tags and target.tags:
                self._claim(target.tags, request.document, repository)
            pushed = _Pushed(target, changed=False)
        else:
            *children, manifest = begun.manifests
            # Another image of the object may have brought the same children meanwhile.
            for child in children:
                if (repository, child.digest) not in put:
                    self._put(repository, child)
                    put.add((repository, child.digest))
            kept_tags = self._put_tagged(manifest, begun.missing_tags, request.document, repository)
            if not begun.exists and len(kept_tags) == len(begun.missing_tags):
                self._put(repository, manifest)
            changed = not begun.exists or len(kept_tags) < len(begun.missing_tags)
            pushed = _Pushed(target, changed, tuple(kept_tags))
        if target.image.remark:
            logger.warning("Only a part of the image is in the archive", reason=target.image.remark)
        self._outcomes.record_image(pushed.tags, time.monotonic() - begun.started, pushed=pushed.changed)
        return pushed

    def _put(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        self._deadline.require("putting the image")
        try:
            self._registry.put_image(repository, manifest.digest, manifest.media_type, manifest.content, tag)
        except (BrokenManifest, RequestRefused) as error:
            doubts = f" ({'; '.join(manifest.doubts)})" if manifest.doubts else ""
            raise error.within(f"manifest {manifest.digest}{doubts}") from error
        self._outcomes.progressed = True

    def _missing_manifests(self, root: Descriptor, request: PushRequest, repository: str) -> list[Manifest]:
        """The root and everything below it that ECR lacks, children first."""
        found: dict[str, Manifest] = {}
        blobs: set[str] = set()
        level = [root]
        for _ in range(MOST_LEVELS):
            named: dict[str, Descriptor] = {}
            subjects: dict[str, Descriptor] = {}
            for descriptor in level:
                self._deadline.require("the image's manifests")
                manifest = found[descriptor.digest] = _read(descriptor, request)
                _check_refusal(manifest, root.digest)
                blobs.update(manifest.blobs)
                if len(blobs) > _MOST_BLOBS:
                    raise UnsupportedManifest(f"the image has more than {_MOST_BLOBS:,} blobs.")
                named |= {child.digest: child for child in manifest.children}
                if manifest.subject:
                    subjects[manifest.subject.digest] = manifest.subject
            unknown = (named.keys() | subjects.keys()) - found.keys()
            lacking = unknown - self._registry.images(repository, sorted(unknown)).there
            level = [child for digest, child in named.items() if digest in lacking]
            # OCI lets the subject of an artifact arrive later, or never. If it is there, it goes first.
            lacking -= named.keys()
            for digest, about in subjects.items():
                self._deadline.require("the image's manifests")
                if digest in lacking and request.source.has(digest):
                    level.append(about)
            if not level:
                return _children_first(found)
        raise UnsupportedManifest(f"the manifests from {root.digest} on have more than {MOST_LEVELS} levels.")

    def _put_tagged(self, manifest: Manifest, tags: list[str], document: ObjectRange, repository: str) -> list[str]:
        """Puts the image under its tags. Returns the tags that it did not move: a later write has set them."""
        failures: list[S3ToEcrError] = []
        kept: list[str] = []
        for tag in tags:
            try:
                self._deadline.require("putting the image")
                # Without this lock a newer write could set the tag between the claim and the call.
                with self._leases.tag(self._registry.scope(repository), tag):
                    if self._may_set(tag, document, repository):
                        self._put(repository, manifest, tag)
                    else:
                        logger.info("The tag is not moved: a later write has set it", tag=tag)
                        kept.append(tag)
            except S3ToEcrError as error:
                failures.append(error.within(f"tag {tag}"))
        if failures:
            raise combined(failures, _RANKING)
        return kept

    def _may_set(self, tag: str, document: ObjectRange, repository: str) -> bool:
        """Whether no later write than the document's has set the tag, or ECR does not have the tag at all."""
        is_latest = self._claim([tag], document, repository)
        return is_latest or tag not in self._registry.images(repository, [], [tag]).named

    def _claim(self, tags: Iterable[str], document: ObjectRange, repository: str) -> bool:
        """Records that the document sets the tags. `False` if a later write has set one, or replaced the document."""
        written = document.written_if_current()
        if written is None:
            return False
        scope = self._registry.scope(repository)
        claimed = []
        for tag in tags:
            self._deadline.require("the next tag")
            claimed.append(self._tag_writes.claim(scope, tag, document.uri, written))
        return all(claimed)


def _all_missing(missing: dict[str, RepositoryMissing]) -> RepositoryMissing:
    """One error that names all missing repositories, so that all can be created at once."""
    if len(missing) == 1:
        [error] = missing.values()
        return error
    return RepositoryMissing(
        f"ECR lacks {len(missing)} repositories: {', '.join(missing)}. Create them, or set CREATE_REPOSITORIES to true."
    )


def _check_refusal(manifest: Manifest, root: str) -> None:
    """Raises `UnsupportedManifest` for a manifest of the image `root` that ECR is known to refuse; warns of doubts."""
    if manifest.refusal:
        of_image = "" if manifest.digest == root else f", which the image {root} needs"
        raise UnsupportedManifest(f"ECR does not accept the manifest {manifest.digest}{of_image}: {manifest.refusal}")
    if manifest.doubts:
        logger.warning("ECR may refuse a manifest", manifest=manifest.digest, reason="; ".join(manifest.doubts))


@contextmanager
def _noting(
    target: Target, request: PushRequest, failures: list[S3ToEcrError], missing: dict[str, RepositoryMissing]
) -> Iterator[None]:
    """Work on one target, which logs its name. What fails is noted, and stops no other target.

    But once the request has exceeded its allowance, no target is tried any more, not even those that only wait.
    """
    with object_context():
        log_with(repository=target.repository, digest=target.image.digest)
        try:
            yield
        except RepositoryMissing as error:
            missing[target.repository] = error
        except S3ToEcrError as error:
            if request.allowance.is_exceeded:
                raise
            failures.append(error)


def _are_enough(begun: Iterable[_Begun]) -> bool:
    """Whether the manifests that wait for their layers take all of the memory that they may."""
    return sum(len(manifest.content) for image in begun for manifest in image.manifests) >= _MOST_WAITING_BYTES


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


def _read(descriptor: Descriptor, request: PushRequest) -> Manifest:
    return request.allowance.parsed(request.source.manifest(descriptor.digest), descriptor)


def _children_first(manifests: dict[str, Manifest]) -> list[Manifest]:
    before = {
        digest: [
            named.digest
            for named in (*manifest.children, *([manifest.subject] if manifest.subject else []))
            if named.digest in manifests
        ]
        for digest, manifest in manifests.items()
    }
    try:
        return [manifests[digest] for digest in graphlib.TopologicalSorter(before).static_order()]
    except graphlib.CycleError as error:
        raise BrokenManifest(f"the image's manifests refer to each other in a circle: {error.args[1]}.") from error
