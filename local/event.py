"""`make event`: prints an event like S3's about an object, for `sam local invoke -e` or `aws lambda invoke`.

The event has the bucket, the key and whatever else is `known`; the function asks S3 for the rest. This module needs no
packages, since installing them would print more than the event.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote_plus, unquote_plus

Event = dict[str, Any]

_REGION: Final = "eu-central-1"


def notification(bucket: str, key: str, **known: Any) -> Event:
    """S3's own notification; `known` goes into its `object`: `size`, `eTag`, `versionId`, `sequencer`."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": _REGION,
                "eventTime": _now(),
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "EXAMPLE"},
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLE123"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "ObjectCreated",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "EXAMPLE"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    # S3 encodes keys in notifications only.
                    "object": {"key": quote_plus(key, safe="/"), **known},
                },
            }
        ]
    }


def eventbridge(bucket: str, key: str, **known: Any) -> Event:
    """EventBridge's event; `known` goes into its `object`: `size`, `etag`, `version-id`, `sequencer`."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": _now(),
        "region": _REGION,
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {"key": key, **known},
            "request-id": "EXAMPLE123456789",
            "requester": "123456789012",
            "source-ip-address": "127.0.0.1",
            "reason": "PutObject",
        },
    }


def sqs(bucket: str, key: str, **known: Any) -> Event:
    """The event that Lambda makes of a queue message with S3's notification."""
    return message(json.dumps(notification(bucket, key, **known), separators=(",", ":")))


def message(body: str, message_id: str = "", receipt_handle: str = "EXAMPLE", received: int = 1) -> Event:
    """An event with one SQS message, as Lambda's event source makes it. `received` counts its deliveries."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    return {
        "Records": [
            {
                "messageId": message_id or str(uuid.uuid4()),
                "receiptHandle": receipt_handle,
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": str(received),
                    "SentTimestamp": str(milliseconds),
                    "SenderId": "EXAMPLE",
                    "ApproximateFirstReceiveTimestamp": str(milliseconds + 1),
                },
                "messageAttributes": {},
                "md5OfBody": "00000000000000000000000000000000",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{_REGION}:123456789012:s3-to-ecr-work",
                "awsRegion": _REGION,
            }
        ]
    }


def announced(body: str) -> tuple[str, str] | None:
    """The bucket and key that a queue message is about; `None` if it is not about an object."""
    try:
        event = json.loads(body)
        if "detail" in event:
            return event["detail"]["bucket"]["name"], event["detail"]["object"]["key"]
        s3 = event["Records"][0]["s3"]
        return s3["bucket"]["name"], unquote_plus(s3["object"]["key"])
    except (ValueError, LookupError, TypeError):
        return None


FORMS: dict[str, Callable[[str, str], Event]] = {"s3": notification, "sqs": sqs, "eventbridge": eventbridge}

_USAGE: Final = f"Usage: make event KEY=team/app/layer.tar.gz [BUCKET=my-bucket] [FORM={'|'.join(FORMS)}]"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def main() -> None:
    """Prints the event about the object KEY in BUCKET, in the requested FORM."""
    key, bucket, form = (_given(name) for name in ("KEY", "BUCKET", "FORM"))
    if form not in FORMS:
        sys.exit(f"There is no FORM {form!r}. {_USAGE}")
    print(json.dumps(FORMS[form](bucket, key), indent=2, ensure_ascii=False))


def _given(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is missing. {_USAGE}")
    try:
        value.encode()
    except UnicodeEncodeError:  # Python reads bytes that are not UTF-8 as surrogates
        sys.exit(f"{name} is not valid UTF-8. {_USAGE}")
    return value


if __name__ == "__main__":
    main()
