"""RESULTS.md keeps a line for each release, however often it is rewritten."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from bench import history
from bench.contestants import Measure
from bench.measure import GIB
from bench.report import Results


class Release(Protocol):
    def __call__(self, version: str, unreleased: str = "") -> None: ...


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "RESULTS.md"


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Release:
    """Sets the version of pyproject.toml, and what CHANGELOG.md has under [Unreleased]."""

    def set_release(version: str, unreleased: str = "") -> None:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n{unreleased}\n## [{version}]\n\n- All of it.\n")

    monkeypatch.setattr(history, "ROOT", tmp_path)
    return set_release


def measured(cpu_seconds: float) -> Results:
    def measure(cpu: float) -> Measure:
        return Measure(cpu, 15.9, 118_000_000)

    results = Results(GIB, 5, 0, None, highest_peak=118_400_000)
    for known in (True, False):
        results.throughput |= {
            ("s3-to-ecr", known): measure(cpu_seconds),
            ("floor", known): measure(1.0),
            ("plain", known): measure(8.0),
        }
        results.delayed["s3-to-ecr", known] = measure(1)
    results.cold_starts = {("boto3", True): 0.2, ("s3-to-ecr", True): 0.21}
    return results


def versions(section: str) -> list[tuple[str, str]]:
    """The version and the CPU seconds of each line."""
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [(cells[1].strip(), cells[3].strip()) for cells in (line.split("|") for line in lines)]


def test_a_line_has_the_headline_numbers(page: Path, release: Release) -> None:
    release("1.1.0")

    line = history.lines(page, measured(1.5)).splitlines()[-1]

    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "1.1.0"
    assert cells[2:] == ["1.50", "1.50", "0.19", "1.029", "118", "1.05"]


def test_earlier_releases_are_kept_and_a_version_has_one_line(page: Path, release: Release) -> None:
    found = []
    for version, cpu_seconds in [("1.0.0", 1.9), ("1.0.0", 1.8), ("1.1.0", 1.5), ("2.0.0", 1.4)]:
        release(version)
        section = history.lines(page, measured(cpu_seconds))
        page.write_text(f"# Results\n\n| a | table |\n| --- | --- |\n| of | others |\n\n{section}\n")
        found.append(versions(section))

    assert found[1] == [("1.0.0", "1.80")]
    assert found[3] == [("2.0.0", "1.40"), ("1.1.0", "1.50"), ("1.0.0", "1.80")]


def test_what_is_measured_between_releases_does_not_replace_a_release(page: Path, release: Release) -> None:
    found = []
    for version, changes, cpu_seconds in [
        ("1.0.0", "", 1.8),
        ("1.0.0", "- Faster.\n", 1.6),
        ("1.0.0", "- Faster still.\n", 1.5),
        ("1.1.0", "", 1.5),
    ]:
        release(version, changes)
        section = history.lines(page, measured(cpu_seconds))
        page.write_text(section)
        found.append(versions(section))

    assert found[1] == [("unreleased", "1.60"), ("1.0.0", "1.80")]
    assert found[2] == [("unreleased", "1.50"), ("1.0.0", "1.80")]
    assert found[3] == [("1.1.0", "1.50"), ("1.0.0", "1.80")]


def test_the_committed_page_has_the_first_release() -> None:
    committed = (Path(history.__file__).parent / "RESULTS.md").read_text()

    assert "| 1.0.0 | 2026-11-23 | 1.52 | 1.14 | 0.22 | 1.028 | 118 | 1.18 |" in committed
