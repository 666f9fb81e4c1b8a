"""Writes the results as a Markdown page."""

from __future__ import annotations

import os
import platform
import ssl
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench.contestants import Measure
from bench.images import Case
from bench.measure import GIB, MIB
from bench.sink import PART_SIZE

NAMES = {
    "floor": "the floor: bare sockets",
    "s3-to-ecr": "**s3-to-ecr**",
    "plain": "plain boto3 loop",
    "skopeo": "skopeo",
}

# The servers' delays in the measurement of waiting.
FIRST_BYTE_SECONDS = 0.060
PART_SECONDS = 0.150
IMAGE_FIRST_BYTE_SECONDS = 0.030

# What a function's network gives for long: 600 Mbit/s.
NETWORK_BYTES_PER_SECOND = 75_000_000

# The project's goals.
MOST_OF_PLAIN = 1 / 4
MOST_OF_FLOOR = 2.0
MOST_OF_TLS_FLOOR = 1.10
MOST_OF_BOUND = 1.05
MOST_BYTES = 160_000_000
MOST_GROWTH = 1.05
MOST_OF_COLD_START = 1.10
MOST_OF_IMAGE_BOUND = 1.25
MOST_BYTES_OF_IMAGES = 400_000_000
MOST_OF_PLAIN_ARCHIVE = 1.2
MOST_BYTES_OF_ARCHIVES = 400_000_000


@dataclass
class Results:
    """All measurements. Sizes are in bytes, times in seconds; the flag says whether the digest was known."""

    size: int
    rounds: int
    archive_size: int
    skopeo_version: str | None
    throughput: dict[tuple[str, bool], Measure] = field(default_factory=dict)
    tls: dict[str, Measure] = field(default_factory=dict)  # digest known
    memory: dict[tuple[int, bool], Measure] = field(default_factory=dict)
    delayed: dict[tuple[str, bool], Measure] = field(default_factory=dict)
    image_cases: dict[str, Case] = field(default_factory=dict)
    images: dict[str, Measure] = field(default_factory=dict)
    archives: dict[tuple[str, str], Measure] = field(default_factory=dict)
    highest_peak: int = 0
    cold_starts: dict[tuple[str, bool], float] = field(default_factory=dict)  # the flag says whether with bytecode
    imports: dict[str, float] = field(default_factory=dict)
    calls: dict[str, list[str]] = field(default_factory=dict)

    def note_peaks(self, transfers: Iterable[Measure]) -> None:
        """Keeps the highest peak of all transfers by this project."""
        self.highest_peak = max(self.highest_peak, *(transfer.peak_bytes for transfer in transfers))

    @property
    def few_rounds(self) -> int:
        """The rounds of measurements that take long and vary little."""
        return min(self.rounds, 3)

    @property
    def delay_bound(self) -> float:
        """The fewest seconds that are possible with delays, since parts go to ECR one after the other."""
        parts = -(-self.size // PART_SIZE)
        return parts * max(PART_SECONDS, FIRST_BYTE_SECONDS)

    @property
    def longest_wait(self) -> float:
        """The wall time with delays, relative to the bound, whether or not the digest is known."""
        return max(self.delayed["s3-to-ecr", known].wall_seconds for known in (True, False)) / self.delay_bound

    def cold_start(self, name: str = "s3-to-ecr", *, compiled: bool = True) -> float:
        """The cold start, relative to that of boto3 with three clients."""
        return self.cold_starts[name, compiled] / self.cold_starts["boto3", compiled]

    @property
    def of_tls_floor(self) -> float:
        """CPU over TLS, relative to the floor over TLS."""
        return self.tls["s3-to-ecr"].cpu_seconds / self.tls["floor"].cpu_seconds

    def cpu_per_gib(self, name: str, *, known: bool = True) -> float:
        """CPU seconds per GiB."""
        return self.throughput[name, known].cpu_seconds * GIB / self.size

    def figures(self, measured: Measure) -> tuple[str, str, str]:
        """CPU and wall seconds per GiB and the peak in MB, formatted."""
        cpu, wall = (seconds * GIB / self.size for seconds in (measured.cpu_seconds, measured.wall_seconds))
        return f"{cpu:.2f}", f"{wall:.2f}", f"{measured.peak_bytes / 1e6:.0f}"


def markdown(results: Results, history: str) -> str:
    """The text of RESULTS.md, with the section about earlier versions."""
    sections = [_head(results), _goals(results), _throughput(results), tls(results), _delayed(results)]
    sections += [_memory(results), _images(results), _archives(results), cold_start(results), _calls(results)]
    sections += [_skopeo(results), history]
    return "\n\n".join(sections) + "\n"


def _head(results: Results) -> str:
    return f"""# What it costs

Written by `make bench`; [README](README.md) explains what is measured and how.

{_machine()}. Layers of {_size(results.size)}, plain HTTP on loopback.

![CPU, memory and waiting](results.svg)"""


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("botocore", "pybase64", "zlib-ng", "aws-lambda-powertools")
    )
    return f"{model}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, {packages}"


