"""`make check`'s audit of the locks, with the real pip-audit and our own advisories."""

from __future__ import annotations

import json
import subprocess
from contextlib import AbstractContextManager

from local.stack import free_port
from tests.conftest import run_python
from tests.doubles.server import QuietHandler, serving


def advisories(vulnerable: str | None) -> AbstractContextManager[str]:
    """An OSV service that knows at most one vulnerable package. Yields its URL."""

    class Advisories(QuietHandler):
        def do_POST(self) -> None:
            package = json.loads(self.body())["package"]
            affected = {
                "package": package,
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
            }
            advisory = {"id": "GHSA-of-ours", "modified": "2026-01-01T00:00:00Z", "affected": [affected]}
            self.reply(200, json.dumps({"vulns": [advisory]} if package["name"] == vulnerable else {}).encode())

    return serving(Advisories)


def audit(service: str) -> subprocess.CompletedProcess[str]:
    return run_python(
        "requirements/audit.py",
        PIP_AUDIT_VULNERABILITY_SERVICE="osv",
        PIP_AUDIT_OSV_URL=service,
        no_proxy="127.0.0.1",
    )


def test_no_known_vulnerability_passes() -> None:
    with advisories(None) as service:
        done = audit(service)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no known vulnerability") == 3


def test_a_vulnerability_in_what_ships_fails_and_says_what_to_do() -> None:
    with advisories("urllib3") as service:
        done = audit(service)

    assert done.returncode == 1, done.stderr
    assert "src/requirements.txt: urllib3 " in done.stdout
    assert "has GHSA-of-ours, fixed in 99.0: run `make lock`" in done.stdout


def test_a_vulnerability_in_the_sam_cli_fails_too() -> None:
    with advisories("aws-sam-cli") as service:
        assert audit(service).returncode == 1


def test_an_unreachable_service_is_reported_and_passes() -> None:
    done = audit(f"http://127.0.0.1:{free_port()}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("NOT audited") == 3
