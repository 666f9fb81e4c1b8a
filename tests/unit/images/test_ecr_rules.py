"""What ECR is known to refuse of a manifest, and what it may refuse."""

from __future__ import annotations

from typing import Any

import pytest

from s3_to_ecr.images.ecr_rules import doubts, refusal
from s3_to_ecr.media_types import OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST

LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + "0" * 64}
BUNDLE = "application/vnd.dev.sigstore.bundle+json;version=0.2"
BUILDKIT = "application/vnd.docker.attestation.manifest.v1+json"
SUBJECT = {"mediaType": OCI_MANIFEST, "digest": LAYER["digest"]}
TITLE = {"org.opencontainers.image.title": "config.json"}


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"layers": [LAYER] * 501}, "501 layers"),
        ({"layers": []}, "no layers"),
        ({"config": LAYER}, "no layers"),
        ({"artifactType": BUNDLE, "layers": [LAYER]}, f"'{BUNDLE}'"),
        ({"layers": [LAYER, LAYER | {"mediaType": BUNDLE}]}, f"'{BUNDLE}'"),
        ({"config": LAYER | {"mediaType": BUNDLE}, "layers": [LAYER]}, f"'{BUNDLE}'"),
        ({"config": LAYER | {"annotations": TITLE}, "layers": [LAYER]}, "config has annotations"),
    ],
)
def test_what_several_reports_agree_on_is_refused(manifest: dict[str, Any], reason: str) -> None:
    assert reason in str(refusal(manifest, OCI_MANIFEST))


def test_a_manifest_with_parameters_in_its_own_media_type_is_refused() -> None:
    assert "semicolon" in str(refusal({"layers": [LAYER]}, f"{OCI_MANIFEST};v=1"))


@pytest.mark.parametrize(
    ("manifest", "media_type", "doubt"),
    [
        ({"layers": [], "subject": SUBJECT}, OCI_MANIFEST, "no layers"),
        ({"layers": [], "artifactType": "application/x"}, OCI_MANIFEST, "no layers"),
        ({"layers": [LAYER], "artifactType": BUILDKIT, "subject": SUBJECT}, OCI_MANIFEST, "oci-artifact=false"),
        ({"layers": [LAYER], "artifactType": "application/spdx+json", "subject": SUBJECT}, OCI_MANIFEST, "SPDX"),
        ({"blobs": [LAYER]}, OCI_ARTIFACT, "OCI 1.1"),
        ({"manifests": [SUBJECT | {"artifactType": BUNDLE}]}, OCI_INDEX, "semicolon"),
        ({"layers": [LAYER], "subject": SUBJECT | {"mediaType": BUNDLE}}, OCI_MANIFEST, "semicolon"),
    ],
)
def test_what_is_less_certain_is_a_doubt(manifest: dict[str, Any], media_type: str, doubt: str) -> None:
    assert refusal(manifest, media_type) is None
    [found] = doubts(manifest, media_type)
    assert doubt in found


@pytest.mark.parametrize(
    ("manifest", "media_type"),
    [
        ({"config": LAYER, "layers": [LAYER] * 500}, OCI_MANIFEST),
        ({"config": LAYER | {"annotations": {}}, "layers": [LAYER | {"annotations": TITLE}]}, OCI_MANIFEST),
        ({"manifests": []}, OCI_INDEX),
        ({"manifests": [SUBJECT], "artifactType": "application/x"}, OCI_INDEX),
        ({"layers": [LAYER], "artifactType": "application/x", "subject": SUBJECT}, OCI_MANIFEST),
        ({"layers": [LAYER], "artifactType": "application/spdx+json"}, OCI_MANIFEST),
    ],
)
def test_ordinary_manifests_raise_no_doubt(manifest: dict[str, Any], media_type: str) -> None:
    assert refusal(manifest, media_type) is None
    assert doubts(manifest, media_type) == ()
