from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.conftest import ROOT
from tests.doubles.checkout import shell_environment


def test_the_bench_measures_and_writes_its_results(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            *("--mib", "11", "--large-mib", "21", "--archive-mib", "8", "--image-layer-mib", "1"),
            *("--rounds", "1", "--output", tmp_path),
        ],
        cwd=ROOT,
        env=shell_environment() | {"http_proxy": "http://127.0.0.1:9"},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    results = (tmp_path / "RESULTS.md").read_text()
    for title in (
        "Goals",
        "Throughput",
        "TLS",
        "Waiting",
        "Memory",
        "Whole images",
        "Image archives",
        "Cold start",
        "Calls for a blob of 2 KB",
        "skopeo",
        "History",
    ):
        assert f"\n## {title}\n" in results
    for contestant in ("the floor: bare sockets", "**s3-to-ecr**", "plain boto3 loop"):
        assert results.count(f"\n| {contestant} |") >= 3
    assert ("\n| skopeo |" in results) == bool(shutil.which("skopeo"))
    for ending in ("tar", "tar.gz"):
        assert f"\n| `.{ending}` | **s3-to-ecr** |" in results
    picture = ET.parse(tmp_path / "results.svg").getroot()  # noqa: S314 (we have just made it)
    assert "plain boto3 loop" in {element.text for element in picture.iter()}
