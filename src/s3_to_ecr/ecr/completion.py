"""CompleteLayerUpload may take until the deadline, and not only the 60 seconds of the client's other calls (ADR 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3_to_ecr.deadline import Deadline

# urllib3 accepts no timeout of 0.
_SHORTEST_SECONDS = 0.1


# As with parts, each call has its own context, so this is thread-safe.
def _set_deadline_aside(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Before botocore validates the members: takes out the deadline, which is not for ECR."""
    context["deadline"] = params.pop("deadline")


def _wait_until_the_deadline(request: Any, **_: object) -> None:
    """Before each attempt: sets its read timeout, for which botocore looks in the request's context.

    Raises `OutOfTime` when the attempt before has taken all of the time.
    """
    deadline: Deadline = request.context["deadline"]
    deadline.require("completing the layer")
    request.context["read_timeout"] = max(deadline.seconds_to_spare(), _SHORTEST_SECONDS)


COMPLETION_HANDLERS: dict[str, Callable[..., None]] = {
    "before-parameter-build.ecr.CompleteLayerUpload": _set_deadline_aside,
    "request-created.ecr.CompleteLayerUpload": _wait_until_the_deadline,
}
