"""Helm charts: a `.tgz` that holds `<chart>/Chart.yaml`, and its provenance, the `.tgz.prov` beside it.

A chart is pushed at once. Its provenance belongs to the same manifest, so when that arrives later the chart is pushed
again, with it. Whichever comes last finds the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from s3_to_ecr.aws.s3 import ObjectRange, ObjectReader
from s3_to_ecr.errors import ObjectMissing
from s3_to_ecr.images.model import PushRequest
from s3_to_ecr.layouts import image_archive
from s3_to_ecr.layouts.image_archive import ImageArchive
from s3_to_ecr.layouts.jobs import Ignore, Match, RecognisedLayout
from s3_to_ecr.s3_objects import S3Object

_CHART, _PROVENANCE = ".tgz", ".prov"

# A clear-signed message (RFC 4880, 7), which `helm package --sign` writes.
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"


def match(key: str) -> Match | None:
    """`<folder>/<any name>.tgz` and `<folder>/<any name>.tgz.prov`, where `<folder>/` is optional."""
    if key.endswith(_CHART):
        layout: RecognisedLayout = HelmChart(image_archive.archive_named(key))
    elif key.endswith(_CHART + _PROVENANCE):
        layout = Provenance()
    else:
        return None
    folder, slash, _ = key.rpartition("/")
    return Match(folder if slash else None, image_layout=layout, recognised=layout, may_be_bundle=True)


@dataclass(frozen=True)
class HelmChart:
    """A chart. If it turns out to be none, it may be an image archive."""

    otherwise: ImageArchive

    def is_likely(self, start: bytes) -> bool:
        """Whether an object that begins like this is a chart, or probably an image archive."""
        # Imported here to start faster, as in `image_archive`.
        from s3_to_ecr.images.helm_chart import may_hold_chart  # noqa: PLC0415

        return may_hold_chart(start) or self.otherwise.is_likely(start)

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | None:
        """The chart, with its provenance if that is there; or the images, or `None` for something else."""
        return _push(reader, reader.open(target)) or self.otherwise.find(reader, target)


@dataclass(frozen=True)
class Provenance:
    """What signs the chart beside it."""

    def is_likely(self, start: bytes) -> bool:
        """Whether an object that begins like this is a signed message."""
        return start.startswith(_SIGNED)

    def find(self, reader: ObjectReader, target: S3Object) -> PushRequest | Ignore | None:
        """The chart with this provenance; `None` if this is none, or if there is no chart beside it."""
        provenance = reader.open(target)
        if not self.is_likely(provenance.start(len(_SIGNED))):
            return None
        try:
            chart = reader.open_current(target.bucket, target.key.removesuffix(_PROVENANCE))
        except ObjectMissing:
            return Ignore("a chart's provenance: it is pushed with the chart")
        return _push(reader, chart)


def _push(reader: ObjectReader, chart: ObjectRange) -> PushRequest | None:
    """What `helm push` would push. `None` if the object is not a chart."""
    from s3_to_ecr.images.helm_chart import chart_in  # noqa: PLC0415 (as above)

    return chart_in(chart, partial(_beside, reader, chart), reader)


def _beside(reader: ObjectReader, chart: ObjectRange) -> ObjectRange | None:
    """The chart's provenance, if it is there and, as Helm asks, not empty."""
    try:
        found = reader.open_current(chart.bucket, chart.key + _PROVENANCE)
    except ObjectMissing:
        return None
    return found if found.size else None
