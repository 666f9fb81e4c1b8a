"""The parameters that `make deploy` is given, checked against template.yaml.

The SAM CLI drops a parameter that the template does not have, without a word. Of `RepositoryPrefx=mirror/` nothing
would be left, and the function could write to every repository.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from samtranslator.yaml_helper import yaml_parse

from operate.stacks import ROOT

# The variables that `make deploy` knows.
VARIABLES: Final = ("PARAMETERS", "STACK", "ARCHITECTURE", "DEPLOY_FLAGS", "CHANGE_BUCKET")

# What `make deploy` passes to the SAM CLI itself, and how it is chosen.
_RESERVED_FLAGS: Final = {
    "--stack-name": "STACK=…",
    "--parameter-overrides": 'PARAMETERS="…"',
    "--region": "AWS_REGION",
    "--profile": "AWS_PROFILE",
}


class Problems(Exception):
    """What is wrong with the variables, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


def template() -> dict[str, dict[str, Any]]:
    """The sections of template.yaml."""
    found: dict[str, dict[str, Any]] = yaml_parse((ROOT / "template.yaml").read_text())
    return found


def template_parameters() -> dict[str, dict[str, Any]]:
    """The section `Parameters` of template.yaml."""
    return template()["Parameters"]


def read(variables: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The parameters in PARAMETERS and ARCHITECTURE. Raises `Problems` about anything that would be lost or refused."""
    problems = [*_misplaced(variables.get("MAKEFLAGS", ""), known), *_reserved(variables.get("DEPLOY_FLAGS", ""))]
    given: dict[str, str] = {}
    for word in _words(variables, problems):
        name, equals, value = word.partition("=")
        if not equals or not name:
            problems.append(f"{word!r} is not a parameter. Write Name=value, without spaces around the equals sign.")
        elif name not in known:
            meant = "".join(f" Did you mean {nearest}?" for nearest in _nearest(name, known))
            problems.append(f"The template has no parameter {name}.{meant or ' It has ' + ', '.join(known) + '.'}")
        elif given.setdefault(name, value) != value:
            problems.append(f"{name} is given twice: as {given[name]!r} and as {value!r}.")
        elif found := _problem(value, known[name]):
            problems.append(f"{name}={value}: {found}")
    if problems:
        raise Problems(problems)
    return given


def override(name: str, value: str) -> str:
    """A parameter as the SAM CLI reads it. Without the quotes it would drop one that is empty."""
    return f"{name}={value}" if value else f'{name}=""'


def _words(variables: Mapping[str, str], problems: list[str]) -> list[str]:
    try:
        words = shlex.split(variables.get("PARAMETERS", ""))
    except ValueError:
        problems.append("PARAMETERS has a quote that is not closed.")
        words = []
    architecture = variables.get("ARCHITECTURE")
    return [*words, f"Architecture={architecture}"] if architecture else words


def _misplaced(make_flags: str, known: Iterable[str]) -> list[str]:
    """Variables on make's command line that make would ignore, such as CreateRepositories=true."""
    problems = []
    # make escapes the spaces within a value.
    for assignment in re.split(r"(?<!\\)\s+", make_flags.partition("-- ")[2]):
        name = assignment.partition("=")[0]
        for nearest in [] if name in VARIABLES else _nearest(name, [*VARIABLES, *known]):
            if nearest in known:
                problems.append(f'{nearest} is a parameter of the template. Write PARAMETERS="{nearest}=…".')
            else:
                problems.append(f"make deploy does not know {name}. Did you mean {nearest}?")
    return problems


def _reserved(flags: str) -> list[str]:
    return [
        f"DEPLOY_FLAGS has {flag}, which make deploy passes itself. Use {instead} instead."
        for flag, instead in _RESERVED_FLAGS.items()
        if re.search(rf"(^|\s){flag}\b", flags)
    ]


def _problem(value: str, parameter: Mapping[str, Any]) -> str | None:
    """What CloudFormation would say against the value."""
    allowed = [str(entry) for entry in parameter.get("AllowedValues", [])]
    if allowed and value not in allowed:
        return f"it takes {', '.join(allowed)}."
    if parameter["Type"] == "Number":
        least, most = parameter.get("MinValue", 0), parameter.get("MaxValue")
        if not value.isdecimal() or int(value) < least or (most is not None and int(value) > most):
            return f"it takes a number from {least}" + (f" to {most}." if most is not None else ".")
    pattern = parameter.get("AllowedPattern")
    if pattern and not re.fullmatch(pattern, value):
        return f"it does not match {pattern}. {parameter['Description']}"
    if re.search(r"[\"'\\\s]", value):
        return "the SAM CLI cannot pass on quotes, backslashes and spaces."
    return None


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """The one that is spelt most like `name`, if any is."""
    spelt = {entry.lower(): entry for entry in known}
    return [spelt[found] for found in difflib.get_close_matches(name.lower(), spelt, n=1)]
