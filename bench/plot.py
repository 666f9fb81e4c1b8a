"""Draws the results."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Results

_OURS, _OTHERS, _BOUND = "#d9730d", "#9aa5b1", "#c0392b"
_LABELS = {
    ("floor", True): "bare sockets",
    ("s3-to-ecr", True): "s3-to-ecr",
    ("s3-to-ecr", False): "s3-to-ecr,\ndigest computed",
    ("skopeo", True): "skopeo",
    ("plain", True): "plain boto3 loop",
}


def draw(results: Results, file: Path) -> None:
    """Draws CPU, memory and waiting side by side, as SVG."""
    # Text stays text, and equal results give equal files.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "s3-to-ecr", "font.size": 9}):
        figure = Figure(figsize=(11, 3.1), layout="constrained")
        cpu, memory, waiting = figure.subplots(1, 3)
        shown = [name for name in _LABELS if name in results.throughput]
        _bars(
            cpu, {name: results.cpu_per_gib(name[0], known=name[1]) for name in shown}, "CPU seconds per GiB", "{:.1f}"
        )
        peaks = {name: results.throughput[name].peak_bytes / 1e6 for name in shown}
        _bars(memory, peaks, "peak memory, MB", "{:.0f}")
        walls = {name: results.delayed[name].wall_seconds for name in _LABELS if name in results.delayed}
        _bars(waiting, walls, "seconds per layer, with delays\n(dashed: ECR's delays alone)", "{:.1f}")
        waiting.axvline(results.delay_bound, color=_BOUND, linestyle="--", linewidth=1)
        figure.savefig(file, metadata={"Date": None})


def _bars(axes: Axes, values: dict[tuple[str, bool], float], title: str, style: str) -> None:
    names = list(values)
    bars = axes.barh(
        [_LABELS[name] for name in names],
        list(values.values()),
        color=[_OURS if name[0] == "s3-to-ecr" else _OTHERS for name in names],
    )
    axes.bar_label(bars, [style.format(value) for value in values.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
