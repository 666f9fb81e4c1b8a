"""Counts the calls to S3, ECR and DynamoDB for one object, as sent to the local stack."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable

from local.invocation import Invocation, put_event
from local.stack import BUCKET, REPOSITORY, running
from s3_to_ecr.aws.clients import Clients

_CONFIG_BLOB = b'{"architecture":"arm64","os":"linux"}' + b" " * 2000


def recorded(clients: Clients) -> list[str]:
    """Records the calls that the clients send from now on, as `service:Operation`, retries included."""
    calls: list[str] = []

    def note(event_name: str, **_: object) -> None:
        calls.append(event_name.removeprefix("before-send.").replace(".", ":"))

    for client in (clients.s3, clients.ecr, clients.dynamodb):
        client.meta.events.register("before-send", note)
    return calls


def main() -> None:
    """Prints, as JSON, the calls for a blob of 2 KB in each case."""
    found: dict[str, list[str]] = {}
    with running() as stack:
        os.environ.update(stack.environment)
        import handler  # noqa: PLC0415 (it reads the environment when it is imported)

        calls = recorded(handler.clients)

        def put(key: str) -> Callable[[], None]:
            etag = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=_CONFIG_BLOB)["ETag"].strip('"')
            event = put_event(key, len(_CONFIG_BLOB), etag, sequencer="0055")
            return lambda: handler.lambda_handler(event, Invocation())

        def count(what: str, event: Callable[[], None]) -> None:
            calls.clear()
            event()
            found[what] = list(calls)

        unknown = put(f"{REPOSITORY}/config.json")
        count("digest not in the key, new", unknown)
        count("digest not in the key, repeated event", unknown)
        known = put(f"{REPOSITORY}-other/sha256:{hashlib.sha256(_CONFIG_BLOB).hexdigest()}")
        stack.ecr.create_repository(repositoryName=f"{REPOSITORY}-other")
        count("digest in the key, new", known)
        count("digest in the key, repeated event", known)
        count(
            "digest in the key, layer already in ECR",
            put(f"{REPOSITORY}/{hashlib.sha256(_CONFIG_BLOB).hexdigest()}"),
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
