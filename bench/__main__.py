"""`make bench`: measures it all, in one run on one machine, and writes RESULTS.md and results.svg."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import measure, plot, report
from bench.contestants import Measure
from bench.measure import GIB, MIB
from bench.report import Results
from bench.servers import running
from bench.sink import PART_SIZE, VERIFIED

FIRST_BYTE_SECONDS = 0.060
PART_SECONDS = 0.150

# Contestant, and whether the digest is known before.
RUNS = [("floor", True), ("s3-to-ecr", True), ("plain", True), ("floor", False), ("s3-to-ecr", False), ("plain", False)]


def run(size: int, large: int, rounds: int) -> Results:
    """All measurements, with layers of `size` bytes, and of up to `large` for the memory."""
    results = Results(size, rounds, skopeo_version=measure.skopeo_version())
    with running() as servers:
        say("checking that every contestant brings every byte")
        checked = min(size, 5 * PART_SIZE + 1)
        for contestant, known in RUNS:
            measure.transfer(contestant, servers, checked, known=known, folder=VERIFIED)
        if results.skopeo_version:
            measure.skopeo(servers, checked, folder=VERIFIED)

        runs: dict[tuple[str, bool], Callable[[], Measure]] = {
            (contestant, known): partial(measure.transfer, contestant, servers, size, known=known)
            for contestant, known in RUNS
        }
        if results.skopeo_version:
            runs["skopeo", True] = partial(measure.skopeo, servers, size)
        say(f"throughput: {rounds} rounds of {len(runs)} contestants")
        found = measure.interleaved(rounds, runs)
        results.throughput = {name: measure.median(measures) for name, measures in found.items()}

        say("memory: layers of three sizes")
        sizes = {
            (length, known): partial(measure.transfer, "s3-to-ecr", servers, length, known=known)
            for length in sorted({min(64 * MIB, size), size, large})
            for known in (True, False)
        }
        memory = measure.interleaved(min(rounds, 3), sizes)
        results.peaks = {name: [transfer.peak_bytes for transfer in transfers] for name, transfers in memory.items()}

    say("latency: every answer delayed")
    with running(first_byte_seconds=FIRST_BYTE_SECONDS, part_seconds=PART_SECONDS) as servers:
        delayed = {
            (contestant, known): partial(measure.transfer, contestant, servers, size, known=known)
            for contestant, known in RUNS
            if contestant != "floor"
        }
        waited = measure.interleaved(min(rounds, 3), delayed)
        results.delayed = {name: measure.median(transfers).wall_seconds for name, transfers in waited.items()}
    parts = -(-size // PART_SIZE)
    results.delay_bound = max(parts * PART_SECONDS, parts * FIRST_BYTE_SECONDS)

    say("cold start")
    measure.cold_start()  # the first import compiles the modules
    queue = {"QUEUE_URL": "https://queue"}
    starts: dict[str, Callable[[], float]] = {
        "boto3": measure.cold_start_of_boto3,
        "s3-to-ecr": measure.cold_start,
        "s3-to-ecr with a queue": partial(measure.cold_start, **queue),
    }
    started = measure.interleaved(3 * rounds, starts)
    results.cold_starts = {name: statistics.median(seconds) for name, seconds in started.items()}
    results.imports = measure.import_seconds(**queue)
    results.calls = measure.calls()
    return results


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--mib", type=int, default=GIB // MIB, help="the layer's size")
    parser.add_argument("--large-mib", type=int, default=4 * GIB // MIB, help="the largest layer, for the memory")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="the folder for the results")
    asked = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("the benchmarks read Linux's /proc")
    results = run(asked.mib * MIB, asked.large_mib * MIB, asked.rounds)
    plot.draw(results, asked.output / "results.svg")
    text = report.markdown(results)
    (asked.output / "RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
