"""The files that GitHub reads are well formed, and agree with the rest of the project."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.template.rendering import read_template

GITHUB = ROOT / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: str) -> Any:
    return yaml.safe_load((GITHUB / path).read_text())


def test_ci_runs_on_the_oldest_python_and_on_lambdas() -> None:
    [job] = read("workflows/ci.yml")["jobs"].values()

    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    lambdas = read_template()["Resources"]["Function"]["Properties"]["Runtime"].removeprefix("python")
    assert job["strategy"]["matrix"]["python"] == [oldest, lambdas]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_workflow_may_only_read_and_names_actions_by_their_major_version() -> None:
    workflow = read("workflows/ci.yml")
    [job] = workflow["jobs"].values()

    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)


def test_ci_pulls_the_image_of_the_functions_runtime() -> None:
    script = (ROOT / ".ci/run").read_text()
    runtime = read_template()["Resources"]["Function"]["Properties"]["Runtime"].removeprefix("python")

    assert set(re.findall(r"public\.ecr\.aws/lambda/python:(\S+)", script)) == {f"{runtime}-arm64", f"{runtime}-x86_64"}
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0  # noqa: S607


def test_dependabot_sees_every_lock() -> None:
    updates = {update["package-ecosystem"]: update for update in read("dependabot.yml")["updates"]}

    assert updates.keys() == {"pip", "github-actions"}
    locked = {"/requirements": {"dev.txt", "sam.txt"}, "/src": {"requirements.txt"}}
    assert updates["pip"]["directories"] == list(locked)
    for folder, locks in locked.items():
        assert {path.name for path in (ROOT / folder.lstrip("/")).glob("*.txt")} == locks


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_github_accepts_the_issue_forms(form: Any) -> None:
    read_form = yaml.safe_load(form.read_text())

    assert {"name", "description", "body"} <= read_form.keys() <= {"name", "description", "body", "labels"}
    questions = [entry for entry in read_form["body"] if entry["type"] != "markdown"]
    assert any(entry.get("validations", {}).get("required") for entry in questions)
    assert len({entry["id"] for entry in questions}) == len(questions)
    assert all(entry["attributes"]["label"] for entry in questions)


def test_a_bug_report_asks_for_version_layout_and_reason() -> None:
    labels = [entry["attributes"].get("label") for entry in read("ISSUE_TEMPLATE/bug.yml")["body"]]

    assert {"Version", "Key layout", "Log line with the reason"} <= set(labels)
