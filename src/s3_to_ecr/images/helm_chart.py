"""Helm charts: what `helm push` makes of one, as Helm 4.2 does it (pkg/registry, pkg/chart/v2).

    <chart>/Chart.yaml in the .tgz ─► config: its fields as JSON, in Helm's order
                                   ─► annotations of the manifest
    the .tgz, the .tgz.prov        ─► layers

There is one difference. Helm notes when it pushed, so each push gives another digest. Here the same chart always has
the same digest.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3_to_ecr.aws.s3 import ObjectRange, ObjectReader
from s3_to_ecr.blobs import Blob, MadeBlob, digest_by_reading
from s3_to_ecr.errors import BrokenChart
from s3_to_ecr.images.compression import MAGIC_BYTES, Codec, codec_of
from s3_to_ecr.images.helm_yaml import MAX_YAML_BYTES, Value, as_text, read_yaml
from s3_to_ecr.images.manifests import digest_of
from s3_to_ecr.images.model import Image, PushRequest
from s3_to_ecr.images.references import Reference
from s3_to_ecr.images.tar_headers import headers_at_start, read_headers
from s3_to_ecr.images.unpacked import Unpacked
from s3_to_ecr.media_types import OCI_MANIFEST

_CONFIG_TYPE = "application/vnd.cncf.helm.config.v1+json"
_CHART_TYPE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_PROVENANCE_TYPE = "application/vnd.cncf.helm.chart.provenance.v1.prov"

# How much is unpacked to recognise a chart: `helm package` writes Chart.yaml first.
_START_BYTES = 256 * 1024

# Helm's own limit for an unpacked chart.
_MOST_UNPACKED_BYTES = 100 * 1024 * 1024

# Go's package Masterminds/semver, by which Helm checks versions: some parts and a leading v are optional.
_VERSION = re.compile(
    r"v?[0-9]+(?:\.[0-9]+){0,2}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)

# Go's unicode.IsSpace. Python's `isspace` also accepts the separators U+001C to U+001F.
_SPACE = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

# From here on, Go writes a number with an exponent.
_EXPONENT_FROM = 1e21

_CHART = "Chart.yaml"
# Helm 2 had the dependencies in a file of their own, and no version of its format. Helm 4 still reads both.
_REQUIREMENTS = "requirements.yaml"
_DEFAULT_API = "v1"

_PACKAGE = "Correct it, and package the chart again."


@dataclass(frozen=True)
class Chart:
    """A chart's metadata: the fields that Helm knows, in its order, as they are in its config."""

    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.fields["name"])

    @property
    def tag(self) -> str:
        """The version. A tag cannot have a `+`."""
        return str(self.fields["version"]).replace("+", "_")

    @property
    def config(self) -> bytes:
        return _json(self.fields)

    def manifest(self, config: dict[str, Any], layers: list[dict[str, Any]]) -> bytes:
        """The manifest, which names these layers. Helm sorts them by digest."""
        return _json(
            {
                "schemaVersion": 2,
                "config": config,
                "layers": sorted(layers, key=lambda layer: str(layer["digest"])),
                "annotations": dict(sorted(self._annotations().items())),
            }
        )

    def _annotations(self) -> dict[str, str]:
        own = dict(self.fields.get("annotations", {}))
        prefix = "org.opencontainers.image."
        for protected in ("title", "version"):
            own.pop(prefix + protected, None)
        authors = [
            author.get("name", "") + (f" ({author['email']})" if "email" in author else "")
            for author in self.fields.get("maintainers", [])
        ]
        made = {
            "description": self.fields.get("description", ""),
            "title": self.name,
            "version": self.fields["version"],
            "url": self.fields.get("home", ""),
            "source": next(iter(self.fields.get("sources", [])), ""),
            "authors": ", ".join(authors),
        }
        return {prefix + name: text for name, text in made.items() if text.strip()} | own


def may_hold_chart(start: bytes) -> bool:
    """Whether an object that begins like this is a chart: a tar in gzip, with `Chart.yaml` in its only folder."""
    codec = _gzip(start)
    return codec is not None and _begins_with_chart(codec.start(start, _START_BYTES))


