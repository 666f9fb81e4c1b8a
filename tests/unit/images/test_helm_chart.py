"""Charts, compared with what Helm 4.2.3 pushed to a registry, or refused to push: helm_charts.json."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from s3_to_ecr.errors import BrokenChart
from s3_to_ecr.images.helm_chart import Chart, read_chart

HELM: dict[str, Any] = json.loads(Path(__file__).with_name("helm_charts.json").read_text())


def read(chart_yaml: str | bytes, **more: str) -> Chart:
    return read_files([("Chart", chart_yaml), *more.items()])


def read_files(files: Sequence[tuple[str, str | bytes]]) -> Chart:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files:
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(f"chart/{name}.yaml")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    content = archive.getvalue()
    return read_chart(lambda offset, length: content[offset : offset + length])


@pytest.mark.parametrize("pushed", HELM["pushed"], ids=lambda pushed: pushed["chart"])
def test_config_and_annotations_are_those_that_helm_pushed(pushed: dict[str, Any]) -> None:
    required = {"requirements": pushed["requirements"]} if "requirements" in pushed else {}
    chart = read(pushed["chart"], **required)

    assert chart.config.decode() == pushed["config"]
    manifest = json.loads(chart.manifest({}, []))
    assert list(manifest["annotations"].items()) == list(pushed["annotations"].items())


@pytest.mark.parametrize("chart_yaml", HELM["refused"])
def test_what_helm_refuses_is_rejected(chart_yaml: str) -> None:
    with pytest.raises(BrokenChart, match="the chart's"):
        read(chart_yaml)


def test_of_files_of_the_same_name_the_last_counts_and_no_other_is_read() -> None:
    """A thousand of them fit in a chart, and reading one takes up to three seconds."""
    chart = read_files([("Chart", "no: [yaml"), ("Chart", "name: web\nversion: 2.0.0\n")])

    assert (chart.name, chart.tag) == ("web", "2.0.0")
