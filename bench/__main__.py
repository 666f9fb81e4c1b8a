"""`make bench`: runs all measurements on one machine, and writes RESULTS.md and results.svg."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from bench import archives, history, images, measure, plot, report
from bench.contestants import Measure
from bench.measure import GIB, MIB
from bench.report import Results
from bench.servers import Servers, running
from bench.sink import PART_SIZE, VERIFIED

# The contestant, and whether the digest is known beforehand.
RUNS = [("floor", True), ("s3-to-ecr", True), ("plain", True), ("floor", False), ("s3-to-ecr", False), ("plain", False)]
KNOWN_RUNS = [run for run in RUNS if run[1]]


def run(rounds: int, size: int, large: int, archive: int, longest: int) -> Results:
    """Runs all measurements with layers of `size` bytes, and for memory of up to `large` bytes.

    The image in an archive has `archive` bytes. The longest layer of the images has `longest` bytes.
    """
    results = Results(size, rounds, archive, measure.skopeo_version(), image_cases=images.cases(longest))
    with running() as servers:
        _check(results, servers, RUNS)
        _throughput(results, servers)
        _memory(results, servers, large)
    with running(tls=True) as servers:
        _check(results, servers, KNOWN_RUNS)
        _tls(results, servers)
    with running(first_byte_seconds=report.FIRST_BYTE_SECONDS, part_seconds=report.PART_SECONDS) as servers:
        _delays(results, servers)
    _images(results)
    _archives(results, archive)
    _cold_starts(results)
    results.calls = measure.calls()
    return results


def _check(results: Results, servers: Servers, runs: list[tuple[str, bool]]) -> None:
    say("checking that every contestant transfers every byte")
    size = min(results.size, 5 * PART_SIZE + 1)
    for contestant, known in runs:
        measure.transfer(contestant, servers, size, known=known, folder=VERIFIED)
    if results.skopeo_version:
        measure.skopeo(servers, size, folder=VERIFIED)


def _throughput(results: Results, servers: Servers) -> None:
    results.throughput = _transfers("throughput", results, servers, RUNS)


def _tls(results: Results, servers: Servers) -> None:
    found = _transfers("TLS", results, servers, KNOWN_RUNS)
    results.tls = {contestant: transfer for (contestant, _), transfer in found.items()}


def _transfers(
    what: str, results: Results, servers: Servers, contestants: list[tuple[str, bool]]
) -> dict[tuple[str, bool], Measure]:
    """The medians of these contestants and skopeo."""
    runs: dict[tuple[str, bool], Callable[[], Measure]] = {
        (contestant, known): partial(measure.transfer, contestant, servers, results.size, known=known)
        for contestant, known in contestants
    }
    if results.skopeo_version:
        runs["skopeo", True] = partial(measure.skopeo, servers, results.size)
    say(f"{what}: {results.rounds} rounds of {len(runs)} contestants")
    found = measure.interleaved(results.rounds, runs)
    for (contestant, _), transfers in found.items():
        if contestant == "s3-to-ecr":
            results.note_peaks(transfers)
    return {run: measure.median(transfers) for run, transfers in found.items()}


def _memory(results: Results, servers: Servers, large: int) -> None:
    say("memory: layers of three sizes")
    runs = {
        (size, known): partial(measure.transfer, "s3-to-ecr", servers, size, known=known)
        for size in sorted({min(64 * MIB, results.size), results.size, large})
        for known in (True, False)
    }
    found = measure.interleaved(results.few_rounds, runs)
    results.memory = {run: measure.median(transfers) for run, transfers in found.items()}
    results.note_peaks(transfer for transfers in found.values() for transfer in transfers)


def _delays(results: Results, servers: Servers) -> None:
    say("waiting: every answer delayed")
    runs = {
        (contestant, known): partial(measure.transfer, contestant, servers, results.size, known=known)
        for contestant, known in RUNS
        if contestant != "floor"
    }
    found = measure.interleaved(results.few_rounds, runs)
    results.delayed = {run: measure.median(transfers) for run, transfers in found.items()}
    results.note_peaks(found["s3-to-ecr", True] + found["s3-to-ecr", False])


def _images(results: Results) -> None:
    say("images: many layers, delayed")
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Callable[[], Measure]] = {}
        for name, case in results.image_cases.items():
            path = Path(folder, f"{name}.json")
            path.write_text(json.dumps(images.objects(case)))
            runs[name] = partial(_pushed_images, path)
        found = measure.interleaved(results.few_rounds, runs)
    results.images = {name: measure.median(costs) for name, costs in found.items()}


def _pushed_images(path: Path) -> Measure:
    first_byte, part = report.IMAGE_FIRST_BYTE_SECONDS, report.PART_SECONDS
    with running(first_byte_seconds=first_byte, part_seconds=part, file=path) as servers:
        return measure.pushed_images(servers, path)


def _archives(results: Results, size: int) -> None:
    say("archives: plain and compressed")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs: dict[tuple[str, str], Callable[[], Measure]] = {}
        for ending, path in archives.made(Path(folder), size).items():
            servers = stack.enter_context(running(file=path))
            runs["s3-to-ecr", ending] = partial(measure.archive, "push", servers, path)
            runs["unpack", ending] = partial(measure.archive, "unpack", servers, path)
            if results.skopeo_version:
                skopeo = partial(measure.skopeo_archive, servers, path)
                with suppress(measure.SkopeoFailed):  # Debian's 1.9.3 cannot read archives in gzip
                    skopeo()
                    runs["skopeo", ending] = skopeo
        found = measure.interleaved(results.few_rounds, runs)
    results.archives = {run: measure.median(costs) for run, costs in found.items()}


def _cold_starts(results: Results) -> None:
    say("cold start: building the function")
    with tempfile.TemporaryDirectory() as folder:
        functions = measure.Functions(Path(folder))
        runs = {
            (name, compiled): partial(functions.cold_start, module, compiled=compiled)
            for compiled in (True, False)
            for name, module in (("boto3", "three_clients"), ("s3-to-ecr", "handler"))
        }
        say(f"cold start: {3 * results.rounds} rounds of {len(runs)} functions")
        measure.interleaved(1, runs)  # the first run brings the files into the page cache
        found = measure.interleaved(3 * results.rounds, runs)
    results.cold_starts = {run: statistics.median(seconds) for run, seconds in found.items()}
    results.imports = measure.import_seconds()


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--mib", type=int, default=GIB // MIB, help="the layer's size in MiB")
    parser.add_argument("--large-mib", type=int, default=4 * GIB // MIB, help="the largest layer for memory, in MiB")
    parser.add_argument("--archive-mib", type=int, default=GIB // MIB, help="the size of an archive's image, in MiB")
    parser.add_argument("--image-layer-mib", type=int, default=60, help="the longest layer of an image, in MiB")
    parser.add_argument("--rounds", type=int, default=5, help="the number of rounds")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="the folder for the results")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--cold-start", action="store_true", help="measure only cold starts, and print them")
    only.add_argument("--tls", action="store_true", help="measure only transfers over TLS, and print them")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("the benchmarks need Linux, because they read /proc")
    results = Results(arguments.mib * MIB, arguments.rounds, 0, measure.skopeo_version())
    if arguments.cold_start:
        _cold_starts(results)
        print(report.cold_start(results))
        return
    if arguments.tls:
        with running(tls=True) as servers:
            _tls(results, servers)
        print(report.tls(results))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    sizes = [arguments.mib, arguments.large_mib, arguments.archive_mib, arguments.image_layer_mib]
    results = run(arguments.rounds, *(mib * MIB for mib in sizes))
    plot.draw(results, arguments.output / "results.svg")
    page = arguments.output / "RESULTS.md"
    text = report.markdown(results, history.lines(page, results))
    page.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
