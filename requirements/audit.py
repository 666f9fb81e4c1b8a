"""`make check`'s audit: fails if a locked dependency has a known vulnerability.

Without advisories, as behind some mirrors or without a network, it says so and passes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCKS = ("src/requirements.txt", "requirements/dev.txt", "requirements/sam.txt")

# Signs in pip-audit's errors that no advisories were reached, but nothing, a proxy or a mirror.
_OFFLINE = ("requests.exceptions.", "your network may be blocking", "ServiceError")

_ROOT = Path(__file__).parent.parent


def main() -> int:
    """Audits every lock, prints the findings, and returns the exit code."""
    return max(report(lock, *ask(lock)) for lock in LOCKS)


def ask(lock: str) -> tuple[list[dict[str, Any]] | None, str]:
    """pip-audit's result for each package of a lock; `None` and the reason if there is none."""
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--disable-pip", "--require-hashes", "-r", lock]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        return None, done.stderr.strip() or "no error message"
    return dependencies, ""


def report(lock: str, dependencies: list[dict[str, Any]] | None, why: str) -> int:
    """Prints the result for a lock. Returns 1 for a known vulnerability or a failure of pip-audit itself, else 0."""
    if dependencies is None:
        offline = any(sign in why for sign in _OFFLINE)
        what = "the advisories could not be reached" if offline else "pip-audit FAILED"
        print(f"{lock}: NOT audited, {what}: {why.splitlines()[-1]}")
        return 0 if offline else 1
    unknown = [entry["name"] for entry in dependencies if "skip_reason" in entry]
    vulnerable = [entry for entry in dependencies if entry.get("vulns")]
    for entry in vulnerable:
        for vulnerability in entry["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            known = f"{entry['name']} {entry['version']} has {vulnerability['id']}"
            print(f"{lock}: {known}, fixed in {fixed}: run `make lock`")
    if unknown:
        print(
            f"{lock}: {len(unknown)} of {len(dependencies)} packages NOT audited: the index has no advisories for them"
        )
    elif not vulnerable:
        print(f"{lock}: {len(dependencies)} packages, no known vulnerability")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
