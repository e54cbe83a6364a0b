"""Layers as data: what their archives have, the archives' bytes, and trees as lines of text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.native.archives import END, header, padded, pax


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive. ``kind`` is tar's type: 0 file, 1 hard link, 2 symlink …"""

    kind: bytes
    name: bytes
    content: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000  # seconds
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: bytes = b""
    major: int = 0
    minor: int = 0


Layer = tuple[Member, ...]


def file(name: bytes, content: bytes = b"", mode: int = 0o644, **rest: object) -> Member:
    return Member(b"0", name, content=content, mode=mode, **rest)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **rest: object) -> Member:
    return Member(b"5", name, mode=mode, **rest)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **rest: object) -> Member:
    return Member(b"2", name, target=target, mode=0o777, **rest)  # type: ignore[arg-type]


def hardlink(name: bytes, target: bytes, **rest: object) -> Member:
    return Member(b"1", name, target=target, **rest)  # type: ignore[arg-type]


def fifo(name: bytes, mode: int = 0o600) -> Member:
    return Member(b"6", name, mode=mode)


def device(name: bytes, kind: bytes = b"3", major: int = 1, minor: int = 3) -> Member:
    return Member(kind, name, mode=0o666, major=major, minor=minor)


def archive(members: Iterable[Member]) -> bytes:
    """A pax archive, byte by byte: names and targets may be what no archiver writes."""
    return b"".join(map(_archived, members)) + END


def _archived(member: Member) -> bytes:
    records = [(b"SCHILY.xattr." + name, value) for name, value in member.xattrs]
    if member.flags:
        records.append((b"SCHILY.fflags", member.flags))
    fields = {"name": member.name, "link": member.target}
    for field, key in (("name", b"path"), ("link", b"linkpath")):
        if len(fields[field]) > 100:
            records.append((key, fields[field]))
            fields[field] = b"long"
    numbers = {}
    for name in ("mode", "uid", "gid", "major", "minor"):
        number = getattr(member, name)
        if number >= 8**7:
            records.append((name.encode(), b"%d" % number))
            number = 0
        numbers[name] = b"%07o\0" % number
    mtime = b"%011o\0" % member.mtime
    block = header(kind=member.kind, size=len(member.content), mtime=mtime, **fields, **numbers)
    return (pax(*records) if records else b"") + block + padded(member.content)


# --- trees as text -------------------------------------------------------------------------------

_LINE = re.compile(
    rb"(?P<path>\S+) type=(?P<type>\w+)(?: mode=(?P<mode>\d+))? uid=(?P<uid>\d+) gid=(?P<gid>\d+)"
    rb"(?: size=\d+ sha256=(?P<sha256>\w+))?(?: link=(?P<link>\S*))?"
)
_USUAL = {b"file": b"0644", b"dir": b"0755", b"fifo": b"0600", b"char": b"0666", b"block": b"0666"}


def lines(manifest: bytes, layers: Iterable[Layer]) -> tuple[str, ...]:
    """The tree of a manifest, a line for each path, in its order and with its escapes::

        bin/             a directory         bin/sh -> dash     a symlink
        bin/dash =text   a file              bin/bash =text (bin/dash)   another name of it
        pipe fifo        what is special     etc/ 0700 5:6 user.x        mode, owner, attributes

    Mode and owner are left out where they are the usual ones; the root if it is as usual.
    """
    members = [member for layer in layers for member in layer]
    contents = {hashlib.sha256(one.content).hexdigest(): one.content for one in members}
    return tuple(_described(manifest, contents))


def _described(manifest: bytes, contents: dict[str, bytes]) -> Iterator[str]:
    said = ""
    for line in manifest.splitlines()[1:]:
        if line.startswith(b"# hardlink "):
            said += f" ({line.split()[2].decode().removeprefix('./')})"
            continue
        if line.startswith(b"#"):
            said += f" {line.split()[2].decode()}"
            continue
        if said not in ("", "./"):
            yield said
        found = _LINE.fullmatch(line)
        assert found, line
        path = found["path"].decode().removeprefix("./")
        kind = found["type"]
        if kind == b"dir":
            said = path + "/"
        elif kind == b"file":
            said = f"{path} ={contents[found['sha256'].decode()].decode()}"
        elif kind == b"link":
            said = f"{path} -> {found['link'].decode()}"
        else:
            said = f"{path} {kind.decode()}"
        if kind != b"link" and found["mode"] != _USUAL[kind]:
            said += f" {found['mode'].decode()}"
        if (found["uid"], found["gid"]) != (b"0", b"0"):
            said += f" {found['uid'].decode()}:{found['gid'].decode()}"
    if said not in ("", "./"):
        yield said
