"""One entry of a layer's archive: what the reader gives to the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What an entry, or a node of the tree, is. HARDLINK is an entry's kind only."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    HARDLINK = 4
    CHARACTER = 5
    BLOCK = 6
    FIFO = 7


@dataclass(slots=True)
class Entry:
    """As the archive has it, its grammar checked and nothing else: names are what they are.

    ``name`` and ``target`` (of a link) are bytes as written, extended headers applied: 1 to 4096
    of them, none of them null. Numbers are in a system's range. ``xattrs`` are those
    that count (``security.capability``, ``user.*``), sorted by name; ``flags`` are FreeBSD's file
    flags, words of chflags(1) in bytewise order. ``size`` is 0 for all but a regular file.
    """

    kind: Kind
    name: bytes
    target: bytes = b""
    mode: int = 0o644  # permission, set-id and sticky bits
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: tuple[bytes, ...] = ()
    major: int = 0
    minor: int = 0
