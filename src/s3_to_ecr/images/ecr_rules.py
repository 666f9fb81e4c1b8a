"""What ECR refuses of a manifest that is otherwise right: its PutImage answers InvalidParameterException.

AWS documents none of this. The sources are public reports of pushes to ECR, by repository and issue. A rule that
several reports agree on rejects the manifest before any layer is sent. Anything less certain is a doubt: the manifest
is pushed, and if ECR refuses it, the doubt is part of the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from s3_to_ecr.media_types import OCI_ARTIFACT

# openai/tart#890, spinframework/spin#1787; measured in nuonco/nuon#2348.
_MOST_LAYERS = 500

_BUILDKIT_ATTESTATION = "application/vnd.docker.attestation.manifest.v1+json"


def refusal(manifest: Mapping[str, Any], media_type: str) -> str | None:
    """Why ECR refuses the manifest, and what to do; `None` if no rule is known by which it would."""
    layers = manifest.get("layers") or []
    if len(layers) > _MOST_LAYERS:
        return f"it has {len(layers):,} layers, and ECR accepts {_MOST_LAYERS}. Merge some, as `crane flatten` does."
    # werf/werf#2544, opencontainers/image-spec#1025, aws/containers-roadmap#876: all older than artifacts in ECR.
    if _lacks_layers(manifest) and not _is_artifact(manifest):
        return "it has no layers, and ECR requires one. Add one, even if it has no files."
    # aws/containers-roadmap#2306, sigstore/sigstore-js#1058, github-early-access/generate-build-provenance#99.
    for kind in _media_types(manifest, media_type):
        if ";" in kind:
            return f"it has the media type {kind!r}, and ECR accepts none with a semicolon. Leave out its parameters."
    # aws/containers-roadmap#308, falcosecurity/falcoctl#310, goharbor/acceleration-service#353.
    if (manifest.get("config") or {}).get("annotations"):
        return "its config has annotations, and ECR accepts none there. Remove them."
    return None


def doubts(manifest: Mapping[str, Any], media_type: str) -> tuple[str, ...]:
    """Why ECR may refuse the manifest, as clauses."""
    found = []
    kind, subject = manifest.get("artifactType"), manifest.get("subject")
    if _lacks_layers(manifest) and _is_artifact(manifest):
        found.append("it has no layers")
    # moby/buildkit#5747, moby/buildkit#6171. Nobody knows the cause, and BuildKit means to make this its default.
    if kind == _BUILDKIT_ATTESTATION:
        found.append("it is an attestation as an OCI artifact; build the image with `oci-artifact=false`")
    # aws/containers-roadmap#2783.
    if isinstance(kind, str) and "spdx" in kind and subject:
        found.append("it is an SPDX document that refers to an image by its `subject`")
    # OCI 1.1, which ECR documents, was released without this kind.
    if media_type == OCI_ARTIFACT:
        found.append("it is an artifact manifest, which OCI 1.1 does not have; write an image manifest")
    # Reported of manifests only, and not of what an index says about them.
    named = [*(manifest.get("manifests") or []), *([subject] if subject else [])]
    kinds = [entry.get(member) for entry in named for member in ("mediaType", "artifactType")]
    if any(isinstance(kind, str) and ";" in kind for kind in kinds):
        found.append("it names a media type with a semicolon")
    return tuple(found)


def _lacks_layers(manifest: Mapping[str, Any]) -> bool:
    return not manifest.get("layers") and not {"manifests", "blobs"} & manifest.keys()


def _is_artifact(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest.get("subject") or manifest.get("artifactType"))


def _media_types(manifest: Mapping[str, Any], media_type: str) -> Iterator[str]:
    """The media types of a manifest, and of the blobs that it names."""
    blobs = [manifest.get("config") or {}, *(manifest.get("layers") or [])]
    for kind in (media_type, manifest.get("artifactType"), *(blob.get("mediaType") for blob in blobs)):
        if isinstance(kind, str):
            yield kind
