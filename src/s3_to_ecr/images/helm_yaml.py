"""YAML as Helm reads it: what its YAML library makes of a scalar differs from what PyYAML does.

Helm converts YAML to JSON. Numbers and booleans become text in fields that take text, so `appVersion: 1.10` is "1.1".
Tests compare this with what Helm has pushed. Aliases are expanded, so the values are bounded in number and length.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import yaml

from s3_to_ecr.errors import BrokenChart

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

# Real charts have some hundred values in 10 KB. PyYAML reads about 100 KB a second.
MAX_YAML_BYTES = 256 * 1024
_MOST_VALUES, _MOST_CHARACTERS = 20_000, 1024 * 1024

_PLAIN, _MERGE = "plain", "<<"
_RESOLVED_TAGS = {_PLAIN, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))}

# YAML 1.1, as far as Go's library follows it. It has no sexagesimal numbers, and leaves timestamps as text.
_WORDS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"(?P<sign>[-+]?)(?:(?P<prefix>0[xXoObB]?)(?P<digits>[0-9a-fA-F]+)|(?P<decimal>0|[1-9][0-9]*))")
_BASES = {"0": 8, "0o": 8, "0b": 2, "0x": 16}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LEAST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**64 - 1


class _Loader(yaml.BaseLoader):
    """Tells plain scalars from quoted ones, and resolves nothing."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        is_plain = kind is yaml.ScalarNode and implicit[0]
        return _PLAIN if is_plain else super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def read_yaml(content: bytes, name: str) -> Value:
    """The first document in `content`; errors call it by its `name`. Raises `BrokenChart`."""
    if len(content) > MAX_YAML_BYTES:
        raise BrokenChart(f"{name} has {len(content):,} bytes, more than the limit of {MAX_YAML_BYTES:,}.")
    try:
        loader = _Loader(content.decode().removeprefix("\ufeff"))
        try:
            node = loader.get_node() if loader.check_node() else None
        finally:
            loader.dispose()
        return _Reading(name).value(node) if node else None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BrokenChart(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BrokenChart(f"{name} is nested too deeply.") from error


def as_text(value: float | str | None) -> str:
    """What a scalar is in a field that takes text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float_text(value) if isinstance(value, float) else str(value)


class _Reading:
    """Counts the values of one document and their characters, because aliases make many of few."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = self._characters = 0

    def value(self, node: yaml.Node) -> Value:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise BrokenChart(f"{self._name} has more than {_MOST_VALUES:,} values, aliases included.")
        if isinstance(node, yaml.ScalarNode):
            self._characters += len(node.value)
            if self._characters > _MOST_CHARACTERS:
                raise BrokenChart(f"{self._name} has more than {_MOST_CHARACTERS:,} characters, aliases included.")
            return _resolved(node.value) if node.tag in _RESOLVED_TAGS else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        return self._mapping(node)

    def _mapping(self, node: yaml.Node) -> dict[str, Value]:
        found: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == _MERGE:
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):  # of several, the first counts
                    fields = self.value(source)
                    if not isinstance(fields, dict):
                        raise BrokenChart(f"{self._name} merges something that is not a mapping.")
                    merged |= fields
                continue
            key = self.value(key_node)
            if key is None or isinstance(key, list | dict):
                raise BrokenChart(f"{self._name} has a key that is not text.")
            found[as_text(key)] = self.value(value_node)
        return merged | found


def _resolved(text: str) -> Value:
    """What a plain scalar stands for."""
    if text in _WORDS:
        return _WORDS[text]
    plain = text.replace("_", "") if text[:1] != "." else text
    if found := _INTEGER.fullmatch(plain):
        base = _BASES[found["prefix"].lower()] if found["prefix"] else 10
        try:
            number = int(found["sign"] + (found["digits"] or found["decimal"]), base)
        except ValueError:
            pass  # a digit that the base does not have
        else:
            if _LEAST_INTEGER <= number <= _LARGEST_INTEGER:
                return number
    is_float = _FLOAT.fullmatch(plain) and math.isfinite(float(plain))
    return float(plain) if is_float else text


def _float_text(number: float) -> str:
    """A number as Go writes it with `strconv.FormatFloat(number, 'g', -1, 32)`: with the digits that 32 bits need."""
    if math.isnan(number):
        return "NaN"
    single = _as_single(number)
    if math.isinf(single):
        return "+Inf" if single > 0 else "-Inf"
    # Nine digits are always enough.
    shortest = next(text for digits in range(9) if _as_single(float(text := f"{single:.{digits}e}")) == single)
    mantissa, _, exponent = shortest.partition("e")
    if not -4 <= int(exponent) < 6:
        return shortest
    decimals = len(mantissa.partition(".")[2]) - int(exponent)
    return f"{float(shortest):.{max(decimals, 0)}f}"


def _as_single(number: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)
