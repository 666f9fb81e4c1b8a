"""What `make deploy` checks before it runs the SAM CLI, and what it passes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from operate import deploy, stacks
from operate.parameters import VARIABLES, Problems, override, read, template_parameters
from operate.stacks import Deployed
from tests.conftest import ROOT

KNOWN = template_parameters()
DEFAULTS = {name: str(entry["Default"]) for name, entry in KNOWN.items()}


def problem(**variables: str) -> str:
    with pytest.raises(Problems) as raised:
        read(variables, KNOWN)
    return str(raised.value)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("RepositoryPrefx=mirror/", "The template has no parameter RepositoryPrefx. Did you mean RepositoryPrefix?"),
        ("repositoryprefix=mirror/", "Did you mean RepositoryPrefix?"),
        ("Bananas=2", "The template has no parameter Bananas. It has ExistingBucket, "),
        ("CreateRepositories = true", "'=' is not a parameter. Write Name=value, without spaces"),
        ("CreateRepositories", "'CreateRepositories' is not a parameter."),
        ("CreateRepositories=yes", "CreateRepositories=yes: it takes true, false."),
        ("RepositoryPrefix=Mirror/", "RepositoryPrefix=Mirror/: it does not match [a-z0-9._/-]*. Added before every"),
        ("LogRetentionDays=2", "LogRetentionDays=2: it takes 1, 3, 5,"),
        ("MemorySize=1", "MemorySize=1: it takes a number from 256 to 10240."),
        ("ReservedConcurrency=-1", "ReservedConcurrency=-1: it takes a number from 0."),
        ("ReservedConcurrency=many", "ReservedConcurrency=many: it takes a number from 0."),
        ("'DefaultRepository=a b'", "the SAM CLI cannot pass on quotes, backslashes and spaces."),
        ("MemorySize=512 MemorySize=1024", "MemorySize is given twice: as '512' and as '1024'."),
        ("'MemorySize=512", "PARAMETERS has a quote that is not closed."),
    ],
)
def test_a_parameter_that_would_be_lost_or_refused_is_reported(parameters: str, said: str) -> None:
    assert said in problem(PARAMETERS=parameters)


def test_all_problems_are_reported_at_once() -> None:
    assert len(problem(PARAMETERS="A=1 MemorySize=1", DEPLOY_FLAGS="--profile prod").splitlines()) == 3


def test_valid_parameters_are_read_as_they_are_given() -> None:
    given = read({"PARAMETERS": " RepositoryPrefix=mirror/ ExistingBucket= MemorySize=2048\n", "STACK": "s"}, KNOWN)

    assert given == {"RepositoryPrefix": "mirror/", "ExistingBucket": "", "MemorySize": "2048"}
    assert [override(*parameter) for parameter in given.items()] == [
        "RepositoryPrefix=mirror/",
        'ExistingBucket=""',
        "MemorySize=2048",
    ]


def test_architecture_has_a_variable_of_its_own() -> None:
    assert read({"ARCHITECTURE": "x86_64"}, KNOWN) == {"Architecture": "x86_64"}
    assert "Architecture=mips: it takes arm64, x86_64." in problem(ARCHITECTURE="mips")
    assert "given twice" in problem(ARCHITECTURE="x86_64", PARAMETERS="Architecture=arm64")


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["RepositoryPrefix=mirror/"], 'RepositoryPrefix is a parameter of the template. Write PARAMETERS="Reposit'),
        (["RepositoryPrefx=mirror/"], 'RepositoryPrefix is a parameter of the template. Write PARAMETERS="Reposit'),
        (["PARAMETER=RepositoryPrefix=mirror/"], "make deploy does not know PARAMETER. Did you mean PARAMETERS?"),
        (["STAK=second", "PARAMETERS=MemorySize=512 LogLevel=DEBUG"], "does not know STAK. Did you mean STACK?"),
        (["stack=second"], "make deploy does not know stack. Did you mean STACK?"),
    ],
)
def test_a_variable_that_make_would_ignore_is_reported(assignments: list[str], said: str) -> None:
    assert said in problem(MAKEFLAGS=make_flags(*assignments))


def test_the_variables_of_make_deploy_and_of_make_itself_are_no_problem() -> None:
    assignments = [f"{name}=a b\\c=d" for name in VARIABLES]

    assert read({"MAKEFLAGS": make_flags(*assignments, "SHELL=/bin/sh", "PYTHON=python3")}, KNOWN) == {}


def make_flags(*assignments: str) -> str:
    """The variable MAKEFLAGS that make gives its commands, as it has these variables on its command line."""
    printing = ["make", "-s", "-f-", *assignments]
    done = subprocess.run(printing, input='all: ; @printf %s "$$MAKEFLAGS"', capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("flags", "instead"),
    [
        ("--profile prod", "AWS_PROFILE"),
        ("--tags a=b --region=eu-central-1", "AWS_REGION"),
        ("--stack-name second", "STACK=…"),
        ("--parameter-overrides A=b", "PARAMETERS="),
    ],
)
def test_a_flag_that_is_passed_anyway_is_refused(flags: str, instead: str) -> None:
    assert f"Use {instead}" in problem(DEPLOY_FLAGS=flags)


class Account:
    """A boto3 session whose Lambda has so much concurrency left unreserved; without, it may not be asked."""

    def __init__(self, unreserved: int | None = 1000) -> None:
        self._unreserved = unreserved

    def client(self, service: str) -> Any:
        client = boto3.client(service)  # type: ignore[call-overload]
        stub = Stubber(client)
        if self._unreserved is None:
            stub.add_client_error("get_account_settings", "AccessDeniedException")
        else:
            limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": self._unreserved}
            stub.add_response("get_account_settings", {"AccountLimit": limit})
        stub.activate()
        return client


def complete(
    given: dict[str, str], deployed: Deployed | None = None, account: Account | None = None
) -> tuple[dict[str, str], list[str]]:
    session: Any = account or Account()
    return deploy.complete(given, DEFAULTS, deployed, session)


@pytest.fixture(autouse=True)
def origin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the address that the repository was cloned from. There is none at first."""

    def set_origin(url: str) -> None:
        monkeypatch.setattr(deploy, "cloned_from", lambda: url)

    set_origin("")
    return set_origin


