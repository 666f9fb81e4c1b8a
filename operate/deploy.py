"""`make deploy`: checks the parameters, says what will change, then builds and deploys with the SAM CLI."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError

from operate import stacks
from operate.build import build, run
from operate.parameters import Problems, override, read, template_parameters
from operate.stacks import Deployed

# What ECR's quotas carry: docs/concurrency.md.
_RESERVED = 15

# Lambda leaves so much of an account's concurrency to the functions that reserve nothing.
_KEPT_UNRESERVED: Final = 100

_PAGE: Final = "docs/operations.md"


def main() -> None:
    """Deploys the stack STACK with PARAMETERS. Everything that is wrong with them is said before anything runs."""
    try:
        given = read(os.environ, known := template_parameters())
    except Problems as problems:
        sys.exit(f"{problems}\nNothing was built or deployed.")
    defaults = {name: str(entry["Default"]) for name, entry in known.items()}
    with stacks.errors_in_one_line():
        session, name = stacks.open_session(), stacks.stack_name()
        deployed = stacks.find(session, name)
        if deployed and os.environ.get("CHANGE_BUCKET") != "1":
            keep_bucket(name, given, deployed)
        overrides, notes = complete(given, defaults, deployed, session)
        print(f"{'Updating' if deployed else 'Creating'} the stack {name} in {session.region_name}.")
        print(*changes(overrides, defaults, deployed), *notes, sep="\n", flush=True)
        build(overrides["Architecture"])
        run(*deployment(name, str(session.region_name), overrides, shlex.split(_flags())))


def _flags() -> str:
    return os.environ.get("DEPLOY_FLAGS", "")


def complete(
    given: dict[str, str], defaults: dict[str, str], deployed: Deployed | None, session: boto3.Session
) -> tuple[dict[str, str], list[str]]:
    """All parameters to deploy with, and a sentence about each that nobody has given.

    What is left out stays as it is deployed. Architecture is among them, because the build has to know it.
    """
    before = deployed.parameters if deployed else {}
    overrides = {"Architecture": before.get("Architecture", defaults["Architecture"]), **given}
    notes = []
    if not deployed and "ReservedConcurrency" not in given:
        free = reservable(session)
        if free is not None and free >= _RESERVED:
            overrides["ReservedConcurrency"] = str(_RESERVED)
        else:
            why = "You may not ask how much of Lambda's concurrency is free"
            if free is not None:
                why = f"This account has no {_RESERVED} of Lambda's concurrency to reserve"
            notes.append(f"{why}, so ReservedConcurrency is 0. Limit backfills yourself: docs/concurrency.md")
    if "RunbookUrl" not in given and not before.get("RunbookUrl") and (url := runbook_url()):
        overrides["RunbookUrl"] = url
    if not {**before, **given}.get("RepositoryPrefix"):
        notes.append(
            "RepositoryPrefix is empty, so the function may write to every repository of the registry: docs/security.md"
        )
    return overrides, notes


def reservable(session: boto3.Session) -> int | None:
    """How much of Lambda's concurrency the account has left to reserve; `None` if the caller may not ask."""
    functions: Any = session.client("lambda")
    try:
        limit = functions.get_account_settings()["AccountLimit"]
    except ClientError:
        return None
    return max(0, int(limit["UnreservedConcurrentExecutions"]) - _KEPT_UNRESERVED)


def runbook_url() -> str | None:
    """The runbook on the server that this repository was cloned from; `None` if that is not one with web pages."""
    # Without the user's name and password, and without a port, which is that of SSH.
    server_and_path = r"(?:\w+://)?(?:[^@/]+@)?([\w-]+(?:\.[\w-]+)+)(?::\d+)?[:/]+([\w./~-]+?)(?:\.git)?/?"
    found = re.fullmatch(server_and_path, cloned_from())
    return f"https://{found[1]}/{found[2]}/blob/HEAD/{_PAGE}" if found else None


def cloned_from() -> str:
    """The address that this repository was cloned from; empty if there is none."""
    asked = ["git", "config", "--get", "remote.origin.url"]
    try:
        return subprocess.run(asked, cwd=stacks.ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""  # there is no git


def keep_bucket(name: str, given: dict[str, str], deployed: Deployed) -> None:
    """Exits if the stack would leave the bucket that it mirrors for another one."""
    before, after = (values.get("ExistingBucket") for values in (deployed.parameters, given))
    if after is None or after == before:
        return
    sys.exit(
        f"The stack {name} mirrors {before or 'a bucket of its own'}, and would mirror {after or 'a new one'} instead. "
        "For a second bucket name a second stack: make deploy STACK=…. "
        "If this stack is to change its bucket, say so: make deploy CHANGE_BUCKET=1 …"
    )


def changes(overrides: dict[str, str], defaults: dict[str, str], deployed: Deployed | None) -> list[str]:
    """A line for each parameter that is new or another than before."""
    before = deployed.parameters if deployed else {}
    width = max(map(len, defaults))
    lines = []
    for name, value in overrides.items():
        old = before.get(name)
        if old is None:
            lines.append(f"  {name:{width}}  {value or '(empty)'}")
        elif old != value:
            lines.append(f"  {name:{width}}  {old or '(empty)'} → {value or '(empty)'}")
    rest = "as they are deployed" if deployed else "the template's defaults"
    return [*lines, f"All other parameters are {rest}."]


def deployment(name: str, region: str, overrides: dict[str, str], flags: list[str]) -> list[str]:
    """The SAM CLI's command that deploys."""
    deploy = ["sam", "deploy", "--stack-name", name, "--region", region, "--parameter-overrides"]
    return [*deploy, *(override(*parameter) for parameter in overrides.items()), *flags]


if __name__ == "__main__":
    main()
