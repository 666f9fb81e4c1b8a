from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from local import event
from local.stack import BUCKET
from s3_to_ecr.event_sources import notifications as events
from s3_to_ecr.s3_objects import S3Object
from tests.conftest import ROOT

# Times and ids, which differ in every event, and details that only the samples have.
VARYING = {"eventTime", "time", "id", "messageId", "SentTimestamp", "ApproximateFirstReceiveTimestamp"}
ONLY_IN_SAMPLES = {"size", "eTag", "etag", "sequencer"}


def make_event(**variables: str) -> subprocess.CompletedProcess[str]:
    given = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "--no-print-directory", "event", f"PYTHON={sys.executable}", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def shape(value: Any) -> Any:
    """An event without what may differ, and with the body of an SQS message parsed."""
    if isinstance(value, dict):
        return {
            name: "…" if name in VARYING else shape(json.loads(entry) if name == "body" else entry)
            for name, entry in value.items()
            if name not in ONLY_IN_SAMPLES
        }
    return [shape(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("sample", "variables"),
    [
        ("s3-put", {"KEY": "layer-test/put.layer"}),
        ("s3-put", {"KEY": "layer-test/put.layer", "FORM": "s3", "BUCKET": BUCKET}),
        ("s3-odd-key", {"KEY": "layer-test/Grüße + 100%2B ✨ a+b.layer"}),
        ("sqs", {"KEY": "layer-test/sqs.layer", "FORM": "sqs"}),
        ("eventbridge", {"KEY": "layer-test/eventbridge + 1%2B.layer", "FORM": "eventbridge"}),
    ],
)
def test_a_made_event_is_like_the_sample(sample: str, variables: dict[str, str]) -> None:
    made = make_event(**variables)

    assert made.returncode == 0, made.stderr
    assert shape(json.loads(made.stdout)) == shape(json.loads((ROOT / f"events/{sample}.json").read_text()))


def test_an_event_has_the_requested_bucket_and_key() -> None:
    made = json.loads(make_event(KEY="a b/%41+ü.tar", BUCKET="my-bucket").stdout)

    [record] = events.records(made)
    assert events.read_record(record) == S3Object("my-bucket", "a b/%41+ü.tar")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "KEY is missing."),
        ({"KEY": "a", "BUCKET": ""}, "BUCKET is missing."),
        ({"KEY": "a", "FORM": "sns"}, "There is no FORM 'sns'."),
        ({"KEY": "a\udcff"}, "KEY is not valid UTF-8."),
    ],
)
def test_a_wrong_variable_is_reported_with_the_usage(variables: dict[str, str], message: str) -> None:
    made = make_event(**variables)

    assert made.returncode != 0
    assert made.stdout == ""
    assert f"{message} Usage: make event KEY=" in made.stderr
    assert "Traceback" not in made.stderr


def test_a_message_says_how_often_it_was_delivered() -> None:
    [record] = event.message("{}", "an id", "a receipt", received=3)["Records"]

    assert (record["messageId"], record["receiptHandle"]) == ("an id", "a receipt")
    assert record["attributes"]["ApproximateReceiveCount"] == "3"
