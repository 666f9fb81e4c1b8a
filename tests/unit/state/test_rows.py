"""Rows outlive deployments: another name would lose every stored lease, note and tag."""

from __future__ import annotations

import pytest

from s3_to_ecr.state.rows import row_key


@pytest.mark.parametrize(
    ("kind", "identity", "name"),
    [
        (
            "upload",
            (None, "app", "sha256:0"),
            "upload#009066af8e67b291a8e6850b41689f2184a53d86748930cf93978b32a0909b80",
        ),
        ("waiting", ("bucket", "Grüße"), "waiting#39dad3da264edc417afc71406a2be49aac50ab6d25f84fcf54b8ce6cd34fdcd8"),
    ],
)
def test_a_row_keeps_its_name(kind: str, identity: tuple[str | None, ...], name: str) -> None:
    assert row_key(kind, *identity) == {"id": {"S": name}}
