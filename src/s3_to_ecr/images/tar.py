"""Tar archives of which only the headers are read. Each member is a range of the object, or of what is packed in it.

An image archive is recognised by its members' names. So the first few members are enough to recognise an ordinary
layer, which may have a hundred thousand of them (ADR 9). Python's `tarfile` parses one header. Going from one to the
next is our own code, because the library keeps all headers, recurses, and believes every length that it reads.
"""

from __future__ import annotations

import posixpath
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from s3_to_ecr.aws.s3 import ObjectRange
from s3_to_ecr.blobs import BlobRange
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.errors import BrokenArchive, UnsupportedArchive
from s3_to_ecr.images.compression import MAGIC_BYTES, codec_of, needs_dictionary
from s3_to_ecr.images.manifests import HEX
from s3_to_ecr.images.tar_headers import LAYER_INSTEAD, headers_at_start, read_headers
from s3_to_ecr.images.unpacked import Unpacked

# How much is fetched at a time: a header and what follows it. `docker save` writes small files between the layers.
WINDOW_BYTES = 64 * 1024

# How much of a compressed archive is unpacked to see what it is, and how often if it is compressed more than once.
_START_BYTES = 256 * 1024
_MOST_TIMES_PACKED = 2

# Members of an image archive, by path: those of an OCI layout, of every version of `docker save`, and of what skopeo,
# podman, crane, kaniko, jib and Bazel write. A layer hardly ever has them.
_OF_AN_IMAGE = re.compile(
    rf"blobs(?:/sha256(?:/{HEX})?)?|(?:sha256:)?{HEX}(?:/.*|\.json|\.tar|\.tar\.gz)?|oci-layout"
    r"|[^/]+/layer\.tar",
    re.DOTALL,
)
_BLOBS = "blobs"  # a folder that an application may have, too

# Members of an archive whose layout is in a folder. They say less, because a layer may have them, too. A package of
# Zarf has other archives before its images. Some of them are reason enough to read on.
_IN_A_FOLDER = re.compile(rf"[^/]+/(?:index\.json|oci-layout|blobs(?:/sha256(?:/{HEX})?)?)|components/[^/]+\.tar")
_PROBABLE = re.compile(rf"[^/]+/(?:oci-layout|blobs/sha256/{HEX})|components/[^/]+\.tar")
_DESCRIPTIONS = {"manifest.json", "index.json"}

# If so many members in other folders, or so many in all, come before the first of those, the archive is a layer.
_MOST_FOREIGN = 20
_MOST_UNKNOWN = 100
_MOST_MEMBERS = 20_000
_MOST_LINKS = 16

# The names of all members and the targets of links, which are kept in memory: 200 characters each.
_MOST_NAME_CHARACTERS = 4 * 1024 * 1024

# How much of each member is looked at.
_MEMBER_MAGIC_BYTES = 4


@dataclass(frozen=True)
class Member:
    """A file of `size` bytes at `offset`, which begins with `magic`; or else a link to the path `target`."""

    offset: int
    size: int
    magic: bytes
    target: str | None = None


class Archive:
    """The members of an archive, by path. `is_of_images`: their names show beyond doubt that it is an image archive.

    It is `seekable` if its members can be read in any order, for which `held_bytes` are in memory.
    """

    def __init__(self, blob: BlobRange) -> None:
        self.is_of_images = False
        self.seekable = blob.seekable
        self.held_bytes = 0
        self._blob = blob
        self._members: dict[str, Member] = {}
        self._outside: str | None = None
        self._name_characters = 0

    def add(self, path: str, member: Member | None) -> None:
        """Takes a member and its path in the archive; `None` for a member that is neither file nor link.

        Raises `BrokenArchive` if the archive's names are too long.
        """
        self._name_characters += len(path)
        if member and member.target:
            self._name_characters += len(member.target)
        if self._name_characters > _MOST_NAME_CHARACTERS:
            raise BrokenArchive(
                f"the names of the archive's members have more than {_MOST_NAME_CHARACTERS:,} characters in all."
            )
        if _leads_out(path):
            self._outside = self._outside or path
        elif member:
            self._members[posixpath.normpath(path)] = member

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def check(self) -> None:
        """Raises `BrokenArchive` if a member is outside the archive, or a link leads out of it."""
        if self._outside is not None:
            raise BrokenArchive(f"the archive has a member outside itself, {self._outside!r}.")
        for path, member in self._members.items():
            if member.target is not None and _leads_out(member.target):
                raise BrokenArchive(f"the archive's member {path!r} is a link out of it, to {member.target!r}.")

    def file(self, path: str) -> BlobRange | None:
        """The file at a path, following links within the archive; `None` if there is none. Raises `BrokenArchive`."""
        member = self._follow(path)
        return self._blob.within(member.offset, member.size) if member else None

    def magic(self, path: str) -> bytes:
        """The first bytes of the file at a path."""
        member = self._follow(path)
        return member.magic if member else b""

    def _follow(self, path: str) -> Member | None:
        if _leads_out(path):
            raise BrokenArchive(f"the archive names {path!r}, outside itself.")
        path = posixpath.normpath(path)
        for _ in range(_MOST_LINKS):
            member = self._members.get(path)
            if member is None or member.target is None:
                return member
            path = member.target
        raise BrokenArchive(f"the archive's links form a circle at {path!r}.")