def chart_in(
    blob: ObjectRange, find_provenance: Callable[[], ObjectRange | None], reader: ObjectReader
) -> PushRequest | None:
    """The chart in an object, with its provenance if that can be found; `None` if the object is not a chart.

    Raises `BrokenChart` if Helm would not take it, and `BrokenArchive` if it is damaged.
    """
    codec = _gzip(blob.start(MAGIC_BYTES))
    if codec is None:
        return None
    unpacked = Unpacked(blob, codec, reader.deadline, reader.memory)
    if not _begins_with_chart(unpacked.at(0, _START_BYTES)):
        return None
    chart = read_chart(unpacked.at)
    unpacked.finish()
    provenance = find_provenance()
    content = chart.config
    made = MadeBlob(blob, content)
    config = _descriptor(_CONFIG_TYPE, digest_of(content), made)
    blobs: dict[str, Blob] = {config["digest"]: made}
    layers = []
    for media_type, layer in ((_CHART_TYPE, blob), (_PROVENANCE_TYPE, provenance)):
        if layer:
            digest = digest_by_reading(layer, reader.deadline, "the chart's digest")
            blobs[digest] = layer
            layers.append(_descriptor(media_type, digest, layer))
    manifest = chart.manifest(config, layers)
    image = Image(digest_of(manifest), (Reference(chart.tag, below=chart.name),), OCI_MANIFEST)
    return PushRequest(
        blob,
        _ChartSource(image.digest, manifest, blobs),
        (image,),
        archive_name=chart.name,
        has_grown=None if provenance else lambda: find_provenance() is not None,
    )


def read_chart(at: Callable[[int, int], bytes]) -> Chart:
    """The chart in a tar archive, which `at(offset, length)` reads from beginning to end. Raises `BrokenChart`."""
    contents: dict[str, bytes] = {}
    for header in read_headers(at, sys.maxsize):
        if header.offset_data + header.size > _MOST_UNPACKED_BYTES:
            raise BrokenChart(f"the chart has more than {_MOST_UNPACKED_BYTES:,} bytes unpacked, Helm's own limit.")
        _, _, path = _path(header.name).partition("/")
        if header.isreg() and path in (_CHART, _REQUIREMENTS):
            contents[path] = at(header.offset_data, min(header.size, MAX_YAML_BYTES + 1))
    # Only now, as an archive can have a thousand files of the same name. The last one counts.
    documents = {path: read_yaml(content, f"the chart's {path}") for path, content in contents.items()}
    fields = {"apiversion": _DEFAULT_API, **_mapping(documents[_CHART] or {}, "")}
    if _REQUIREMENTS in documents:
        required = _mapping(documents[_REQUIREMENTS] or {}, "")
        fields |= {"dependencies": required["dependencies"]} if "dependencies" in required else {}
    return Chart(_metadata(fields))


class _ChartSource:
    """The parts of one chart, by digest."""

    def __init__(self, digest: str, manifest: bytes, blobs: Mapping[str, Blob]) -> None:
        self._digest = digest
        self._manifest = manifest
        self._blobs = blobs

    def has(self, digest: str) -> bool:
        return digest == self._digest

    def manifest(self, digest: str) -> bytes:
        assert digest == self._digest  # noqa: S101 (the manifest names no other)
        return self._manifest

    def blob(self, digest: str) -> Blob:
        return self._blobs[digest]


def _gzip(start: bytes) -> Codec | None:
    """How to decode gzip, if it is gzip that begins like this."""
    codec = codec_of(start)
    return codec if codec and codec.name == "gzip" else None


def _begins_with_chart(start: bytes) -> bool:
    """Whether a tar archive that begins like this has a `Chart.yaml` in its first folder, before any other folder."""
    first = None
    for header in headers_at_start(start):
        folder, _, path = _path(header.name).partition("/")
        first = first or folder
        if folder != first:
            return False
        if path == _CHART and header.isreg():
            return True
    return False


def _path(name: str) -> str:
    return name.replace("\\", "/")  # packaged on Windows


