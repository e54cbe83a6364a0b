"""What one image may cost: each limit is a ``COPPICE_LIMIT_*`` setting, and a rule's name."""

from __future__ import annotations

from dataclasses import dataclass

from templates_app.errors import CoppiceError, TreeRefused

MAX_NAME = 4096  # bytes of a whole path, and of a link's target (Linux's PATH_MAX)
MAX_COMPONENT = 255  # bytes of one name in a path (NAME_MAX)
MAX_DEPTH = 255  # components of a path
MAX_PAX = 1024 * 1024  # bytes of one extended header
MAX_PAX_RECORDS = 256
MAX_XATTR = 64 * 1024  # bytes of one extended attribute's value
MAX_XATTRS = 64 * 1024  # bytes of all extended attributes of one entry, names included


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one image, over all its layers. Sizes are bytes."""

    entries: int = 2_000_000  # in the tree at any moment, and in all layers together ten times that
    tree_bytes: int = 256 * 2**30  # contents of regular files that are written, over all layers
    file_bytes: int = 64 * 2**30  # of one regular file
    ratio: int = 200  # uncompressed bytes of a layer for each compressed one
    seconds: int = 3600  # of a layer, from its first byte to its last
    memory_bytes: int = 4 * 2**30  # of one of the engine's processes

    @property
    def manifest_bytes(self) -> int:
        """Of the tree's manifest, which the server holds, now and then with a copy."""
        return self.memory_bytes // 8


def refused(rule: str, path: bytes, what: str) -> CoppiceError:
    """The image may not be imported: ``what`` goes on after the path, ``rule`` names the rule."""
    where = shown(path)
    return TreeRefused(f"{where} {what}.", extra={"path": where, "rule": rule})


def shown(path: bytes) -> str:
    """A path as messages and findings show it: printable ASCII, at most 200 bytes of it."""
    text = path[:200].decode("ascii", "backslashreplace")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return (text or "(no name)") + ("…" if len(path) > 200 else "")
