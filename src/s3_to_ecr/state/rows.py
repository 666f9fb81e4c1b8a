"""The keys of the state table's rows: leases, waiting images and tags. Powertools names its own records."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def row_key(kind: str, *identity: str | None) -> dict[str, Any]:
    """The key of the row of that kind for this `identity`. It is hashed, because it may be longer than a key can be."""
    return {"id": {"S": f"{kind}#{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}"}}
