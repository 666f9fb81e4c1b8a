"""Whole images: OCI layouts of many layers, and what pushing them costs, in a process of its own that reports it."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contestants import Measure, peak_bytes
from bench.source import ETAG
from bench.wire import digest_of
from local import images
from local.invocation import Invocation, put_event

# The object that is announced.
INDEX = "_/bench/index.json"


@dataclass(frozen=True)
class Case:
    """Images by the sizes of their layers, in bytes and in the manifests' order."""

    images: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return sum(map(sum, self.images))


def cases(longest: int) -> dict[str, Case]:
    """The cases by name. In each the longest layer has that size, and is the last that its manifest names."""
    twelve = [longest * (22 + 40 * number // 11) // 62 for number in range(12)]
    forty = [max(1000 + number, int(longest * 0.85**number)) for number in range(40)]
    # Layers of unlike size, so that no two images share one.
    bundle = [
        (1000 + number, longest // 60 + number, longest // 12 + number, size) for number, size in enumerate(twelve)
    ]
    return {
        "1 layer": Case(((longest,),)),
        "12 layers": Case((tuple(twelve),)),
        "40 layers": Case((tuple(reversed(forty)),)),
        "12 images of 4 layers": Case(tuple(bundle)),
    }


def objects(case: Case) -> dict[str, str | int]:
    """The layout's objects by key: a text, or how many bytes of the source's content."""
    found: dict[str, str | int] = {}
    entries = []
    for number, sizes in enumerate(case.images):
        layers = [{"mediaType": images.OCI_LAYER, "digest": digest_of(size), "size": size} for size in sizes]
        config = json.dumps({"architecture": "amd64", "os": "linux", "created": str(number)}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": images.OCI_MANIFEST,
                "config": images.blob_descriptor(config, images.OCI_CONFIG),
                "layers": layers,
            }
        ).encode()
        for body in (config, manifest):
            found[f"_/bench/{images.blob_path(images.digest_of(body))}"] = body.decode()
        for size in sizes:
            found[f"_/bench/{images.blob_path(digest_of(size))}"] = size
        name = {"org.opencontainers.image.ref.name": f"example.com/bench/image-{number}:1"}
        entries.append(images.blob_descriptor(manifest, images.OCI_MANIFEST) | {"annotations": name})
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}
    return found | {INDEX: json.dumps(index)}


def main() -> None:
    path, source, sink = sys.argv[1:]
    size = len(json.loads(Path(path).read_text())[INDEX])
    os.environ.update(
        AWS_ENDPOINT_URL_S3=source, AWS_ENDPOINT_URL_ECR=sink, AWS_ENDPOINT_URL_DYNAMODB=sink, STATE_TABLE="state"
    )
    import handler  # noqa: PLC0415 (it reads the environment when it is imported)

    cpu, wall = time.process_time(), time.monotonic()
    [result] = handler.lambda_handler(put_event(INDEX, size, ETAG), Invocation())["results"]
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    if result["action"] != "pushed":
        raise RuntimeError(f"the images were not pushed: {result}")
    print(json.dumps(asdict(Measure(cpu, wall, peak_bytes("self")))), file=sys.stderr)


if __name__ == "__main__":
    main()
