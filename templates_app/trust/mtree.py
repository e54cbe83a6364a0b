"""The lines of a tree manifest, written and read: docs/reference/tree-manifest.md in code.

A line is a path, a blank and a *description*: keywords, the line's end, and the comment lines that
belong to the path. Descriptions say nothing of the path, so whoever knows one can keep it as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

FIRST_LINE = b"#mtree v2.0\n"
HARDLINK = b"# hardlink "
_ODD_BYTE = re.compile(rb"[^!-~]|[\\#=*?\[\]]")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def escape(text: bytes) -> bytes:
    """A path or link target as the manifest has it: ``\\ooo`` for what mtree(5) would misread."""
    return _ODD_BYTE.sub(lambda odd: b"\\%03o" % odd[0][0], text)


def unescape(text: bytes) -> bytes:
    """The other way round."""
    return _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), text) if b"\\" in text else text


def mode_and_owner(mode: int, uid: int, gid: int) -> bytes:
    return b"mode=%04o uid=%d gid=%d" % (mode, uid, gid)


def file(who: bytes, size: int, sha256: bytes, comments: bytes = b"") -> bytes:
    """``who`` is :func:`mode_and_owner`, ``sha256`` in hex digits."""
    return b"type=file %s size=%d sha256=%s\n%s" % (who, size, sha256, comments)


def directory(who: bytes, comments: bytes = b"") -> bytes:
    return b"type=dir %s\n%s" % (who, comments)


def link(uid: int, gid: int, target: bytes) -> bytes:
    """A link's mode means nothing, and is not the same on every system."""
    return b"type=link uid=%d gid=%d link=%s\n" % (uid, gid, escape(target))


def special(word: bytes, who: bytes) -> bytes:
    """``word`` is fifo, char or block."""
    return b"type=%s %s\n" % (word, who)


def comments(xattrs: Iterable[tuple[bytes, bytes]], flags: Sequence[bytes]) -> bytes:
    """What mtree has no keyword for; both in bytewise order (of names, of words)."""
    lines = [
        b"# xattr %s sha256=%s\n" % (escape(name), hashlib.sha256(value).hexdigest().encode())
        for name, value in xattrs
    ]
    if flags:
        lines.append(b"# flags %s\n" % b",".join(flags))
    return b"".join(lines)


def hardlink(first: bytes) -> bytes:
    """The last comment of a file's further names; ``first`` is its bytewise first, escaped."""
    return HARDLINK + first + b"\n"


def target_in(description: bytes) -> bytes | None:
    """The target that a link's description says; None for all else."""
    if not description.startswith(b"type=link "):
        return None
    return unescape(description[description.index(b" link=") + 6 : -1])
