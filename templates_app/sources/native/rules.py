"""What a tree of names must be: the rules that the model holds, and each one's name.

The rules of the archives themselves are in :mod:`grammar`. docs/reference/layers.md has both.
"""

from __future__ import annotations

from templates_app.errors import CoppiceError
from templates_app.sources.native.limits import MAX_COMPONENT, MAX_DEPTH, MAX_NAME, refused

MAX_TARGET = MAX_NAME - 1  # bytes of a symlink's target: PATH_MAX counts the byte that ends it
MAX_HOPS = 40  # symlinks that are followed for one name, as in Linux
#: Components that are looked up for one name. A target has 2,000 of them at the most, so 40 make an
#: entry of 512 bytes cost milliseconds; what is meant to be found is not as deep.
MAX_STEPS = 4096

#: What goes on after the entry's name.
RULES = {
    "component-length": f"has a name of more than {MAX_COMPONENT} bytes in its path",
    "depth": f"is deeper than {MAX_DEPTH} levels",
    "duplicate": "comes twice in one layer",
    "entries": "is one entry more than COPPICE_LIMIT_ENTRIES allows",
    "hard-link": "is a hard link to what is not there, to a directory, or to itself",
    "manifest-bytes": "has a manifest larger than an eighth of COPPICE_LIMIT_MEMORY_BYTES",
    "name-dots": "ends with `..`",
    "no-directory": "is no directory, yet its layer has entries in it",
    "path-length": f"has a path of more than {MAX_NAME} bytes",
    "root": "is the root, which stays a directory",
    "symlink-loop": f"leads through more than {MAX_HOPS} symlinks, or {MAX_STEPS} components",
    "target-length": f"is a symlink to a path of more than {MAX_TARGET} bytes",
    "tree-bytes": "brings the image to more bytes than COPPICE_LIMIT_TREE_BYTES allows",
    "whiteout": "is a whiteout of what cannot be there",
}


def broken(rule: str, path: bytes) -> CoppiceError:
    """The refusal of an entry, or of a path, by one of :data:`RULES`."""
    return refused(rule, path, RULES[rule])


def split(path: bytes) -> list[bytes]:
    """The components of a path inside the root, ``.`` and ``..`` resolved as text; [] is the root.

    L23. ``..`` at the end would be a name that the entry does not say: that is refused.
    """
    parts: list[bytes] = []
    last = b""
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        last = part
        if part == b"..":
            del parts[-1:]
        else:
            parts.append(part)
    if last == b"..":
        raise broken("name-dots", path)
    return parts
