"""A manifest brought up to date after a file was put into its tree, without reading the tree."""

from __future__ import annotations

from collections.abc import Mapping

from templates_app.trust import mtree


def amend(manifest: bytes, put: Mapping[bytes, bytes]) -> bytes:
    """The manifest of the same tree after ``put``: paths below the root, and their descriptions.

    A file takes the place of what had its name, save for a directory, which nothing replaces; a
    directory that is there already stays as it is. A directory comes before what is in it.
    """
    for path, description in put.items():
        shown = b"./" + mtree.escape(path)
        at = manifest.find(b"\n" + shown + b" ") + 1
        if not at:
            at = end = _place(manifest, path)
        elif description.startswith(b"type=dir "):
            continue
        else:
            end = _end(manifest, at)
        rest = _without_first_name(manifest[end:], shown)
        manifest = b"".join((manifest[:at], shown, b" ", description, rest))
    return manifest


def _place(manifest: bytes, path: bytes) -> int:
    """Where the lines of a path belong that is not there yet: paths are in bytewise order."""
    low = _end(manifest, len(mtree.FIRST_LINE))  # behind the root's own lines
    high = len(manifest)
    while low < high:
        # The path whose lines the middle is in.
        middle = manifest.rfind(b"\n", low - 1, (low + high) // 2) + 1
        while manifest[middle : middle + 1] == b"#":
            middle = manifest.rfind(b"\n", low - 1, middle - 1) + 1
        line = manifest[middle : manifest.index(b" ", middle)]
        if mtree.unescape(line)[2:] > path:
            high = middle
        else:
            low = _end(manifest, middle)
    return low


def _end(manifest: bytes, at: int) -> int:
    """Behind the line that begins at ``at``, and the comments that belong to it."""
    while True:
        at = manifest.index(b"\n", at) + 1
        if manifest[at : at + 1] != b"#":
            return at


def _without_first_name(rest: bytes, gone: bytes) -> bytes:
    """Hard links of a file that lost its first name: the next one is what the others refer to."""
    comment = mtree.hardlink(gone)
    at = rest.find(b"\n" + comment) + 1
    if not at:
        return rest
    begin = at
    while begin and rest[begin : begin + 1] == b"#":
        begin = rest.rfind(b"\n", 0, begin - 1) + 1
    first = rest[begin : rest.index(b" ", begin)]
    after = rest[at + len(comment) :]
    return rest[:at] + after.replace(b"\n" + comment, b"\n" + mtree.hardlink(first))
