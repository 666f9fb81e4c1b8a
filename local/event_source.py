"""Lambda's event source for the local queue: delivers messages to the function of `sam local start-lambda`."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import event
from local.function_log import FunctionLog
from local.stack import REGION, Stack

if TYPE_CHECKING:
    from types_boto3_lambda.client import LambdaClient
    from types_boto3_sqs.type_defs import MessageTypeDef

# The default address of `sam local start-lambda`. The SDK's AWS_ENDPOINT_URL_LAMBDA overrides it.
_ENDPOINT: Final = "http://127.0.0.1:3001"
_FUNCTION: Final = "Function"  # the template's name for it
_PROBE_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 10


class EventSource:
    """Delivers one message at a time, like the template's event source, while a function is being served."""

    def __init__(self, stack: Stack, log: FunctionLog) -> None:
        self._log = log
        self._queue_url = stack.queue_url
        self._sqs = stack.sqs
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_LAMBDA", _ENDPOINT)
        self._lambda: LambdaClient = boto3.client(
            "lambda",
            endpoint_url=self._endpoint,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            # The function's timeout is 15 minutes. The queue redelivers what fails, so the client does not retry.
            config=Config(proxies={}, read_timeout=900, retries={"total_max_attempts": 1}),
        )

    def deliver(self) -> str | None:
        """Delivers one message, and returns a line about the result; `None` if there is no message or no function.

        A failed message stays on the queue. The function sets its delay; if it did not, the delay is a few seconds.
        """
        if not self._is_served():
            return None
        # No long polling: it would block all other requests to moto.
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )
        messages = answer.get("Messages", [])
        return self._invoke(messages[0]) if messages else None

    def _is_served(self) -> bool:
        address = urlsplit(self._endpoint)
        try:
            socket.create_connection((address.hostname, address.port or 80), timeout=_PROBE_SECONDS).close()
        except OSError:
            return False
        return True

    def _invoke(self, message: MessageTypeDef) -> str:
        about = _about(message["Body"])
        payload = event.message(
            message["Body"],
            message["MessageId"],
            message["ReceiptHandle"],
            int(message["Attributes"]["ApproximateReceiveCount"]),
        )
        self._log.begin()
        try:
            invoked = self._lambda.invoke(FunctionName=_FUNCTION, Payload=json.dumps(payload))
            answer: dict[str, Any] = json.loads(invoked["Payload"].read() or b"{}")
        except (BotoCoreError, ClientError, ValueError) as error:
            return f"{about}: not invoked, comes back in {self._put_back(message)} seconds ({error})"
        if "FunctionError" in invoked or "errorMessage" in answer:
            return f"{about}: failed, comes back in {self._put_back(message)} seconds ({answer.get('errorMessage')})"
        outcomes = "; ".join(self._log.outcomes()) or "only the function's log says what it did"
        if answer.get("batchItemFailures"):
            return f"{about}: comes back later: {outcomes}"
        self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return f"{about}: {outcomes}"

    def _put_back(self, message: MessageTypeDef) -> int:
        """Makes a failed message visible sooner than in AWS, since somebody is watching. Returns the seconds."""
        self._sqs.change_message_visibility(
            QueueUrl=self._queue_url,
            ReceiptHandle=message["ReceiptHandle"],
            VisibilityTimeout=_AGAIN_SECONDS,
        )
        return _AGAIN_SECONDS


def _about(body: str) -> str:
    """The object that a message is about, for printing."""
    announced = event.announced(body)
    return f"s3://{'/'.join(announced)}" if announced else f"a message of {len(body)} characters"
