"""References, by which images are named, such as `docker.io/team/app:1.0`: their parts, and what a tag may be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_to_ecr.errors import InvalidTag

# OCI distribution spec, "Pulling manifests": what a tag may be.
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# crane's placeholder for the tag of an image that was pulled by its digest.
_NO_TAG = "i-was-a-digest"

_DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Reference:
    """What an archive, a layout or a key calls an image. `name` is the repository with its host, if it was given.

    A chart's repository is `below` the folder in which the chart lies.
    """

    tag: str | None
    name: str | None = None
    below: str | None = None


def parse_reference(text: str) -> Reference:
    """Reads a full reference, which names the repository first: `docker.io/team/app:1.0@sha256:…`."""
    named = text.partition("@")[0]
    folder, slash, last = named.rpartition("/")
    base, _, tag = last.partition(":")
    return Reference(tag if tag not in ("", _NO_TAG) else None, folder + slash + base or None)


def repository_path(name: str, *, keep_host: bool) -> str:
    """The repository that a reference's `name` stands for, by Docker's rules: `nginx` is `library/nginx`.

    The host is dropped; or it is kept, without its port.
    """
    host, slash, path = name.partition("/")
    if not slash or not (host == "localhost" or "." in host or ":" in host):
        host, path = "", name
    elif host == f"index.{_DOCKER_HUB}":
        host = _DOCKER_HUB
    if host in ("", _DOCKER_HUB) and "/" not in path:
        path = f"library/{path}"
    return f"{host.partition(':')[0]}/{path}" if host and keep_host else path


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str) -> None:
    """Raises `InvalidTag` before ECR does."""
    if not is_tag(tag):
        raise InvalidTag(
            f"{tag!r} is not a valid tag: it takes up to 128 letters, digits and any of _ . -, and does not begin with "
            ". or -. Rename the object, or tag the image anew."
        )
