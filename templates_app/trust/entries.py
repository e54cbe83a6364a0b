"""A tree manifest read back: its entries one by one, those that a pattern means, a page of them.

Paths are in the manifest's own spelling (``./usr/bin/env``, the root ``.``): one spelling, ASCII,
which mtree(8) prints too and which cannot steer a terminal.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from templates_app.trust import mtree

SET_ID = 0o6000  # set-user-id and set-group-id
DEVICES = ("char", "block")


class NotAManifest(ValueError):  # noqa: N818 # the end of a sentence
    """What is no tree manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path. What its type has no keyword for is None, or empty."""

    path: str
    type: str  # file, dir, link, fifo, char, block
    mode: int | None  # permission bits with set-id and sticky; none of a link
    uid: int
    gid: int
    size: int | None = None  # bytes of a file
    sha256: str | None = None  # of a file: hex digits
    link: str | None = None  # a link's target, escaped as paths are
    xattrs: tuple[tuple[str, str], ...] = ()  # (name, sha256 of the value)
    flags: str = ""  # words of chflags(1)
    hardlink: str = ""  # the first name of the same file, where this is a further one

    @property
    def set_id(self) -> bool:
        return self.type == "file" and bool((self.mode or 0) & SET_ID)


def blocks(manifest: bytes, *, after: str = "") -> Iterator[bytes]:
    """Each path's line with its comments, in order; those behind the path ``after`` if given.

    NotAManifest, also where there is no such path.
    """
    if not manifest.startswith(mtree.FIRST_LINE) or not manifest.endswith(b"\n"):
        raise NotAManifest("it does not begin and end as one")
    at = len(mtree.FIRST_LINE)
    if after:
        found = manifest.find(b"\n" + after.encode("ascii", "replace") + b" ", at - 1)
        if found < 0:
            raise NotAManifest(f"it has no path {after[:200]}")
        at = _next(manifest, found + 1)
    while at < len(manifest):
        end = _next(manifest, at)
        yield manifest[at:end]
        at = end


def _next(manifest: bytes, at: int) -> int:
    # Comment lines begin with "#", so that this is where the next path's line begins.
    end = manifest.find(b"\n./", at)
    return len(manifest) if end < 0 else end + 1


def path_of(block: bytes) -> bytes:
    """The path of a block, unescaped: what the order of blocks is by."""
    return mtree.unescape(block[: block.find(b" ")])


def read(block: bytes) -> Entry:
    """NotAManifest for a block that :mod:`templates_app.trust.mtree` would not write."""
    try:
        line, *comments = block.decode("ascii").removesuffix("\n").split("\n")
        path, *words = line.split(" ")
        known = dict(word.split("=", 1) for word in words)
        xattrs, flags, hardlink = [], "", ""
        for comment in comments:
            kind, value, *rest = comment.removeprefix("# ").split(" ")
            if kind == "xattr":
                xattrs.append((value, rest[0].removeprefix("sha256=")))
            elif kind == "flags":
                flags = value
            elif kind == "hardlink":
                hardlink = value
            else:
                raise NotAManifest(f"it has a comment of the kind {kind[:40]}")
        return Entry(
            path=path,
            type=known["type"],
            mode=int(known["mode"], 8) if "mode" in known else None,
            uid=int(known["uid"]),
            gid=int(known["gid"]),
            size=int(known["size"]) if "size" in known else None,
            sha256=known.get("sha256"),
            link=known.get("link"),
            xattrs=tuple(xattrs),
            flags=flags,
            hardlink=hardlink,
        )
    except (IndexError, KeyError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, NotAManifest):
            raise
        raise NotAManifest(f"it has the line {ascii(block[:200])[2:-1]}") from None


def matching(pattern: str) -> Callable[[bytes], bool]:
    """Whether a block's path is meant, as find(1) takes patterns.

    ``*``, ``?`` and ``[…]``; a star matches slashes too. A pattern without a slash is held against
    the last name, one with a slash against the whole path, which may begin with ``./`` or ``/``.
    """
    pattern = pattern.removeprefix(".").lstrip("/") if "/" in pattern else f"*/{pattern}"
    # Python's translation of stars does not backtrack, however many there are.
    spelled = pattern.encode().decode("latin-1")  # names are bytes: one character for each
    wanted = re.compile(fnmatch.translate(spelled).encode("latin-1"))
    anywhere = pattern.startswith("*/")

    def matches(block: bytes) -> bool:
        path = path_of(block).removeprefix(b".").removeprefix(b"/")
        return bool(wanted.match(b"/" + path if anywhere else path))

    return matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    entries: tuple[Entry, ...]
    after: str | None  # where the next page begins; None: these were the last


def page(manifest: bytes, *, pattern: str, after: str, limit: int) -> Page:
    """At most ``limit`` entries behind the path ``after``. NotAManifest."""
    wanted = matching(pattern) if pattern else lambda _block: True
    found: list[Entry] = []
    for block in blocks(manifest, after=after):
        if wanted(block):
            if len(found) == limit:
                return Page(entries=tuple(found), after=found[-1].path if found else after)
            found.append(read(block))
    return Page(entries=tuple(found), after=None)
