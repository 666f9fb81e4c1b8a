"""From a root manifest or index to an image in ECR: what it is made of first, then the manifest, with every tag.

one call asks ECR for the images and their tags ─ has them? ─► skipped
the manifests that ECR lacks, read from the root down
the layers that ECR lacks, all found before the first is uploaded, then several at once
PutImage for each manifest, children first; the root last, once for every tag
"""

from __future__ import annotations

import graphlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from s3_to_ecr.aws.ecr import ImagesFound, Registry
from s3_to_ecr.aws.s3 import Blob
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import (
    BlobsMissing,
    BrokenManifest,
    InvalidTag,
    OutOfTime,
    Rejected,
    RepositoryMissing,
    RetryLater,
    S3ToEcrError,
    UnsupportedManifest,
    combined,
)
from s3_to_ecr.images.manifests import Descriptor, Manifest, parse_manifest
from s3_to_ecr.images.model import Image, Images, Source, check_tag, is_tag
from s3_to_ecr.layouts.jobs import PushedImage, Result
from s3_to_ecr.push.image_layers import ImageLayers
from s3_to_ecr.push.layer import LayerMirror
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.leases import Ledger
from s3_to_ecr.state.tag_writes import Tags
from s3_to_ecr.telemetry.logs import count, log_with, logger, object_context

# An index of indexes of indexes is the deepest that anybody has seen. The bytes are those of all manifests of an image.
_MOST_LEVELS = 16
_MOST_MANIFEST_BYTES = 64 * 1024 * 1024

# Of several images or tags that fail, those that may work yet are waited for.
_RANKING = (OutOfTime, BlobsMissing, RetryLater, Rejected)


