"""`make check`'s audit: no locked dependency has a known vulnerability.

Where nobody knows, as behind a mirror without advisories or without a network, it says so and passes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCKS = ("src/requirements.txt", "requirements/dev.txt", "requirements/sam.txt")

# What pip-audit says when nobody answers, or a proxy or mirror does in the advisories' place.
_OFFLINE = ("requests.exceptions.", "your network may be blocking", "ServiceError")

_ROOT = Path(__file__).parent.parent


def main() -> int:
    """Audits every lock, prints what was found, and returns the exit code."""
    return max(report(lock, *ask(lock)) for lock in LOCKS)


def ask(lock: str) -> tuple[list[dict[str, Any]] | None, str]:
    """pip-audit's word on each package of a lock; `None` if it has none, and then why."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--disable-pip", "--require-hashes", "-r", lock]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        return None, done.stderr.strip() or "it said nothing"
    return dependencies, ""


def report(lock: str, dependencies: list[dict[str, Any]] | None, why: str) -> int:
    """Says what the audit of a lock came to; 0 unless anything has a known vulnerability or pip-audit itself failed."""
    if dependencies is None:
        offline = any(sign in why for sign in _OFFLINE)
        what = "as the advisories could not be asked for" if offline else "pip-audit FAILED"
        print(f"{lock}: NOT audited, {what}: {why.splitlines()[-1]}")
        return 0 if offline else 1
    unknown = [entry["name"] for entry in dependencies if "skip_reason" in entry]
    vulnerable = [entry for entry in dependencies if entry.get("vulns")]
    for entry in vulnerable:
        for found in entry["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{lock}: {entry['name']} {entry['version']} has {found['id']}, fixed in {fixed}: run `make lock`")
    if unknown:
        print(
            f"{lock}: {len(unknown)} of {len(dependencies)} packages NOT audited: the index has no advisories on them"
        )
    elif not vulnerable:
        print(f"{lock}: {len(dependencies)} packages, no known vulnerability")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
