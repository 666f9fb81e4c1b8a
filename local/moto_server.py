"""moto's server, one request at a time.

moto serves in threads, and looks at a conditional write's condition some time before it writes. In DynamoDB both are
one step, and the ledger's leases depend on it.
"""

from __future__ import annotations

import threading
from typing import Any

from moto import server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

_lock = threading.Lock()
_answer = DomainDispatcherApplication.__call__


def _answer_alone(*arguments: Any) -> Any:
    with _lock:
        return _answer(*arguments)


if __name__ == "__main__":
    DomainDispatcherApplication.__call__ = _answer_alone  # type: ignore[assignment,method-assign]
    server.main()
