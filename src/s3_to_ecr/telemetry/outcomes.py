"""What became of the objects of one invocation. Every outcome passes through here, to be logged and counted."""

from __future__ import annotations

from s3_to_ecr.errors import Rejected, S3ToEcrError, Unexpected
from s3_to_ecr.results import Result
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.metrics import count


class Outcomes:
    """The outcomes of one invocation.

    `progressed` says whether the next invocation will get further than this one: because this one sent something or
    finished an object, say. If it has and runs out of time, the next invocation may follow at once.
    """

    def __init__(self) -> None:
        self.progressed = False

    def record(self, outcome: Result | S3ToEcrError) -> None:
        """Takes what became of one object: its result, or the error that stopped it."""
        self.progressed = self.progressed or not isinstance(outcome, S3ToEcrError) or isinstance(outcome, Rejected)
        if not isinstance(outcome, S3ToEcrError):
            if outcome["action"] == "ignored":
                logger.info("Ignored", reason=outcome["reason"])
            return  # what was uploaded or pushed has been recorded by then, layer by layer and image by image
        name = type(outcome).__name__
        match outcome:
            case Rejected():
                logger.error("Rejected", error_type=name, reason=outcome.reason)
            case Unexpected():
                # Only this error is ours to fix, so only this one has a stack trace.
                logger.error(
                    "Unexpected error, will be retried",
                    exc_info=outcome.__cause__,
                    error_type=name,
                    reason=outcome.reason,
                )
            case _:
                logger.warning("Will be retried", error_type=name, reason=outcome.reason)
        count("Rejected" if isinstance(outcome, Rejected) else "RetriedLater")

    def record_layer(self, result: Result, seconds: float) -> None:
        """Takes what became of a layer, in an image or on its own, and the seconds that it took."""
        self.progressed = True
        uploaded = result["action"] == "uploaded"
        logger.info(
            "Layer uploaded" if uploaded else "Layer skipped",
            digest=result["digest"],
            size=result["size"],
            reason=result["reason"],
            seconds=round(seconds, 3),
        )
        count("LayersUploaded" if uploaded else "LayersSkipped")
        if uploaded:
            count("BytesUploaded", result["size"] or 0, "Bytes")
            count("UploadSeconds", seconds, "Seconds")

    def record_image(self, tags: list[str], seconds: float, *, pushed: bool) -> None:
        """Takes what became of an image, the tags that name it now, and the seconds that it took."""
        logger.info("Image pushed" if pushed else "Image skipped", tags=tags, seconds=round(seconds, 3))
        count("ImagesPushed" if pushed else "ImagesSkipped")

    def record_given_up(self, error: S3ToEcrError, deliveries: int) -> None:
        """Takes an object that is not tried again, after so many deliveries of its message."""
        logger.error(
            "Given up",
            error_type=type(error).__name__,
            reason=error.reason,
            bucket=error.bucket,
            key=error.key,
            deliveries=deliveries,
        )
        count("GivenUp")