def _descriptor(media_type: str, digest: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": blob.size}


def _json(value: Any) -> bytes:
    """JSON as Go writes it, so that digests are those of Helm."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for special in "<>&\u2028\u2029":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text.encode()


# What follows is how Helm reads each mapping: its fields in order, and their types.

_Reader = Callable[[Value, str], Any]


def _metadata(fields: dict[str, Value]) -> dict[str, Any]:
    """The fields of Chart.yaml. Raises `BrokenChart` for what Helm refuses."""
    found = _struct(fields, "", {
        "name": _clean_text, "home": _clean_text, "sources": _clean_texts, "version": _text,
        "description": _clean_text, "keywords": _clean_texts, "maintainers": _maintainers, "icon": _clean_text,
        "apiVersion": _text, "condition": _clean_text, "tags": _clean_text, "appVersion": _clean_text,
        "deprecated": _flag, "annotations": _texts_by_name, "kubeVersion": _clean_text,
        "dependencies": _dependencies, "type": _text,
    })  # fmt: skip
    for required in ("name", "version"):
        if required not in found:
            raise BrokenChart(f"the chart's Chart.yaml has no {required}. {_PACKAGE}")
    if "/" in found["name"] or found["name"] in (".", ".."):
        raise BrokenChart(f"the chart's name is {found['name']!r}, and cannot be a path. {_PACKAGE}")
    if not _VERSION.fullmatch(found["version"]):
        raise BrokenChart(
            f"the chart's version is {found['version']!r}, and has to be a semantic version such as 1.2.3. {_PACKAGE}"
        )
    if found.get("type", "application") not in ("application", "library"):
        raise BrokenChart(f"the chart's type is {found['type']!r}, and has to be application or library. {_PACKAGE}")
    return found


def _maintainers(value: Value, where: str) -> list[dict[str, Any]]:
    fields: dict[str, _Reader] = dict.fromkeys(("name", "email", "url"), _clean_text)
    return [_struct(_mapping(item, where), where, fields) for item in _list(value, where)]


def _dependencies(value: Value, where: str) -> list[dict[str, Any]]:
    fields: dict[str, _Reader] = {
        "name": _clean_text, "version": _clean_text, "repository": _clean_text, "condition": _clean_text,
        "tags": _clean_texts, "enabled": _flag, "import-values": _values, "alias": _text,
    }  # fmt: skip
    always = ("name", "repository")
    return [_struct(_mapping(item, where), where, fields, always) for item in _list(value, where)]


def _struct(
    fields: Mapping[str, Value], where: str, readers: Mapping[str, _Reader], always: Sequence[str] = ()
) -> dict[str, Any]:
    """The known fields, in order, without those that are empty, except for some that Helm writes `always`."""
    found = {name: read(fields.get(name.lower()), f"{where} {name}".strip()) for name, read in readers.items()}
    return {name: value for name, value in found.items() if value or name in always}


def _mapping(value: Value, where: str) -> dict[str, Value]:
    """The fields of a mapping. Go does not tell upper from lower case in their names."""
    if not isinstance(value, dict):
        raise _wrong(where, "a mapping")
    return {name.lower(): value[name] for name in sorted(value)}


def _list(value: Value, where: str) -> list[Value]:
    if not isinstance(value, list | None):
        raise _wrong(where, "a list")
    return value or []


def _text(value: Value, where: str) -> str:
    if isinstance(value, list | dict):
        raise _wrong(where, "text")
    return as_text(value)


def _clean_text(value: Value, where: str) -> str:
    """Text as Helm cleans it: every space is a plain one, and what cannot be printed is left out."""
    spaced = ("\x20" if _SPACE.fullmatch(character) else character for character in _text(value, where))
    return "".join(character for character in spaced if character.isprintable())


def _clean_texts(value: Value, where: str) -> list[str]:
    return [_clean_text(item, where) for item in _list(value, where)]


def _texts_by_name(value: Value, where: str) -> dict[str, str]:
    if not isinstance(value, dict | None):
        raise _wrong(where, "a mapping")
    return {name: _text(text, where) for name, text in sorted((value or {}).items())}


def _flag(value: Value, where: str) -> bool:
    if not isinstance(value, bool | None):
        raise _wrong(where, "true or false")
    return bool(value)


def _values(value: Value, where: str) -> list[Any]:
    return [_plain(item) for item in _list(value, where)]


def _plain(value: Value) -> Any:
    """A value of any kind as Go keeps it: mappings sorted, and every number with 64 bits."""
    match value:
        case dict():
            return {name: _plain(value[name]) for name in sorted(value)}
        case list():
            return [_plain(item) for item in value]
        case float() if math.isfinite(value) and value.is_integer() and abs(value) < _EXPONENT_FROM:
            return int(value)
    return value


def _wrong(where: str, wanted: str) -> BrokenChart:
    field = f"{where} in its Chart.yaml" if where else "Chart.yaml"
    return BrokenChart(f"the chart's {field} has to be {wanted}. {_PACKAGE}")
