from __future__ import annotations

from contextlib import closing
from typing import Any, cast

import botocore
import pytest
from botocore.awsrequest import AWSResponse

from s3_to_ecr.aws.clients import Clients
from tests.doubles.server import answer_to


@pytest.mark.parametrize(
    ("service", "call", "answer"),
    [
        ("s3", "list_buckets", b"<ListAllMyBucketsResult/>"),
        ("ecr", "describe_repositories", b"{}"),
        ("dynamodb", "list_tables", b"{}"),
        ("sqs", "list_queues", b"{}"),
        ("events", "list_rules", b"{}"),
    ],
)
def test_every_call_says_that_s3_to_ecr_made_it(service: str, call: str, answer: bytes) -> None:
    agents: list[str] = []

    def send(request: Any, **_: object) -> AWSResponse:
        agents.append(request.headers["User-Agent"].decode())
        return answer_to(request, 200, answer)

    with closing(getattr(Clients(), service)) as client:
        client.meta.events.register("before-send", cast("Any", send))
        getattr(client, call)()

    assert agents[0].startswith(f"s3-to-ecr Botocore/{botocore.__version__}")
