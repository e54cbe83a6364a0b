"""What the model has the writer do, in this order.

The model is the authority on names: the writer is told the number of a directory that the model
made, and one component below it, never a path. Numbers are not used twice. The root is 0. Tuples,
for there is one or more for each entry of an image: the first item is the operation, a plain int,
so that marshal takes them.

=========  =========================================================================================
MKDIR      parent, name, number: make an empty directory, 0700 for now
KNOWN      parent, name, number: a directory that is there already (a kept layer's)
FILE       parent, name, meta, size: make a regular file; its contents follow
SYMLINK    parent, name, target, uid, gid, mtime_ns
LINK       parent, name, source parent, source name: link(2), never through a symlink
NODE       parent, name, kind, meta, major, minor: a device or a fifo
REMOVE     parent, name, number: unlink(2) where number is 0; else that directory with all below it
           (which need not have been told of before, if it is a kept layer's)
SETTLE     number, meta: a directory gets its attributes, after all was put into it; where meta is
           None, a KNOWN directory gets back the time that it had when it was told of
=========  =========================================================================================

``meta`` is ``(mode, uid, gid, mtime_ns, xattrs, flags)``; ``mtime_ns`` None leaves the time alone.
SETTLE's come at the end of a layer, deepest first, for each directory that was made, that got other
attributes, or that something was put into or taken from.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

Xattrs = tuple[tuple[bytes, bytes], ...]
Meta = tuple[int, int, int, int | None, Xattrs, tuple[bytes, ...]]
Operation = tuple[Any, ...]

ROOT = 0


class Do(IntEnum):
    MKDIR = 1
    KNOWN = 2
    FILE = 3
    SYMLINK = 4
    LINK = 5
    NODE = 6
    REMOVE = 7
    SETTLE = 8
