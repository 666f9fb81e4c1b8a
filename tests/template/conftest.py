from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.template import linting
from tests.template.rendering import Template, deployed, read_template

# What cfn-lint says about a template.
Lint = Callable[[Template], list[str]]


@pytest.fixture(scope="session")
def source() -> Template:
    return read_template()


@pytest.fixture(scope="session")
def resources(source: Template) -> dict[str, Any]:
    """The resources of a stack with default parameters."""
    return deployed(source)


@pytest.fixture(scope="module")
def lint() -> Iterator[Lint]:
    """cfn-lint in a process that ends with the module."""

    def run(template: Template) -> list[str]:
        return process.submit(linting.lint, json.dumps(template)).result()

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield run
