"""Lambda's event source for the local queue: brings its messages to what `sam local start-lambda` serves."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import event
from local.stack import REGION, Stack

if TYPE_CHECKING:
    from types_boto3_lambda.client import LambdaClient
    from types_boto3_sqs.type_defs import MessageTypeDef

# Where `sam local start-lambda` serves unless it is told otherwise; the variable is the SDK's own for such a case.
_ENDPOINT: Final = "http://127.0.0.1:3001"
_FUNCTION: Final = "Function"  # the template's name for it
_PROBE_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 10


class EventSource:
    """Takes one message at a time, as the template's does, while there is a function to bring it to."""

    def __init__(self, stack: Stack) -> None:
        self._queue_url = stack.queue_url
        self._sqs = stack.sqs
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_LAMBDA", _ENDPOINT)
        self._lambda: LambdaClient = boto3.client(
            "lambda",
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            # The function has 15 minutes; and what fails comes back from the queue, not from here.
            config=Config(proxies={}, read_timeout=900, retries={"total_max_attempts": 1}),
        )

    def deliver(self) -> str | None:
        """Brings one message to the function. A line on what came of it; `None` if there is no message, or no function.

        What the function did not take stays on the queue, as long as it said, or for a moment if it said nothing.
        """
        if not self._is_served():
            return None
        # No long polling: moto would answer nobody else meanwhile.
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )
        messages = answer.get("Messages", [])
        return self._bring(messages[0]) if messages else None

    def _is_served(self) -> bool:
        address = urlsplit(self._endpoint)
        try:
            socket.create_connection((address.hostname, address.port or 80), timeout=_PROBE_SECONDS).close()
        except OSError:
            return False
        return True

    def _bring(self, message: MessageTypeDef) -> str:
        about = _about(message["Body"])
        given = event.message(
            message["Body"],
            message["MessageId"],
            message["ReceiptHandle"],
            int(message["Attributes"]["ApproximateReceiveCount"]),
        )
        try:
            invoked = self._lambda.invoke(FunctionName=_FUNCTION, Payload=json.dumps(given))
            answer: dict[str, Any] = json.loads(invoked["Payload"].read() or b"{}")
        except (BotoCoreError, ClientError, ValueError) as error:
            return f"{about}: not invoked, comes back in {self._put_back(message)} seconds ({error})"
        if "FunctionError" in invoked or "errorMessage" in answer:
            return f"{about}: failed, comes back in {self._put_back(message)} seconds ({answer.get('errorMessage')})"
        if answer.get("batchItemFailures"):
            return f"{about}: comes back later; the function's log tells why"
        self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return f"{about}: done"

    def _put_back(self, message: MessageTypeDef) -> int:
        """Lets a message that the function did not answer for come back sooner than in AWS: somebody is watching."""
        self._sqs.change_message_visibility(
            QueueUrl=self._queue_url,
            ReceiptHandle=message["ReceiptHandle"],
            VisibilityTimeout=_AGAIN_SECONDS,
        )
        return _AGAIN_SECONDS


def _about(body: str) -> str:
    """Which object a message is about, for people."""
    try:
        s3 = json.loads(body)["Records"][0]["s3"]
        return f"s3://{s3['bucket']['name']}/{unquote_plus(s3['object']['key'])}"
    except (ValueError, LookupError, TypeError):
        return f"a message of {len(body)} characters"
