"""The manifests of an image: find those that ECR lacks, and put them there, under their tags."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.errors import (
    BlobsMissing,
    BrokenManifest,
    OutOfTime,
    Rejected,
    RequestRefused,
    RetryLater,
    S3ToEcrError,
    UnsupportedManifest,
    combined,
)
from s3_to_ecr.images.manifests import MOST_LEVELS, Descriptor, Manifest
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.state.leases import Leases
from s3_to_ecr.state.tag_writes import TagWrites
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.outcomes import Outcomes

# The blobs of a whole image. Docker allows 127 layers; more than this limit is treated as abuse.
_MOST_BLOBS = 10_000

# The manifests of a whole image, which are in memory while its layers are uploaded: four of the largest. Those of real
# images have a few KiB each.
_MOST_BYTES = 16 * 1024 * 1024

# If several images or tags fail, those that may still work are retried before the rest is given up.
RETRIED_FIRST = (OutOfTime, BlobsMissing, RetryLater, Rejected)


class ImageManifests:
    """Reads the manifests of images, and puts them into the `registry`. A tag names what was written last."""

    def __init__(
        self, registry: Registry, leases: Leases, tag_writes: TagWrites, deadline: Deadline, outcomes: Outcomes
    ) -> None:
        self._registry = registry
        self._leases = leases
        self._tag_writes = tag_writes
        self._deadline = deadline
        self._outcomes = outcomes

    def missing(self, root: Descriptor, request: PushRequest, repository: str) -> list[Manifest]:
        """The root and everything below it that ECR lacks, children first."""
        found: dict[str, Manifest] = {}
        blobs: set[str] = set()
        size = 0
        level = [root]
        for _ in range(MOST_LEVELS):
            named: dict[str, Descriptor] = {}
            subjects: dict[str, Descriptor] = {}
            for descriptor in level:
                self._deadline.require("the image's manifests")
                manifest = found[descriptor.digest] = request.manifest(descriptor)
                _check_refusal(manifest, root.digest)
                size += len(manifest.content)
                if size > _MOST_BYTES:
                    raise UnsupportedManifest(f"the image's manifests have more than {_MOST_BYTES:,} bytes in all.")
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

    def put(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        """Puts one manifest, whose layers and children are there."""
        self._deadline.require("putting the image")
        try:
            self._registry.put_image(repository, manifest.digest, manifest.media_type, manifest.content, tag)
        except (BrokenManifest, RequestRefused) as error:
            doubts = f" ({'; '.join(manifest.doubts)})" if manifest.doubts else ""
            raise error.within(f"manifest {manifest.digest}{doubts}") from error
        self._outcomes.progressed = True

    def put_tagged(self, manifest: Manifest, tags: list[str], document: ObjectRange, repository: str) -> list[str]:
        """Puts the image under its tags. Returns the tags that it did not move: a later write has set them."""
        failures: list[S3ToEcrError] = []
        kept: list[str] = []
        for tag in tags:
            try:
                self._deadline.require("putting the image")
                # Without this lock a newer write could set the tag between the claim and the call.
                with self._leases.tag(self._registry.scope(repository), tag):
                    if self._may_set(tag, document, repository):
                        self.put(repository, manifest, tag)
                    else:
                        logger.info("The tag is not moved: a later write has set it", tag=tag)
                        kept.append(tag)
            except S3ToEcrError as error:
                failures.append(error.within(f"tag {tag}"))
        if failures:
            raise combined(failures, RETRIED_FIRST)
        return kept

    def _may_set(self, tag: str, document: ObjectRange, repository: str) -> bool:
        """Whether no later write than the document's has set the tag, or ECR does not have the tag at all."""
        is_latest = self.claim([tag], document, repository)
        return is_latest or tag not in self._registry.images(repository, [], [tag]).named

    def claim(self, tags: Iterable[str], document: ObjectRange, repository: str) -> bool:
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


def _check_refusal(manifest: Manifest, root: str) -> None:
    """Raises `UnsupportedManifest` for a manifest of the image `root` that ECR is known to refuse; warns of doubts."""
    if manifest.refusal:
        of_image = "" if manifest.digest == root else f", which the image {root} needs"
        raise UnsupportedManifest(f"ECR does not accept the manifest {manifest.digest}{of_image}: {manifest.refusal}")
    if manifest.doubts:
        logger.warning("ECR may refuse a manifest", manifest=manifest.digest, reason="; ".join(manifest.doubts))


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
