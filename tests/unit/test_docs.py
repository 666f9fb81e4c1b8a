"""The documents agree with the code, the template and each other."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from s3_to_ecr import errors
from tests.conftest import ROOT
from tests.documents import anchors, blocks, version
from tests.template.rendering import SIGNING_PROFILE, actions, deployed, read_template, statements

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
OPERATIONS = (ROOT / "docs/operations.md").read_text()
DEPLOYING = (ROOT / "docs/deploying.md").read_text()
TEMPLATE = read_template()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def kinds(of: type[errors.S3ToEcrError]) -> set[str]:
    """The names of all errors that an object may end with."""
    children = of.__subclasses__()
    return {of.__name__} if not children else set().union(*map(kinds, children))


def test_the_runbook_says_what_to_do_about_every_reason() -> None:
    section = OPERATIONS.partition("## Dead-letter reasons")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)

    assert [name for name, _ in rows] == list(dict(rows))
    assert {name for name, _ in rows} == kinds(errors.S3ToEcrError)


def source_literals() -> set[str]:
    """Every string and every argument name in the function's source."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
    return found


# Fields that Lambda, Powertools and Logs Insights add.
EVERY_LINE = {"message", "level", "timestamp", "exception", "function_request_id", "type"}
# The words of Logs Insights' query language.
WORDS = {
    "filter", "fields", "sort", "stats", "limit", "in", "and", "by", "as", "desc", "asc",
    "count", "count_distinct", "sum", "latest",
}  # fmt: skip


def test_the_log_queries_use_only_messages_and_fields_that_are_logged() -> None:
    queries = [block for block in blocks(OPERATIONS, "") if "|" in block]
    known = source_literals()

    assert len(queries) >= 8
    for query in queries:
        for message in re.findall(r'"([A-Z][a-z][^"]*)"', query):
            assert message in known, query
        bare = re.sub(r'"[^"]*"|@\w+|record\.[\w.]+', "", query)
        named = set(re.findall(r" as (\w+)", bare))
        for field in set(re.findall(r"[A-Za-z_]\w*", bare)) - named - WORDS - EVERY_LINE:
            assert field in known, (field, query)


def granted(*sids: str) -> set[str]:
    found = statements(deployed(TEMPLATE, CreateRepositories="true"))
    return set().union(*(actions(found[sid]) for sid in sids))


def statements_with(sid: str) -> list[dict[str, Any]]:
    """The statements with this Sid in the policies of docs/deploying.md."""
    found = [json.loads(block) for block in blocks(DEPLOYING, "json") if f'"Sid": "{sid}"' in block]
    return [statement for policy in found for statement in policy.get("Statement", [policy])]


def test_the_policies_for_another_account_allow_what_the_function_calls() -> None:
    pushing = granted("PushLayersAndImages")
    repository, registry = statements_with("MirroredFromS3")

    assert actions(repository) == pushing
    assert actions(registry) == pushing | granted("CreateRepositories")


def test_the_policy_for_more_signing_profiles_allows_what_the_parameter_does() -> None:
    [statement] = statements_with("SignImages")

    signing = statements(deployed(TEMPLATE, SigningProfile=SIGNING_PROFILE))["SignImages"]
    assert actions(statement) == actions(signing)
    assert re.fullmatch(TEMPLATE["Parameters"]["SigningProfile"]["AllowedPattern"], statement["Resource"])


def test_all_json_in_the_documents_is_valid() -> None:
    found = [block for page in PAGES for block in blocks(page.read_text(), "json")]

    assert len(found) >= 5
    for block in found:
        json.loads(block)


def test_the_keys_policy_lets_s3_and_eventbridge_send_to_the_queue() -> None:
    [statement] = statements_with("EventsIntoTheQueue")

    assert set(statement["Principal"]["Service"]) == {"s3.amazonaws.com", "events.amazonaws.com"}
    assert actions(statement) == {"kms:Decrypt", "kms:GenerateDataKey"}


