"""A CloudFormation that describes stacks. moto's takes 120 MB and seconds to start, in each process that asks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from tests.doubles.server import QuietHandler, serving


@dataclass(frozen=True)
class Described:
    """The parameters and outputs of a stack, and its status."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    status: str = "CREATE_COMPLETE"


class CloudFormationDouble:
    """The `stacks` by name."""

    def __init__(self) -> None:
        self.stacks: dict[str, Described] = {}
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[CloudFormationDouble]:
        """Serves DescribeStacks over HTTP at `url`."""
        double = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                asked = parse_qs(self.body().decode())
                assert asked["Action"] == ["DescribeStacks"]
                [name] = asked["StackName"]
                status, answer = double._describe(name)
                self.reply(status, answer.encode(), {"Content-Type": "text/xml"})

        with serving(Handler) as url:
            self.url = url
            yield self

    def _describe(self, name: str) -> tuple[int, str]:
        if name not in self.stacks:
            message = escape(f"Stack with id {name} does not exist")
            return 400, _tagged("ErrorResponse", "Error", f"<Code>ValidationError</Code><Message>{message}</Message>")
        stack = self.stacks[name]
        described = (
            f"<StackName>{escape(name)}</StackName><StackStatus>{stack.status}</StackStatus>"
            + _list("Parameter", stack.parameters)
            + _list("Output", stack.outputs)
        )
        return 200, _tagged("DescribeStacksResponse", "DescribeStacksResult", _tagged("Stacks", "member", described))


def _tagged(outer: str, inner: str, content: str) -> str:
    return f"<{outer}><{inner}>{content}</{inner}></{outer}>"


def _list(kind: str, values: Mapping[str, str]) -> str:
    members = "".join(
        f"<member><{kind}Key>{escape(key)}</{kind}Key><{kind}Value>{escape(value)}</{kind}Value></member>"
        for key, value in values.items()
    )
    return f"<{kind}s>{members}</{kind}s>"
