"""cfn-lint with its rules. It takes 110 MB, so it runs in a process of its own, and only that imports it."""

from __future__ import annotations

import functools
from typing import Any

from local.stack import REGION


def lint(template: str) -> list[str]:
    """What cfn-lint says about a template in JSON."""
    from cfnlint.decode import decode_str  # noqa: PLC0415 (see above)

    decoded, errors = decode_str(template)
    assert decoded is not None
    assert errors == []
    return [f"{match.rule.id} {match.message} {match.path}" for match in _linter().validate_template(decoded)]


@functools.cache
def _linter() -> Any:
    """Reading the rules takes as long as checking a template."""
    from cfnlint.config import ConfigMixIn  # noqa: PLC0415 (see above)
    from cfnlint.runner import Runner  # noqa: PLC0415

    # W2001: a parameter that only conditions use is unused after they are evaluated.
    return Runner(ConfigMixIn(regions=[REGION], ignore_checks=["W2001"]))
