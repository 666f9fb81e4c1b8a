"""The names of the state table's rows: of uploads, waiting images and tags. Powertools names its own records."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def row_key(kind: str, *identity: str | None) -> dict[str, Any]:
    """The key of the row of that kind about what `identity` says, which may be longer than a row's id can be."""
    return {"id": {"S": f"{kind}#{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}"}}
