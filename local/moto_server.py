"""moto's server, one request at a time, at several addresses.

moto serves requests in threads, and checks a conditional write's condition some time before it writes. In DynamoDB both
are one step, and leases depend on that. Containers reach this machine at another address than its own processes do.
And moto's ECR does not know creation templates.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecr.responses import ECRResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def main(port: int, hosts: list[str]) -> None:
    """Serves on the port of each of these addresses until it is killed."""
    ECRResponse.describe_repository_creation_templates = no_creation_templates  # type: ignore[attr-defined]
    lock = threading.Lock()
    moto = DomainDispatcherApplication(create_backend_app)

    def answer_alone(environment: WSGIEnvironment, start_response: StartResponse) -> object:
        with lock:
            return moto(environment, start_response)

    servers = [
        make_server(host, port, answer_alone, threaded=True, request_handler=MotoRequestHandler)  # type: ignore[arg-type]
        for host in hosts
    ]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


def no_creation_templates(_: ECRResponse) -> str:
    """The answer of a registry without creation templates, which moto does not know."""
    return json.dumps({"registryId": DEFAULT_ACCOUNT_ID, "repositoryCreationTemplates": []})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
