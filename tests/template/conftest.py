from __future__ import annotations

from typing import Any

import pytest

from tests.template.rendering import Template, deployed, read_template


@pytest.fixture(scope="session")
def source() -> Template:
    return read_template()


@pytest.fixture(scope="session")
def resources(source: Template) -> dict[str, Any]:
    """The resources of a stack with default parameters."""
    return deployed(source)
