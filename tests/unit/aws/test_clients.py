from __future__ import annotations

from contextlib import closing
from typing import Any, cast

import botocore
import pytest
from botocore.awsrequest import AWSResponse

from s3_to_ecr.aws.clients import Clients
from tests.doubles.server import answer_to


@pytest.mark.parametrize("service", ["s3", "ecr", "dynamodb", "sqs", "events"])
def test_every_call_says_that_s3_to_ecr_made_it(service: str) -> None:
    agents: list[str] = []

    def send(request: Any, **_: object) -> AWSResponse:
        agents.append(request.headers["User-Agent"].decode())
        return answer_to(request, 200, b"{}" if service != "s3" else b"<ListAllMyBucketsResult/>")

    listing = {"s3": "list_buckets", "ecr": "describe_repositories", "dynamodb": "list_tables", "sqs": "list_queues"}
    with closing(getattr(Clients(), service)) as client:
        client.meta.events.register("before-send", cast("Any", send))
        getattr(client, listing.get(service, "list_rules"))()

    assert agents[0].startswith(f"s3-to-ecr Botocore/{botocore.__version__}")