OLD = Deployed({**DEFAULTS, "Architecture": "x86_64", "RepositoryPrefix": "mirror/"}, {})


def test_what_is_left_out_stays_as_deployed() -> None:
    overrides, notes = complete({"MemorySize": "512"}, OLD)

    assert overrides == {"Architecture": "x86_64", "MemorySize": "512"}
    assert notes == []
    assert deploy.deployment("mine", "eu-central-1", overrides, ["--tags", "team=a"]) == [
        "sam", "deploy", "--stack-name", "mine", "--region", "eu-central-1",
        "--parameter-overrides", "Architecture=x86_64", "MemorySize=512", "--tags", "team=a",
    ]  # fmt: skip


def test_a_given_architecture_replaces_the_deployed_one() -> None:
    assert complete({"Architecture": "arm64"}, OLD)[0] == {"Architecture": "arm64"}
    assert complete({"RepositoryPrefix": "a/"})[0]["Architecture"] == "arm64"  # the template's default


@pytest.mark.parametrize(
    ("unreserved", "reserves"), [(10, False), (50, False), (114, False), (115, True), (1000, True), (None, False)]
)
def test_the_first_deployment_reserves_only_what_the_account_has_to_spare(
    unreserved: int | None, reserves: bool
) -> None:
    overrides, notes = complete({"RepositoryPrefix": "mirror/"}, account=Account(unreserved))

    assert overrides.get("ReservedConcurrency") == ("15" if reserves else None)  # the template's default is 0
    assert [note for note in notes if "ReservedConcurrency is 0" in note] == notes
    assert bool(notes) is not reserves


def test_the_concurrency_that_is_given_or_deployed_is_kept() -> None:
    poor = Account(10)

    assert complete({"ReservedConcurrency": "15"}, account=poor)[0]["ReservedConcurrency"] == "15"
    assert "ReservedConcurrency" not in complete({}, OLD, poor)[0]


def test_an_empty_repository_prefix_is_mentioned() -> None:
    [note] = complete({})[1]

    assert note.startswith("RepositoryPrefix is empty, so the function may write to every repository")


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/team/s3-to-ecr.git",
        "https://user:secret@git.example.com/team/s3-to-ecr",
        "git@git.example.com:team/s3-to-ecr.git",
        "ssh://git@git.example.com:2222/team/s3-to-ecr.git",
    ],
)
def test_alarms_link_to_the_runbook_where_the_repository_was_cloned_from(
    origin: Callable[[str], None], url: str
) -> None:
    origin(url)

    runbook = "https://git.example.com/team/s3-to-ecr/blob/HEAD/docs/operations.md"
    assert (ROOT / "docs/operations.md").exists()
    assert complete({})[0]["RunbookUrl"] == runbook
    assert read({"PARAMETERS": f"RunbookUrl={runbook}"}, KNOWN)
    # What somebody has chosen stays.
    assert complete({"RunbookUrl": "https://wiki/x"})[0]["RunbookUrl"] == "https://wiki/x"
    assert "RunbookUrl" not in complete({}, Deployed({**DEFAULTS, "RunbookUrl": "https://wiki/x"}, {}))[0]


@pytest.mark.parametrize("url", ["", "/srv/git/s3-to-ecr.git", "../s3-to-ecr", "C:\\repo", "git@host:a b"])
def test_a_repository_without_web_pages_gives_no_link(origin: Callable[[str], None], url: str) -> None:
    origin(url)

    assert "RunbookUrl" not in complete({})[0]


@pytest.mark.parametrize(("before", "after"), [("first", "second"), ("first", ""), ("", "second")])
def test_a_stack_does_not_change_its_bucket_by_accident(before: str, after: str) -> None:
    with pytest.raises(SystemExit) as refused:
        deploy.keep_bucket("mine", {"ExistingBucket": after}, Deployed({"ExistingBucket": before}, {}))

    assert str(refused.value.code).startswith(f"The stack mine mirrors {before or 'a bucket of its own'}, and would")
    assert "make deploy STACK=…" in str(refused.value.code)


@pytest.mark.parametrize("given", [{}, {"ExistingBucket": "first"}])
def test_a_stack_keeps_the_bucket_that_it_has(given: dict[str, str]) -> None:
    deploy.keep_bucket("mine", given, Deployed({"ExistingBucket": "first"}, {}))


def test_what_will_change_is_listed() -> None:
    lines = deploy.changes({"Architecture": "x86_64", "MemorySize": "512", "RepositoryPrefix": ""}, DEFAULTS, OLD)

    assert [line.split() for line in lines[:-1]] == [
        ["MemorySize", "1024", "→", "512"],
        ["RepositoryPrefix", "mirror/", "→", "(empty)"],
    ]
    assert lines[-1] == "All other parameters are as they are deployed."
    [line, rest] = deploy.changes({"Architecture": "arm64"}, DEFAULTS, None)
    assert line.split() == ["Architecture", "arm64"]
    assert rest == "All other parameters are the template's defaults."


def test_the_stack_is_the_one_that_is_named_or_samconfigs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacks.stack_name() == "s3-to-ecr"

    monkeypatch.setenv("STACK", "second")
    assert stacks.stack_name() == "second"
