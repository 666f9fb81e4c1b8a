"""Members of tar archives, byte by byte: also such as no tool writes."""

from __future__ import annotations

import tarfile


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """The header of a member, whatever follows it."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, target
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogatepass")


def member(name: str, content: bytes) -> bytes:
    """A file: its header, then its content in blocks."""
    return header(name, len(content)) + content + bytes(-len(content) % 512)
