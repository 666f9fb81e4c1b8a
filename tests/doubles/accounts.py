"""S3, ECR and the state table without a network or a protocol, for tests of how much the function does with an object.

They accept everything. Each call is counted, and takes its time from an hourglass.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from botocore.exceptions import ClientError

from s3_to_ecr.app import App
from s3_to_ecr.settings import Settings
from tests.doubles.invocation import Hourglass
from tests.doubles.layouts import etag

BUCKET = "bucket"
_WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)


class Accounts:
    """The clients of a function, each call of which takes `seconds_a_call`. `calls` counts them by name.

    `layers`, `images` and `tags` are what ECR has. `notes` are the images that wait for a key. Objects that are
    `archived` can be looked up, and not read.
    """

    def __init__(self, objects: dict[str, bytes], *, seconds_a_call: float = 0.01) -> None:
        self.objects = objects
        self.calls: Counter[str] = Counter()
        self.layers: set[str] = set()
        self.images: set[str] = set()
        self.tags: dict[str, str] = {}
        self.notes: list[str] = []
        self.archived: set[str] = set()
        self._seconds = seconds_a_call
        self._hourglass = Hourglass()
        self._lock = threading.Lock()
        self.s3, self.ecr, self.dynamodb = _S3(self), _Ecr(self), _DynamoDb(self)

    def put(self, key: str, hourglass: Hourglass) -> Any:
        """The function's answer about this object."""
        self._hourglass = hourglass
        content = self.objects[key]
        created = {"key": key, "size": len(content), "etag": etag(content)}
        detail = {"bucket": {"name": BUCKET}, "object": created}
        event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
        return App(cast("Any", self), Settings("state")).answer(event, cast("Any", hourglass))

    def called(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1
            self._hourglass.pass_by(self._seconds)


class _S3:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def head_object(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("HeadObject")
        content = self._content(members["Key"])
        return {"ContentLength": len(content), "ETag": f'"{etag(content)}"', "LastModified": _WRITTEN}

    def get_object(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("GetObject")
        if members["Key"] in self._accounts.archived:
            raise ClientError({"Error": {"Code": "InvalidObjectState", "Message": "Archived"}}, "GetObject")
        content, span = self._content(members["Key"]), members["Range"]
        first, last = map(int, span.removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(content[first : last + 1]), "ContentRange": f"{span}/{len(content)}"}

    def _content(self, key: str) -> bytes:
        if key not in self._accounts.objects:
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")
        return self._accounts.objects[key]


class _Ecr:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_, **__: None))

    def batch_check_layer_availability(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("BatchCheckLayerAvailability")
        there = [digest for digest in members["layerDigests"] if digest in self._accounts.layers]
        return {"layers": [{"layerDigest": digest, "layerAvailability": "AVAILABLE"} for digest in there]}

    def initiate_layer_upload(self, **_: Any) -> dict[str, Any]:
        self._accounts.called("InitiateLayerUpload")
        return {"uploadId": "id", "partSize": 10_485_760}

    def upload_layer_part(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("UploadLayerPart")
        members["layerPartBlob"].finish()
        return {"lastByteReceived": members["partLastByte"], "ResponseMetadata": {"RetryAttempts": 0}}

    def complete_layer_upload(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("CompleteLayerUpload")
        self._accounts.layers.update(members["layerDigests"])
        return {"layerDigest": members["layerDigests"][0]}

    def batch_get_image(self, **members: Any) -> dict[str, Any]:
        self._accounts.called("BatchGetImage")
        wanted = members["imageIds"]
        found = [image for image in wanted if image.get("imageDigest") in self._accounts.images]
        tags = [image["imageTag"] for image in wanted if image.get("imageTag") in self._accounts.tags]
        found += [{"imageTag": tag, "imageDigest": self._accounts.tags[tag]} for tag in tags]
        return {"images": [{"imageId": image} for image in found]}

    def put_image(self, **members: Any) -> None:
        self._accounts.called("PutImage")
        self._accounts.images.add(members["imageDigest"])
        if tag := members.get("imageTag"):
            self._accounts.tags[tag] = members["imageDigest"]


class _Refused(Exception):
    """What a client raises if a condition does not hold, which never happens here."""


class _DynamoDb:
    exceptions = SimpleNamespace(ConditionalCheckFailedException=_Refused)

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def update_item(self, **_: Any) -> dict[str, Any]:
        self._accounts.called("UpdateItem")
        return {"Attributes": {"taken": {"N": "1"}}}

    def put_item(self, **_: Any) -> dict[str, Any]:
        self._accounts.called("PutItem")
        return {}

    def get_item(self, **_: Any) -> dict[str, Any]:
        self._accounts.called("GetItem")
        notes = self._accounts.notes
        return {"Item": {"waiting": {"SS": notes}}} if notes else {}
