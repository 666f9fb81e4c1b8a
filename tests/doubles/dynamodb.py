"""A DynamoDB for state tables: reads, and conditional writes in one step.

moto takes 8 ms of CPU for such a call, which was most of the time of the tests that make any call fail. This double
knows the calls and expressions that the function uses, and `Scan` and `DeleteTable` for tests. It knows no others. A
test compares its answers with moto's.
"""

from __future__ import annotations

import json
import operator
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.doubles.server import QuietHandler, answer_in_process, serving

if TYPE_CHECKING:
    from types_boto3_dynamodb.client import DynamoDBClient

# Attributes by name, each as DynamoDB writes it: {"S": "text"}, {"N": "1"} or {"SS": ["a", "b"]}.
_Item = dict[str, dict[str, Any]]
_Condition = Callable[[_Item, "_Terms"], bool]

_TOKEN = re.compile(r"\s*([#:]?[A-Za-z_][A-Za-z_0-9]*|<=|[<=(),])")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {"=": operator.eq, "<": operator.lt, "<=": operator.le}


class _Refused(Exception):
    """DynamoDB's answer to a call that it does not carry out."""

    def __init__(self, code: str, **members: Any) -> None:
        super().__init__(code)
        self.code = code
        self.members = members


class DynamoDBDouble:
    """Tables by name. Each has its items by their key `id`."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, _Item]] = {}
        self.url = ""
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[DynamoDBDouble]:
        """Serves the double over HTTP at `url`."""
        double = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                status, answer = double.answer(self.headers["X-Amz-Target"].partition(".")[2], json.loads(self.body()))
                self.reply(status, json.dumps(answer).encode())

        with serving(Handler) as url:
            self.url = url
            yield self

    def attach(self, client: DynamoDBClient) -> None:
        """Answers the client's calls without a network."""
        answer_in_process(client, self.answer)

    def answer(self, operation: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the body of the answer to a call."""
        with self._lock:
            try:
                if request["TableName"] not in self.tables:
                    raise _Refused("ResourceNotFoundException")
                if operation == "DeleteTable":
                    del self.tables[request["TableName"]]
                    return 200, {}
                return 200, _OPERATIONS[operation](self.tables[request["TableName"]], request)
            except _Refused as refused:
                code = f"com.amazonaws.dynamodb.v20120810#{refused.code}"
                return 400, {"__type": code, "message": "a refusal", **refused.members}


def _get_item(table: dict[str, _Item], request: Mapping[str, Any]) -> dict[str, Any]:
    item = table.get(request["Key"]["id"]["S"])
    return {"Item": item} if item else {}


def _delete_item(table: dict[str, _Item], request: Mapping[str, Any]) -> dict[str, Any]:
    table.pop(request["Key"]["id"]["S"], None)
    return {}


def _put_item(table: dict[str, _Item], request: Mapping[str, Any]) -> dict[str, Any]:
    key = request["Item"]["id"]["S"]
    _check(table.get(key, {}), request)
    table[key] = request["Item"]
    return {}


def _update_item(table: dict[str, _Item], request: Mapping[str, Any]) -> dict[str, Any]:
    key = request["Key"]["id"]["S"]
    before = table.get(key, {})
    _check(before, request)
    item = deepcopy(before) | request["Key"]
    for action, name, value in _assignments(request["UpdateExpression"]):
        terms = _Terms(request)
        _apply(action, item, terms.name(name), terms.value(value) if value else None)
    table[key] = item
    return {"Attributes": item} if request.get("ReturnValues") == "ALL_NEW" else {}


def _scan(table: dict[str, _Item], _: Mapping[str, Any]) -> dict[str, Any]:
    return {"Items": [*table.values()]}


_OPERATIONS = {
    "Scan": _scan,
    "GetItem": _get_item,
    "DeleteItem": _delete_item,
    "PutItem": _put_item,
    "UpdateItem": _update_item,
}


class _Terms:
    """What the placeholders of a request's expressions stand for."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._names = request.get("ExpressionAttributeNames", {})
        self._values = request.get("ExpressionAttributeValues", {})

    def name(self, token: str) -> str:
        return str(self._names[token] if token.startswith("#") else token)

    def value(self, token: str) -> dict[str, Any]:
        return dict(self._values[token])


def _check(item: _Item, request: Mapping[str, Any]) -> None:
    """Raises `_Refused` if the request has a condition that the item does not meet."""
    condition = request.get("ConditionExpression")
    if condition and not _parse_condition(condition)(item, _Terms(request)):
        wanted = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        raise _Refused("ConditionalCheckFailedException", **({"Item": item} if wanted and item else {}))


def _apply(action: str, item: _Item, name: str, value: dict[str, Any] | None) -> None:
    if action == "REMOVE":
        item.pop(name, None)
        return
    assert value is not None
    if action == "SET":
        item[name] = value
        return
    [(kind, operand)] = value.items()
    if kind == "N":
        assert action == "ADD"
        item[name] = {"N": str(Decimal(item.get(name, {"N": "0"})["N"]) + Decimal(operand))}
        return
    old = set(item.get(name, {}).get(kind, []))
    new = old | set(operand) if action == "ADD" else old - set(operand)
    if new:
        item[name] = {kind: sorted(new)}
    else:
        item.pop(name, None)  # DynamoDB keeps no empty sets


@cache
def _assignments(expression: str) -> list[tuple[str, str, str | None]]:
    """An update expression as (action, name, value), such as ("SET", "#end", ":end") or ("REMOVE", "#end", None)."""
    found: list[tuple[str, str, str | None]] = []
    tokens = _Tokens(expression)
    action = ""
    while tokens.next:
        if tokens.next in ("SET", "REMOVE", "ADD", "DELETE"):
            action = tokens.take()
        else:
            tokens.take(",")
        name = tokens.take()
        if action == "SET":
            tokens.take("=")
        found.append((action, name, None if action == "REMOVE" else tokens.take()))
    return found


@cache
def _parse_condition(expression: str) -> _Condition:
    tokens = _Tokens(expression)
    condition = _any(tokens)
    assert not tokens.next, expression
    return condition


def _any(tokens: _Tokens) -> _Condition:
    return _joined(tokens, "OR", _all, any)


def _all(tokens: _Tokens) -> _Condition:
    return _joined(tokens, "AND", _term, all)


def _joined(
    tokens: _Tokens, word: str, part: Callable[[_Tokens], _Condition], holds: Callable[[Iterator[bool]], bool]
) -> _Condition:
    """One or more conditions with the word between them."""
    conditions = [part(tokens)]
    while tokens.next == word:
        tokens.take()
        conditions.append(part(tokens))
    return lambda item, terms: holds(condition(item, terms) for condition in conditions)


def _term(tokens: _Tokens) -> _Condition:
    first = tokens.take()
    if first == "(":
        inner = _any(tokens)
        tokens.take(")")
        return inner
    if first in ("attribute_exists", "attribute_not_exists"):
        tokens.take("(")
        name = tokens.take()
        tokens.take(")")
        return lambda item, terms: (terms.name(name) in item) == (first == "attribute_exists")
    compare, token = _COMPARISONS[tokens.take()], tokens.take()

    def comparison(item: _Item, terms: _Terms) -> bool:
        """An attribute that the item lacks, or that has another type, meets no condition."""
        [(kind, value)] = terms.value(token).items()
        found = item.get(terms.name(first), {}).get(kind)
        number = Decimal if kind == "N" else str
        return found is not None and compare(number(found), number(value))

    return comparison


class _Tokens:
    """The tokens of an expression. `next` is empty at the end."""

    def __init__(self, expression: str) -> None:
        tokens = _TOKEN.findall(expression)
        assert "".join(tokens) == re.sub(r"\s", "", expression), f"the double does not know {expression!r}"
        self._rest = iter(tokens)
        self.next = next(self._rest, "")

    def take(self, expected: str = "") -> str:
        """The next token, which is the `expected` one if that is given."""
        taken, self.next = self.next, next(self._rest, "")
        assert taken, "the expression ends too early"
        assert expected in ("", taken), f"{taken!r} instead of {expected!r}"
        return taken