def _goals(results: Results) -> str:
    cpu = results.cpu_per_gib("s3-to-ecr")
    smallest, largest = min(results.memory)[0], max(results.memory)[0]
    growth = max(
        results.memory[largest, known].peak_bytes / results.memory[smallest, known].peak_bytes
        for known in (True, False)
    )
    goals = [
        ("CPU relative to the plain loop, digest known", cpu / results.cpu_per_gib("plain"), MOST_OF_PLAIN, ".2f"),
        ("CPU relative to the floor, digest known", cpu / results.cpu_per_gib("floor"), MOST_OF_FLOOR, ".2f"),
        (
            "CPU over TLS relative to its floor, digest known",
            results.of_tls_floor,
            MOST_OF_TLS_FLOOR,
            ".2f",
        ),
        ("Wall time with delays, relative to the bound", results.longest_wait, MOST_OF_BOUND, ".3f"),
        ("Peak memory of all transfers, MB", results.highest_peak / 1e6, MOST_BYTES / 1e6, ".0f"),
        (f"Peak memory for {_size(largest)}, relative to {_size(smallest)}", growth, MOST_GROWTH, ".3f"),
        ("Cold start, relative to boto3 with three clients", results.cold_start(), MOST_OF_COLD_START, ".2f"),
    ]
    goals += _image_goals(results)
    goals += _archive_goals(results)
    if results.skopeo_version:
        computed = results.cpu_per_gib("s3-to-ecr", known=False)
        goals.append(("CPU relative to skopeo, digest known", cpu / results.cpu_per_gib("skopeo"), 1, ".2f"))
        goals.append(("CPU relative to skopeo, digest computed", computed / results.cpu_per_gib("skopeo"), 1, ".2f"))
    rows = [
        (what, format(found, style), f"≤ {format(most, style)}", "yes" if found <= most else "**no**")
        for what, found, most, style in goals
    ]
    return "## Goals\n\n" + table(("", "measured", "goal", "met"), rows)


def _throughput(results: Results) -> str:
    text = f"""## Throughput

Seconds per GiB, from the first call to the last, without delays. Medians of {results.rounds} rounds."""
    for known in (True, False):
        transfers = {
            name: measured
            for (name, is_known), measured in results.throughput.items()
            if is_known == known and name != "skopeo"
        }
        title = "Digest known from the key, verified by ECR" if known else "Digest computed during the transfer"
        text += f"\n\n{title}:\n\n{_beside_the_floor(results, transfers)}"
    return text


def tls(results: Results) -> str:
    """The section about transfers over TLS."""
    text = f"""## TLS

The same over HTTPS on both sides, as with AWS: {ssl.OPENSSL_VERSION}, TLS 1.3. Digest known. Seconds per GiB, medians
of {results.rounds} rounds. The servers encrypt and decrypt on the same machine, which the wall time shows."""
    return f"{text}\n\n{_beside_the_floor(results, results.tls)}"


def _beside_the_floor(results: Results, transfers: Mapping[str, Measure]) -> str:
    rows = []
    for name, measured in transfers.items():
        cpu, wall, peak = results.figures(measured)
        rows.append((NAMES[name], cpu, f"{measured.cpu_seconds / transfers['floor'].cpu_seconds:.2f}", wall, peak))
    return table(("", "CPU s", "relative to the floor", "wall s", "peak MB"), rows)


