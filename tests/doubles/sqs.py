"""The limits of SQS that moto and a stub lack. Source: the SQS API reference, SendMessage and "Message quotas"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

MOST_BYTES = 1_048_576
_MOST_ATTRIBUTES = 10
_TEXT = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
_NAME = re.compile(r"(?!(?:AWS|Amazon)\.)(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)", re.IGNORECASE)
_TYPE = re.compile(r"(?:String|Number|Binary)(?:\..+)?")


def strict(client: SQSClient) -> SQSClient:
    """Makes the client refuse the messages that SQS refuses. Returns the client."""
    client.meta.events.register("provide-client-params.sqs.SendMessage", _check, unique_id="limits of SQS")
    return client


def message_bytes(params: dict[str, Any]) -> int:
    """What counts towards the limit: the body, and the names, types and values of the attributes."""
    texts = [params["MessageBody"]]
    for name, attribute in params.get("MessageAttributes", {}).items():
        texts += [name, attribute["DataType"], attribute["StringValue"]]
    return sum(len(text.encode()) for text in texts)


def _check(params: dict[str, Any], **_: object) -> None:
    attributes = params.get("MessageAttributes", {})
    for text in [params["MessageBody"], *(attribute["StringValue"] for attribute in attributes.values())]:
        _require(_TEXT.fullmatch(text), "InvalidMessageContents", "Invalid characters found. Valid: #x9 | #xA | #xD …")
    for name, attribute in attributes.items():
        _require(_NAME.fullmatch(name), "InvalidParameterValue", f"The message attribute name {name!r} is invalid.")
        _require(
            _TYPE.fullmatch(attribute["DataType"]), "InvalidParameterValue", "The type of an attribute is invalid."
        )
    _require(len(attributes) <= _MOST_ATTRIBUTES, "InvalidParameterValue", "Number of message attributes exceeds 10.")
    _require(
        message_bytes(params) <= MOST_BYTES,
        "InvalidParameterValue",
        f"One or more parameters are invalid. Reason: Message must be shorter than {MOST_BYTES} bytes.",
    )


def _require(valid: object, code: str, message: str) -> None:
    if not valid:
        raise ClientError({"Error": {"Code": code, "Message": message}}, "SendMessage")
