"""Stand-ins for an invocation's lease and its remaining time."""

from __future__ import annotations

from typing import Any, cast

import pytest

from local.invocation import Invocation
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.ecr.api import LayerUpload, PartReceipt, Registry
from s3_to_ecr.ecr.layer_part import LayerPart
from s3_to_ecr.state.leases import Lease, Progress
from tests.doubles.ecr import EcrDouble


class OwnLease(Lease):
    """A lease without a table or other holders. `saved` holds what was written to it."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.held_before = progress is not None
        self.saved: list[Progress | None] = []

    def save(self) -> None:
        self.saved.append(self.progress)

    def renew(self) -> None:
        pass


class Hourglass(Invocation):
    """A Lambda context whose time passes only when a test lets it."""

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)

    def pass_by(self, seconds: float) -> None:
        """Lets this much time pass."""
        self.seconds -= seconds


def let_parts_take(patch: pytest.MonkeyPatch, invocation: Hourglass, seconds: float) -> None:
    """Makes every part take `seconds` to upload."""
    upload_part = Registry.upload_part

    def slow(registry: Registry, upload: LayerUpload, part: LayerPart) -> PartReceipt:
        invocation.pass_by(seconds)
        return upload_part(registry, upload, part)

    patch.setattr(Registry, "upload_part", slow)


def let_pauses_pass(patch: pytest.MonkeyPatch, ecr: EcrDouble, invocation: Hourglass | None = None) -> None:
    """Makes pauses, and what ECR takes to complete a layer, take the invocation's time, and none of the test's."""
    hourglass = invocation or Hourglass()
    patch.setattr("s3_to_ecr.deadline.sleep", hourglass.pass_by)
    ecr.clock, ecr.sleep = lambda: -hourglass.seconds, hourglass.pass_by


def deadline_of(invocation: Invocation) -> Deadline:
    """The deadline of an invocation."""
    return Deadline(cast("Any", invocation))


# Never reached, however long the tests run.
DEADLINE = deadline_of(Hourglass())