def test_the_deployers_policy_covers_every_service_of_the_template() -> None:
    allowed = {
        action
        for sid in ("Stacks", "ResourcesByName", "Roles", "WithoutNames")
        for statement in statements_with(sid)
        for action in actions(statement)
        if statement["Sid"] == sid
    }
    services = {
        resource["Type"].split("::")[1].lower()
        for resource in (deployed(TEMPLATE, ExistingBucket="bucket") | deployed(TEMPLATE)).values()
    }

    assert {"s3", "iam", "lambda", "events"} <= services
    assert services <= {action.partition(":")[0] for action in allowed}


def commands() -> list[str]:
    return [block for page in PAGES for block in blocks(page.read_text(), "sh")]


def test_names_in_capitals_in_the_runbooks_commands_are_outputs_of_the_stack() -> None:
    names = {name for block in blocks(OPERATIONS, "sh") for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", block)}

    outputs = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() for name in TEMPLATE["Outputs"]}
    assert "DEAD_LETTER_QUEUE_ARN" in names
    assert names <= outputs


def test_the_template_accepts_the_parameters_in_commands() -> None:
    given = [
        pair
        for block in commands()
        for parameters in re.findall(r'PARAMETERS="([^"]+)"', block)
        for pair in parameters.split()
    ]

    assert len(given) > 4
    for pair in given:
        name, _, value = pair.partition("=")
        if pair != "\\":
            # SAM's parser accepts no empty value.
            assert value
            assert re.fullmatch(TEMPLATE["Parameters"][name].get("AllowedPattern", ".+"), value)


def test_the_configuration_page_lists_every_parameter_and_its_default() -> None:
    table = (ROOT / "docs/configuration.md").read_text()

    rows = {
        name: row
        for row in re.findall(r"^\|.+$", table, re.MULTILINE)
        for name in re.findall(r"`([A-Z][A-Za-z]+)`", row.split("|")[1])
    }
    for name, parameter in TEMPLATE["Parameters"].items():
        default = str(parameter["Default"])
        assert name in rows
        assert not default or default in rows[name]
    assert rows.keys() == TEMPLATE["Parameters"].keys()


README = (ROOT / "README.md").read_text()
# Decisions and changes are records of their time, and RESULTS.md is written by `make bench`.
WRITTEN_FOR_USERS = [
    page for page in PAGES if page.name not in ("CHANGELOG.md", "RESULTS.md") and page.parent.name != "adr"
]


def sentences(page: Path) -> list[str]:
    """The sentences of a page without its commands: of links and bold words only the text, and of tables the cells.

    A cell may be a list of phrases, with semicolons between them.
    """
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    prose = re.split(r"(?<=[.!?:])\s+|\n\n|\n\s*(?:-|\d\.) ", re.sub(r"^\|.*$", "", text, flags=re.MULTILINE))
    cells = re.split(r"(?<=[.!?:;])\s+|\||\n", "\n".join(re.findall(r"^\|.*$", text, re.MULTILINE)))
    return [*prose, *cells]


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1200


@pytest.mark.parametrize("page", WRITTEN_FOR_USERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page: Path) -> None:
    assert [sentence for sentence in sentences(page) if len(sentence.split()) >= 25] == []


def test_the_version_is_the_same_everywhere() -> None:
    released = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
    assert released[0] == version()
    assert TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]["SemanticVersion"] == version()


def test_the_serverless_application_repository_accepts_the_metadata() -> None:
    metadata = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]

    # The constraints of its API's CreateApplicationRequest.
    assert re.fullmatch(r"[a-zA-Z0-9\-]{1,140}", metadata["Name"])
    assert 1 <= len(metadata["Description"]) <= 256
    assert re.fullmatch(r"[a-z0-9](([a-z0-9]|-(?!-))*[a-z0-9])?", metadata["Author"])
    assert len(metadata["Labels"]) <= 10
    assert all(re.fullmatch(r"[a-zA-Z0-9+\-_:/@]{1,127}", label) for label in metadata["Labels"])
    assert (ROOT / metadata["LicenseUrl"]).exists()
    assert (ROOT / metadata["ReadmeUrl"]).exists()


def test_a_module_that_the_documents_name_exists() -> None:
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text()):
            places = [ROOT / folder / name for folder in ("", "src", "src/s3_to_ecr", "bench", "local")]
            assert any(place.exists() for place in places), (page.name, name)