def may_hold_images(start: bytes) -> bool:
    """Whether an object that begins like this is worth reading on, because it is probably an image archive.

    Compressed data are unpacked. What nobody could unpack counts as an archive, so that somebody says so.
    """
    for _ in range(_MOST_TIMES_PACKED):
        if needs_dictionary(start):
            return True
        if codec := codec_of(start):
            start = codec.start(start, _START_BYTES)
    kind = _Kind()
    for header in headers_at_start(start):
        if kind.is_a_layer(header):
            return False
        if kind.is_probable:
            return True
    return False


def read_archive(blob: ObjectRange, deadline: Deadline, memory: int, *, is_tar: bool = True) -> Archive | None:
    """The tar archive in an object, compressed or not; `None` if it turns out to be a layer.

    `memory` is the function's, in bytes. Raises `BrokenArchive` if it is not a tar archive though it has to be, or is
    truncated, and `UnsupportedArchive` if it is an image archive that cannot be read.
    """
    window = _Window(blob, deadline)
    codec = codec_of(window.at(0, MAGIC_BYTES))
    known = is_tar and not codec
    if not known and not may_hold_images(window.at(0, codec.start_bytes if codec else WINDOW_BYTES)):
        return None
    if codec is None:
        return _read_members(Archive(blob), window, blob.size)
    unpacked = Unpacked(blob, codec, deadline, memory)
    if again := codec_of(unpacked.at(0, MAGIC_BYTES)):
        raise UnsupportedArchive(
            f"the archive is compressed twice, with {again.name} and then {codec.name}. Decompress it once."
        )
    archive = _read_members(Archive(unpacked.content), unpacked, sys.maxsize)
    if archive:
        unpacked.finish()
        archive.held_bytes = unpacked.held_bytes
    return archive


def _read_members(archive: Archive, headers: _Headers, size: int) -> Archive | None:
    """Adds the members to the archive, of which `size` bytes may be read; `None` if it turns out to be a layer."""
    kind = _Kind()
    for number, header in enumerate(read_headers(headers.at, size), 1):
        if _is_sparse(header):
            if kind.is_of_images:
                raise UnsupportedArchive(
                    f"the archive has sparse members, such as {header.name!r}: pack it without -S."
                )
            return None
        if kind.is_a_layer(header):
            return None
        if number > _MOST_MEMBERS:
            if _DESCRIPTIONS.isdisjoint(archive):
                return None
            raise BrokenArchive(f"the archive has more than {_MOST_MEMBERS:,} members. {LAYER_INSTEAD}")
        archive.add(header.name, _member(header, headers))
    archive.is_of_images = kind.is_of_images
    return archive


class _Kind:
    """What kind of archive it is, as far as the names of the members so far tell."""

    def __init__(self) -> None:
        self.is_of_images = self.is_probable = False
        self._unknown = self._foreign = 0

    def is_a_layer(self, header: tarfile.TarInfo) -> bool:
        """Takes the next member. Says whether the archive is already known not to be an image archive."""
        path = posixpath.normpath(header.name)
        if _OF_AN_IMAGE.fullmatch(path):
            self.is_of_images = self.is_of_images or path != _BLOBS
            self.is_probable = self.is_probable or self.is_of_images
        elif _IN_A_FOLDER.fullmatch(path):
            self.is_probable = self.is_probable or _PROBABLE.fullmatch(path) is not None
        elif path not in _DESCRIPTIONS:
            self._unknown += 1
            self._foreign += "/" in path or (header.isdir() and path != ".")
        return not self.is_of_images and (self._foreign > _MOST_FOREIGN or self._unknown > _MOST_UNKNOWN)


def _member(header: tarfile.TarInfo, headers: _Headers) -> Member | None:
    if header.issym():
        target = posixpath.join(posixpath.dirname(posixpath.normpath(header.name)), header.linkname)
        return Member(0, 0, b"", posixpath.normpath(target))
    if header.islnk():
        return Member(0, 0, b"", posixpath.normpath(header.linkname))
    if not header.isreg():
        return None
    magic = headers.member(header.offset_data, header.size, _MEMBER_MAGIC_BYTES)
    return Member(header.offset_data, header.size, magic)


def _is_sparse(header: tarfile.TarInfo) -> bool:
    """Whether the member's data are not its bytes as they are. Image archives have no such members."""
    return header.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse.") for name in header.pax_headers)


def _leads_out(path: str) -> bool:
    """Whether a path, starting at the archive's root, is outside the archive."""
    return path.startswith("/") or posixpath.normpath(path).split("/")[0] == ".."


class _Headers(Protocol):
    """Where the headers of an archive are read, from the first to the last."""

    def at(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset` on, or fewer at the end."""
        ...

    def member(self, offset: int, size: int, magic_bytes: int) -> bytes:
        """The first bytes of a file of `size` bytes, which begins at `offset`."""
        ...


class _Window:
    """A blob seen through a window that moves over it, never past its end."""

    def __init__(self, blob: ObjectRange, deadline: Deadline) -> None:
        self._blob = blob
        self._deadline = deadline
        self._start = 0
        self._bytes = b""

    def at(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset` on, or fewer at the end."""
        end = min(offset + length, self._blob.size)
        if end <= offset:
            return b""
        if not self._start <= offset <= end <= self._start + len(self._bytes):
            self._deadline.require("the archive's members")
            fetched = min(max(length, WINDOW_BYTES), self._blob.size - offset)
            self._start, self._bytes = offset, b"".join(self._blob.read(offset, fetched))
        return self._bytes[offset - self._start : end - self._start]

    def member(self, offset: int, size: int, magic_bytes: int) -> bytes:
        """The first bytes of a file of `size` bytes, which begins at `offset`."""
        return self.at(offset, min(size, magic_bytes))
