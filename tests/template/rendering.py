"""The template as CloudFormation deploys it: after SAM's transform, with every condition evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.conftest import ROOT

Template = dict[str, Any]


class CloudFormationLoader(yaml.SafeLoader):
    """YAML with CloudFormation's tags: `!Ref X` as `{"Ref": "X"}`, `!Sub X` as `{"Fn::Sub": "X"}`."""


def _function(loader: CloudFormationLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        value = value.split(".", 1) if tag == "GetAtt" else value
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{tag} with a mapping")
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


CloudFormationLoader.add_multi_constructor("!", _function)


class ManagedPolicies:
    """No managed policies: one in the stack would be an error."""

    def load(self) -> dict[str, str]:
        return {}


REGISTRY = "registry-of-ours"
# The account of the stack.
OWN_ACCOUNT = "1" * 12
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OTHER_KEY = "arn:aws:kms:eu-central-1:123456789012:key/66666666-7777-8888-9999-000000000000"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
SIGNING_PROFILE = "arn:aws:signer:eu-central-1:123456789012:/signing-profiles/images"
BUS = "arn:aws:events:us-east-1:123456789012:event-bus/outcomes"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"


def deployed(source: Template, **parameters: str) -> dict[str, Any]:
    """The resources that CloudFormation would create."""
    found: dict[str, Any] = concrete(source, **parameters)["Resources"]
    return found


def concrete(source: Template, **parameters: str) -> Template:
    """The template after SAM's transform, with these parameters and every condition evaluated."""
    copy = json.loads(json.dumps(source))
    copy["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/code"
    for name, value in parameters.items():
        copy["Parameters"][name]["Default"] = value
    from samtranslator.translator.transform import transform  # noqa: PLC0415 (it takes 40 MB in every process)

    rendered: Template = transform(copy, {}, ManagedPolicies())
    values = {name: str(entry["Default"]) for name, entry in rendered["Parameters"].items()}
    values["AWS::AccountId"] = OWN_ACCOUNT
    conditions: dict[str, bool] = {}
    for name, condition in rendered.pop("Conditions").items():
        conditions[name] = holds(condition, values, conditions)
    for section in ("Resources", "Outputs"):
        rendered[section] = {
            name: decided(entry, conditions)
            for name, entry in rendered[section].items()
            if conditions.get(entry.pop("Condition", None), True)
        }
    return rendered


def holds(condition: Any, values: dict[str, str], conditions: dict[str, bool]) -> bool:
    """Whether a condition of the template holds for these parameter values, and the `conditions` before it."""
    [(function, operands)] = condition.items()
    if function == "Condition":
        return conditions[operands]
    if function in ("Fn::Not", "Fn::And", "Fn::Or"):
        found = [holds(operand, values, conditions) for operand in operands]
        return any(found) if function == "Fn::Or" else all(found) != (function == "Fn::Not")
    assert function == "Fn::Equals"
    left, right = (text(operand, values) for operand in operands)
    return left == right


def text(value: Any, values: dict[str, str]) -> str:
    """The text that a condition compares, for these parameter values."""
    if not isinstance(value, dict):
        return str(value)
    [(function, operands)] = value.items()
    if function == "Ref":
        return values[str(operands)]
    first, second = operands
    if function == "Fn::Join":
        return str(first).join(text(part, values) for part in second)
    assert function == "Fn::Select"
    separator, whole = second["Fn::Split"]
    parts = text(whole, values).split(separator)
    return parts[int(first)]


NOTHING = {"Ref": "AWS::NoValue"}


def decided(value: Any, conditions: dict[str, bool]) -> Any:
    """A part of a template with every `Fn::If` evaluated, and without members that have no value."""
    if isinstance(value, dict):
        if "Fn::If" in value:
            name, when, otherwise = value["Fn::If"]
            return decided(when if conditions[name] else otherwise, conditions)
        members = {name: decided(entry, conditions) for name, entry in value.items()}
        return {name: entry for name, entry in members.items() if entry != NOTHING}
    if isinstance(value, list):
        return [entry for entry in (decided(entry, conditions) for entry in value) if entry != NOTHING]
    return value


def properties(resources: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = resources[name]["Properties"]
    return found


def of_type(resources: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (resource["Properties"] for resource in resources.values() if resource["Type"] == kind)


def statements(resources: dict[str, Any], role: str = "FunctionRole") -> dict[str, dict[str, Any]]:
    """A role's statements by their Sid."""
    [policy] = properties(resources, role)["Policies"]
    return by_sid(policy)


def by_sid(policy: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def actions(statement: dict[str, Any]) -> set[str]:
    action = statement["Action"]
    return {action} if isinstance(action, str) else set(action)


def arn_of(resource: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [resource, "Arn"]}


def only_allowed(resources: dict[str, Any], policy: str) -> dict[str, Any]:
    """The only Allow statement of a policy."""
    found = properties(resources, policy)["PolicyDocument"]["Statement"]
    [allow] = [statement for statement in found if statement["Effect"] == "Allow"]
    return dict(allow)


def read_template() -> Template:
    with (ROOT / "template.yaml").open() as file:
        loaded: Template = yaml.load(file, CloudFormationLoader)  # noqa: S506 (a SafeLoader)
    return loaded