def _delayed(results: Results) -> str:
    rows = [
        (
            NAMES[name],
            "known" if known else "computed",
            f"{measured.wall_seconds:.2f}",
            f"{measured.wall_seconds / results.delay_bound:.3f}",
            f"{measured.peak_bytes / 1e6:.0f}",
        )
        for (name, known), measured in results.delayed.items()
    ]
    text = f"""## Waiting

S3 takes {1000 * FIRST_BYTE_SECONDS:.0f} ms to the first byte of a response. ECR takes {1000 * PART_SECONDS:.0f} ms for
a part, from the first byte of the request to the response. Parts go to ECR one after the other, so the slower of the
two is the bound: {results.delay_bound:.2f} s for {_size(results.size)}. Medians of {results.few_rounds} rounds."""
    return f"{text}\n\n" + table(("", "digest", "wall s", "relative to the bound", "peak MB"), rows)


def _memory(results: Results) -> str:
    rows = [
        (_size(size), "known" if known else "computed", f"{measured.peak_bytes / 1e6:.1f}")
        for (size, known), measured in results.memory.items()
    ]
    text = f"""## Memory

The largest resident memory of {NAMES["s3-to-ecr"]}'s process, in MB. Medians of {results.few_rounds} rounds."""
    return f"{text}\n\n" + table(("layer", "digest", "peak MB"), rows)


def _images(results: Results) -> str:
    alone = _longest_alone(results)
    rows = [
        (
            name,
            f"{results.image_cases[name].size / 1e6:.0f}",
            f"{measured.wall_seconds:.2f}",
            f"{measured.wall_seconds / alone:.2f}",
            f"{measured.wall_seconds / _image_bound(results, name):.2f}",
            f"{measured.cpu_seconds:.2f}",
            f"{measured.peak_bytes / 1e6:.0f}",
        )
        for name, measured in results.images.items()
    ]
    text = f"""## Whole images

OCI layouts. The longest layer has {_size(max(results.image_cases["1 layer"].images[0]))} in each, and is the last that
its manifest names. S3 takes {1000 * IMAGE_FIRST_BYTE_SECONDS:.0f} ms to the first byte, and ECR
{1000 * PART_SECONDS:.0f} ms for a part. The bound is the longest layer alone, or all bytes at the
{NETWORK_BYTES_PER_SECOND / 1e6:.0f} MB/s of a function's network, if that takes longer. On loopback the network is not
the limit. Medians of {results.few_rounds} rounds."""
    head = ("", "MB", "wall s", "relative to the longest layer alone", "relative to the bound", "CPU s", "peak MB")
    return f"{text}\n\n" + table(head, rows)


def _longest_alone(results: Results) -> float:
    return results.images["1 layer"].wall_seconds


def _image_bound(results: Results, name: str) -> float:
    return max(_longest_alone(results), results.image_cases[name].size / NETWORK_BYTES_PER_SECOND)


def _image_goals(results: Results) -> list[tuple[str, float, float, str]]:
    worst = max(measured.wall_seconds / _image_bound(results, name) for name, measured in results.images.items())
    peak = max(measured.peak_bytes for measured in results.images.values())
    return [
        ("Wall time of images, relative to the bound", worst, MOST_OF_IMAGE_BOUND, ".2f"),
        ("Peak memory of images, MB", peak / 1e6, MOST_BYTES_OF_IMAGES / 1e6, ".0f"),
    ]


def _archives(results: Results) -> str:
    rows = []
    for (name, ending), measured in results.archives.items():
        if name != "unpack":
            unpacking = results.archives["unpack", ending].cpu_seconds
            rows.append(
                (
                    f"`.{ending}`",
                    NAMES[name],
                    f"{measured.cpu_seconds:.2f}",
                    f"{unpacking:.2f}",
                    f"{measured.wall_seconds:.2f}",
                    f"{measured.peak_bytes / 1e6:.0f}",
                )
            )
    text = f"""## Image archives

An image of {_size(results.archive_size)} as `docker save` writes it, beside `skopeo copy --preserve-digests
docker-archive:` of the same file to a registry. *Unpacking* is what it takes to decompress the archive once with the
function's decoder, and nothing else: gzip and zstd are decompressed twice, to find the layers and to send them. Medians
of {results.few_rounds} rounds."""
    unread = [f"`.{ending}`" for name, ending in results.archives if name == "unpack"]
    unread = [ending for ending in unread if (ending, NAMES["skopeo"]) not in {row[:2] for row in rows}]
    if results.skopeo_version and unread:
        text += f" This version of skopeo cannot read {', '.join(unread)}."
    return f"{text}\n\n" + table(("archive", "", "CPU s", "unpacking, CPU s", "wall s", "peak MB"), rows)