class ImageMirror:
    """Brings images into the `registry`, their layers by way of `layers`."""

    def __init__(
        self,
        registry: Registry,
        layers: LayerMirror,
        ledger: Ledger,
        tags: Tags,
        deadline: Deadline,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._in_repository = layers.in_repository
        self._layers = ImageLayers(registry, layers, deadline, settings.memory)
        self._ledger = ledger
        self._tags = tags
        self._deadline = deadline
        self._settings = settings
        self._got_on = False

    def push(self, images: Images, repository: str) -> Result:
        """Pushes every image that is not there yet; one that fails does not stop the others.

        Raises the failure: if several, one that may pass by itself, and all reasons. They are `InvalidTag`, `TagTaken`,
        `BrokenManifest`, `UnsupportedManifest`, `BlobsMissing`, and what `Source` and `LayerMirror.upload` raise.
        """
        self._got_on = False
        _check_unambiguous(images)
        found = self._look_up(images, repository)
        failures: list[S3ToEcrError] = []
        pushed: list[_Pushed] = []
        for image in images.images:
            with object_context():
                log_with(digest=image.digest)
                try:
                    work = partial(self._push, image, images, repository, found)
                    pushed.append(self._in_repository(repository, work))
                except OutOfTime as error:
                    error.got_on = error.got_on or self._got_on
                    failures.append(error)
                except S3ToEcrError as error:
                    failures.append(error)
        if failures:
            raise combined(failures, _RANKING)
        skipped_because = None
        if not any(image.changed for image in pushed):
            skipped_because = "their tags name what was written later"
            if not any(image.left for image in pushed):
                skipped_because = "ECR has all that is asked for"
        return Result(
            bucket=images.document.bucket,
            key=images.document.key,
            action="skipped" if skipped_because else "pushed",
            repository=repository,
            digest=pushed[0].image.digest if len(pushed) == 1 else None,
            size=images.document.size,
            reason=skipped_because,
            images=[PushedImage(digest=image.image.digest, tags=image.tags) for image in pushed],
        )

    def _look_up(self, images: Images, repository: str) -> ImagesFound:
        """What ECR has of the images and their tags: nothing, where the repository itself is missing."""
        tags = [tag for image in images.images for tag in image.tags if is_tag(tag)]
        try:
            return self._registry.images(repository, [image.digest for image in images.images], tags)
        except RepositoryMissing:
            return ImagesFound(frozenset(), {})

    def _push(self, image: Image, images: Images, repository: str, found: ImagesFound) -> _Pushed:
        """Pushes one image, unless it was `found` with all of its tags."""
        self._deadline.require("the next image")
        started = time.monotonic()
        for tag in image.tags:
            check_tag(tag)
        is_there = image.digest in found.there
        missing_tags = [tag for tag in image.tags if found.named.get(tag) != image.digest]
        if is_there and not missing_tags:
            if images.shares_tags and image.tags:
                self._claim(image.tags, images.document, repository)
            return _told(_Pushed(image, changed=False), started)
        root = Descriptor(image.digest, image.media_type)
        if is_there:
            manifest = parse_manifest(images.source.manifest(image.digest), root)
        else:
            *children, manifest = self._missing_manifests(root, images.source, repository)
            if self._layers.upload_missing([*children, manifest], images, repository):
                self._got_on = True
            for child in children:
                self._put(repository, child)
        left = self._put_tagged(manifest, missing_tags, images.document, repository)
        if not is_there and len(left) == len(missing_tags):
            self._put(repository, manifest)
        return _told(_Pushed(image, not is_there or len(left) < len(missing_tags), left), started)

    def _put(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        self._deadline.require("putting the image")
        self._registry.put_image(repository, manifest, tag)
        self._got_on = True

    def _missing_manifests(self, root: Descriptor, source: Source, repository: str) -> list[Manifest]:
        """The root and all below it that ECR lacks, children first."""
        found: dict[str, Manifest] = {}
        level = [root]
        size = 0
        for _ in range(_MOST_LEVELS):
            named: dict[str, Descriptor] = {}
            subjects: dict[str, Descriptor] = {}
            for descriptor in level:
                self._deadline.require("the image's manifests")
                manifest = found[descriptor.digest] = parse_manifest(source.manifest(descriptor.digest), descriptor)
                size += len(manifest.content)
                if size > _MOST_MANIFEST_BYTES:
                    raise UnsupportedManifest(f"the image's manifests have more than {_MOST_MANIFEST_BYTES:,} bytes.")
                named |= {child.digest: child for child in manifest.children}
                if manifest.subject:
                    subjects[manifest.subject.digest] = manifest.subject
            unknown = (named.keys() | subjects.keys()) - found.keys()
            lacking = unknown - self._registry.images(repository, sorted(unknown)).there
            level = [child for digest, child in named.items() if digest in lacking]
            # What an artifact is about may come later, OCI says, or never; where it is at hand, it goes first.
            lacking -= named.keys()
            level += [about for digest, about in subjects.items() if digest in lacking and source.has(digest)]
            if not level:
                return _children_first(found)
        raise UnsupportedManifest(f"the manifests from {root.digest} on have more than {_MOST_LEVELS} levels.")

    def _put_tagged(self, manifest: Manifest, tags: list[str], document: Blob, repository: str) -> list[str]:
        """Puts the image under its tags. Returns those that were left alone: they name what was written later."""
        failures: list[S3ToEcrError] = []
        left: list[str] = []
        for tag in tags:
            try:
                # Nobody else sets the tag meanwhile: between the claim and the call there is time for a newer one.
                with self._ledger.lease(self._settings.registry_id, repository, f"the tag {tag}"):
                    if self._may_set(tag, document, repository):
                        self._put(repository, manifest, tag)
                    else:
                        logger.info("The tag stays: it names what was written later", tag=tag)
                        left.append(tag)
            except S3ToEcrError as error:
                error.reason = f"tag {tag}: {error.reason}"
                failures.append(error)
        if failures:
            raise combined(failures, _RANKING)
        return left

    def _may_set(self, tag: str, document: Blob, repository: str) -> bool:
        """Whether no later write than the document's has set the tag, or ECR does not have it at all."""
        is_last = self._claim([tag], document, repository)
        return is_last or tag not in self._registry.images(repository, [], [tag]).named

    def _claim(self, tags: Iterable[str], document: Blob, repository: str) -> bool:
        """Writes down that the document sets the tags; `False` if a later write has set one, or it is overwritten."""
        written = document.written_if_current()
        if written is None:
            return False
        claimed = [self._tags.claim(repository, tag, document.uri, written) for tag in tags]
        return all(claimed)


@dataclass(frozen=True)
class _Pushed:
    """What became of an image: whether anything was put, and which tags were `left` to what was written later."""

    image: Image
    changed: bool
    left: list[str] = field(default_factory=list)

    @property
    def tags(self) -> list[str]:
        """Those that name the image now."""
        return [tag for tag in self.image.tags if tag not in self.left]


def _told(pushed: _Pushed, started: float) -> _Pushed:
    """Logs and counts what became of an image, since `started` on the monotonic clock."""
    if pushed.changed:
        logger.info("Image pushed", tags=pushed.tags, seconds=round(time.monotonic() - started, 3))
    else:
        logger.info("Image skipped", tags=pushed.tags)
    count("ImagesPushed" if pushed.changed else "ImagesSkipped")
    return pushed


def _check_unambiguous(images: Images) -> None:
    """Raises `InvalidTag` when two images want the same tag: nobody could say which of them it is to name."""
    wanted = Counter(tag for image in images.images for tag in set(image.tags))
    for tag, times in wanted.items():
        if times > 1:
            digests = ", ".join(image.digest for image in images.images if tag in image.tags)
            raise InvalidTag(
                f"{times} images in this object have the tag {tag!r}, and all go to one repository: {digests}. "
                "Save them apart."
            )


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
        raise BrokenManifest(f"the image's manifests name each other in a circle: {error.args[1]}.") from error
