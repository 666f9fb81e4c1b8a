"""The section of RESULTS.md that keeps a line for each release, so that a regression is seen."""

from __future__ import annotations

import re
import time
import tomllib
from pathlib import Path

from bench.report import Results, table
from bench.servers import ROOT

_TITLE = "## History"
_HEAD = (
    "version",
    "measured on",
    "CPU s per GiB",
    "relative to the floor",
    "relative to the plain loop",
    "waiting, relative to the bound",
    "peak MB",
    "cold start, relative to boto3",
)

# What has been measured since the last release. The next measurement replaces this line.
_UNRELEASED = "unreleased"


def lines(page: Path, results: Results) -> str:
    """The section as `page` has it, with a line for the present version, which replaces an earlier one of it."""
    current = _version()
    kept = [row for row in _rows(page) if row[0] not in {current, _UNRELEASED}]
    cpu = results.cpu_per_gib("s3-to-ecr")
    measured = (
        current,
        time.strftime("%Y-%m-%d"),
        f"{cpu:.2f}",
        f"{cpu / results.cpu_per_gib('floor'):.2f}",
        f"{cpu / results.cpu_per_gib('plain'):.2f}",
        f"{results.longest_wait:.3f}",
        f"{results.highest_peak / 1e6:.0f}",
        f"{results.cold_start():.2f}",
    )
    text = f"""{_TITLE}

A line for each release, digest known. Machines and Pythons differ, so compare what is relative. Up to 1.0.0, the cold
start was that of the modules' import, without Lambda's runtime."""
    return f"{text}\n\n{table(_HEAD, [measured, *kept])}"


def _rows(page: Path) -> list[tuple[str, ...]]:
    """The lines of the releases, newest first."""
    section = page.read_text().partition(f"{_TITLE}\n")[2] if page.exists() else ""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    return rows[2:]


def _version() -> str:
    """The version that pyproject.toml names, unless CHANGELOG.md has changes since."""
    changes = (ROOT / "CHANGELOG.md").read_text().partition("## [Unreleased]\n")[2].partition("\n## ")[0]
    if changes.strip():
        return _UNRELEASED
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