def _archive_goals(results: Results) -> list[tuple[str, float, float, str]]:
    """CPU of a compressed archive, relative to unpacking it twice and 1.2 times the plain one; and the largest peak."""
    plain = results.archives["s3-to-ecr", "tar"].cpu_seconds
    goals = []
    for (name, ending), measured in results.archives.items():
        if name == "s3-to-ecr" and ending != "tar":
            bound = 2 * results.archives["unpack", ending].cpu_seconds + MOST_OF_PLAIN_ARCHIVE * plain
            goals.append((f"CPU of a `.{ending}`, relative to the bound", measured.cpu_seconds / bound, 1.0, ".2f"))
    peak = max(measured.peak_bytes for (name, _), measured in results.archives.items() if name == "s3-to-ecr")
    return [*goals, ("Peak memory of archives, MB", peak / 1e6, MOST_BYTES_OF_ARCHIVES / 1e6, ".0f")]


def cold_start(results: Results) -> str:
    """The section about cold starts."""
    rows = [
        (
            what,
            *(
                text
                for compiled in (False, True)
                for text in (
                    f"{1000 * results.cold_starts[name, compiled]:.0f}",
                    f"{results.cold_start(name, compiled=compiled):.2f}",
                )
            ),
        )
        for name, what in [
            ("boto3", "a function with boto3's clients for S3, ECR and DynamoDB"),
            ("s3-to-ecr", NAMES["s3-to-ecr"]),
        ]
    ]
    largest_first = sorted(results.imports.items(), key=lambda group: -group[1])
    imports = [(group, f"{1000 * seconds:.0f}") for group, seconds in largest_first]
    text = f"""## Cold start

From the first request to the answer, of the built function in Lambda's runtime emulator. *Without bytecode* is what
`sam build` leaves, *with bytecode* what `make build` makes of it. Medians of {3 * results.rounds} rounds."""
    head = ("", "without bytecode, ms", "relative to boto3", "with bytecode, ms", "relative to boto3")
    return (
        f"{text}\n\n{table(head, rows)}\n\n"
        "The share of each group of modules, by `python -X importtime`, which adds its own overhead:\n\n"
        + table(("modules", "ms"), imports)
    )


def _calls(results: Results) -> str:
    rows = [
        (what, *(_operations(calls, service) for service in ("s3", "ecr", "dynamodb")), str(len(calls)))
        for what, calls in results.calls.items()
    ]
    return (
        "## Calls for a blob of 2 KB\n\nAs sent to the local stack; the event has the object's size and ETag.\n\n"
        + table(("", "S3", "ECR", "DynamoDB", "calls"), rows)
    )


def _operations(calls: Iterable[str], service: str) -> str:
    return ", ".join(call.partition(":")[2] for call in calls if call.startswith(f"{service}:")) or "none"


def _skopeo(results: Results) -> str:
    if not results.skopeo_version:
        return "## skopeo\n\nskopeo was not installed."
    rows = [
        (NAMES["s3-to-ecr"], *results.figures(results.throughput["s3-to-ecr", True])),
        (f"{NAMES['s3-to-ecr']}, digest computed", *results.figures(results.throughput["s3-to-ecr", False])),
        (NAMES["skopeo"], *results.figures(results.throughput["skopeo", True])),
    ]
    text = f"""## skopeo

`skopeo copy --preserve-digests`, {results.skopeo_version.removeprefix("skopeo version ")}, copies an image with the
same layer between two registries, which the same two servers provide. Its start-up is included. A registry takes the
bytes as they are; ECR's API takes them in base64."""
    return f"{text}\n\n" + table(("", "CPU s per GiB", "wall s per GiB", "peak MB"), rows)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table with the first column left-aligned and the others right-aligned."""
    align = ("---", *["---:"] * (len(head) - 1))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, align, *rows))


def _size(size: int) -> str:
    return f"{size // GIB} GiB" if size % GIB == 0 else f"{size // MIB} MiB"
