"""A moto server with the template's bucket, queues and table, and repositories to upload to."""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient
    from types_boto3_ecr.client import ECRClient
    from types_boto3_s3.client import S3Client
    from types_boto3_sqs.client import SQSClient

REGION: Final = "eu-central-1"
BUCKET = "s3-to-ecr-local"
TABLE = "s3-to-ecr-state"
REPOSITORY = "layer-test"
BUNDLE_REPOSITORIES = ("sample/web", "sample/database")
CHART_REPOSITORY = "sample/hello"
_QUEUE = "s3-to-ecr-work"
_DEAD_LETTERS = "s3-to-ecr-dead-letters"
_START_SECONDS = 60

# Opens URLs on this machine without the user's proxy.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Stack:
    """A running stack. `endpoint` is the URL of every AWS service in it."""

    endpoint: str
    queue_url: str
    dead_letter_queue_url: str

    @property
    def settings(self) -> dict[str, str]:
        """The variables that a function in this stack needs, including the stack's address."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "STATE_TABLE": TABLE,
            "QUEUE_URL": self.queue_url,
            "DEAD_LETTER_QUEUE_URL": self.dead_letter_queue_url,
        }

    @property
    def environment(self) -> dict[str, str]:
        """All environment variables of a function that runs in this stack without Lambda."""
        return {
            **self.settings,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "POWERTOOLS_SERVICE_NAME": "s3-to-ecr",
            "POWERTOOLS_METRICS_NAMESPACE": "S3ToEcr",
            # Bypasses the user's proxy. Where both names are set, the second wins.
            **{name: f"{os.environ.get(name, '')},127.0.0.1".lstrip(",") for name in ("NO_PROXY", "no_proxy")},
        }

    @cached_property
    def s3(self) -> S3Client:
        return _session().client("s3", endpoint_url=self.endpoint, config=_CONFIG)

    @cached_property
    def sqs(self) -> SQSClient:
        return _session().client("sqs", endpoint_url=self.endpoint, config=_CONFIG)

    @cached_property
    def ecr(self) -> ECRClient:
        return _session().client("ecr", endpoint_url=self.endpoint, config=_CONFIG)

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        return _session().client("dynamodb", endpoint_url=self.endpoint, config=_CONFIG)


# Tests and demos talk to a server on this machine, never through the user's proxy.
_CONFIG = Config(proxies={}, retries={"mode": "standard", "total_max_attempts": 3})


@functools.cache
def _session() -> boto3.Session:
    """The session shared by this process, which caches parsed service models."""
    return boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=REGION)


@contextmanager
def running(port: int = 0, *more_hosts: str) -> Iterator[Stack]:
    """Starts the stack on `port`, or a free port if it is 0, and stops it at the end.

    It serves on 127.0.0.1 and on `more_hosts`, other addresses of this machine. Raises `OSError` if the port is taken
    on any of them, or an address is not this machine's.
    """
    port = free_port(port)
    for host in more_hosts:
        free_port(port, host)
    # The server must call neither itself nor the user's real account.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "moto_server.py"), str(port), "127.0.0.1", *more_hosts],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(endpoint, server)
        yield _create(endpoint)
    finally:
        server.terminate()
        server.wait()


# Below the ports that systems give to outgoing connections: one of those might be taken before a server listens on it.
_FREE_PORTS = range(20_000, 32_000)


def free_port(port: int = 0, host: str = "127.0.0.1") -> int:
    """A TCP port that is currently free; `port` itself unless it is 0. Raises `OSError` if that is taken."""
    while True:
        chosen = port or random.choice(_FREE_PORTS)  # noqa: S311 (not a secret)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, chosen))
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise
            else:
                return chosen


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the moto server ended with exit code {server.returncode}: is {endpoint} in use?")
        try:
            DIRECT.open(f"{endpoint}/moto-api/data.json", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the moto server did not answer within {_START_SECONDS} s")


def _create(endpoint: str) -> Stack:
    bare = Stack(endpoint, "", "")
    create_state_table(bare.dynamodb, TABLE)
    for repository in (REPOSITORY, *BUNDLE_REPOSITORIES, CHART_REPOSITORY):
        bare.ecr.create_repository(repositoryName=repository)
    dead_letters = bare.sqs.create_queue(
        QueueName=_DEAD_LETTERS, Attributes={"MessageRetentionPeriod": str(14 * 24 * 3600)}
    )["QueueUrl"]
    redrive = json.dumps({"deadLetterTargetArn": queue_arn(bare.sqs, dead_letters), "maxReceiveCount": 100})
    queue = bare.sqs.create_queue(QueueName=_QUEUE, Attributes={"RedrivePolicy": redrive, "VisibilityTimeout": "1800"})[
        "QueueUrl"
    ]
    create_bucket(bare.s3, BUCKET, queue_arn(bare.sqs, queue))
    return Stack(endpoint, queue, dead_letters)


def create_bucket(s3: S3Client, name: str, queue: str) -> None:
    """Creates a bucket like the template's, which sends its events to the queue with this ARN."""
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": queue, "Events": ["s3:ObjectCreated:*"]}]},
    )


def create_state_table(dynamodb: DynamoDBClient, name: str) -> None:
    """Creates a state table like the template's."""
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def queue_arn(sqs: SQSClient, queue_url: str) -> str:
    """The ARN of the queue at a URL."""
    return sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
