from __future__ import annotations

import pytest

from s3_to_ecr.errors import EmptyBlob, OutOfTime, ServiceUnavailable
from s3_to_ecr.results import Result
from s3_to_ecr.telemetry.metrics import metrics
from s3_to_ecr.telemetry.outcomes import Outcomes

SKIPPED = Result(
    bucket="b", key="app/x", action="skipped", repository="app", digest="sha256:d", size=7, reason="ECR has the layer"
)


@pytest.fixture(autouse=True)
def _no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what is counted here from other tests."""
    monkeypatch.setattr(metrics, "add_metric", lambda *_: None)


def test_an_object_that_is_finished_is_progress_whatever_became_of_it() -> None:
    for outcome in (SKIPPED, EmptyBlob("no bytes")):
        outcomes = Outcomes()
        outcomes.record(outcome)
        assert outcomes.progressed


def test_an_object_that_must_be_retried_is_no_progress_and_takes_none_back() -> None:
    outcomes = Outcomes()
    outcomes.record(OutOfTime("later"))
    assert not outcomes.progressed

    outcomes.record(SKIPPED)
    outcomes.record(ServiceUnavailable("down"))
    assert outcomes.progressed


def test_a_layer_that_ecr_has_got_meanwhile_is_progress_of_its_image() -> None:
    outcomes = Outcomes()
    outcomes.record_layer(SKIPPED, 0.1)
    assert outcomes.progressed
