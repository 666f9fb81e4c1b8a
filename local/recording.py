"""Records a command as an animated SVG of a terminal: python -m local.recording docs/demo.svg make demo.

The lines appear as they did in the run. Pauses are cut to two seconds, so that nobody waits for an installation.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Final

_COLUMNS: Final = 100
_LINE_HEIGHT: Final = 18
_LONGEST_PAUSE: Final = 2.0
_END_SECONDS: Final = 6.0

_STYLE: Final = """
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }
.prompt { fill: #7ee787 }
"""


def main(target: str, *command: str) -> int:
    """Writes the recording to `target` and returns the command's exit code."""
    started = time.monotonic()
    lines: list[tuple[float, str]] = [(0.0, f"$ {shlex.join(command)}")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        for line in run.stdout or ():
            lines.append((time.monotonic() - started, line.rstrip("\n")))
            print(line, end="")
    Path(target).write_text(_svg(_paced(lines)))
    return run.returncode


def _paced(lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    paced: list[tuple[float, str]] = []
    clock = before = 0.0
    for second, text in lines:
        clock += min(second - before, _LONGEST_PAUSE)
        before = second
        paced.append((clock, text))
    return paced


def _svg(lines: list[tuple[float, str]]) -> str:
    duration = lines[-1][0] + _END_SECONDS
    height = (len(lines) + 2) * _LINE_HEIGHT
    texts, frames = [], []
    for number, (second, text) in enumerate(lines):
        percent = 100 * second / duration
        hidden, shown = f"0%, {percent:.2f}% {{ opacity: 0 }}", f"{percent + 0.01:.2f}%, 100% {{ opacity: 1 }}"
        frames.append(f"@keyframes a{number} {{ {hidden} {shown} }}")
        kind = ' class="prompt"' if number == 0 else f' style="animation: a{number} {duration:.1f}s infinite"'
        y = (number + 2) * _LINE_HEIGHT
        texts.append(f'<text x="16" y="{y}"{kind} xml:space="preserve">{escape(text[:_COLUMNS])}</text>')
    style = _STYLE + "\n".join(frames[1:])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 830 {height}">\n'
        f"<title>{escape(lines[0][1])}</title>\n<style>{style}</style>\n"
        f'<rect width="830" height="{height}" rx="8" fill="#0d1117"/>\n' + "\n".join(texts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
