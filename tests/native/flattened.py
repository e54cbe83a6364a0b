"""The rules of layers, slow and obvious: a tree is a dictionary from paths to things.

Written from the rules and not from the model: nothing of the product is used. A path is a tuple of
names, the root is ``()``. Only what random stacks can meet is here: no limits of lengths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tests.corpus.members import Layer, Member

Path = tuple[bytes, ...]


class Refused(Exception):  # noqa: N818
    """With the rule's name."""


@dataclass(eq=False)
class Thing:
    kind: bytes  # tar's
    who: tuple[int, int, int] = (0o755, 0, 0)
    content: bytes = b""
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def flatten(layers: Iterable[Layer], left_out: tuple[bytes, ...] = (b"dev", b"proc")) -> bytes:
    """The manifest of the tree that the layers make."""
    tree: dict[Path, Thing] = {(): Thing(b"5")}
    for layer in layers:
        one = _Layer(tree, left_out)
        for member in layer:
            one.add(member)
        for path in list(tree):
            if len(path) > 1 and path[0] in left_out:
                del tree[path]
    return _manifest(tree)


class _Layer:
    """``fresh``: paths that this layer has, and all above them. ``said``: with attributes."""

    def __init__(self, tree: dict[Path, Thing], left_out: tuple[bytes, ...]) -> None:
        self.tree = tree
        self.left_out = left_out
        self.fresh: set[Path] = set()
        self.said: set[Path] = set()
        self.names: set[Path] = set()

    def add(self, member: Member) -> None:
        name = _normal(member.name)
        if any(part.startswith(b".wh..wh.") for part in name[:-1]):
            return
        if name in self.names:
            raise Refused("duplicate")
        self.names.add(name)
        if not name:
            if member.kind != b"5":
                raise Refused("root")
            self.say((), member)
        elif name[-1].startswith(b".wh."):
            self.whiteout(name)
        else:
            self.put(self.directory(name[:-1]) + name[-1:], member)

    def whiteout(self, name: Path) -> None:
        hidden = name[-1][4:]
        if hidden in (b"", b".", b".."):
            raise Refused("whiteout")
        if hidden.startswith(b".wh.") and hidden != b".wh..opq":
            return
        parent = self.follow(name[:-1], lower=False)
        if parent is None:
            return
        if hidden == b".wh..opq":
            self.hide(tuple(path for path in self.tree if _below(path, parent) and path != parent))
        else:
            self.hide(tuple(path for path in self.tree if _below(path, (*parent, hidden))))

    def hide(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self.fresh:
                del self.tree[path]
            elif self.tree[path].kind == b"5" and path not in self.said:
                self.tree[path] = Thing(b"5")

    def put(self, path: Path, member: Member) -> None:
        old = self.tree.get(path)
        if member.kind == b"5" and old and old.kind == b"5":
            self.say(path, member)
            return
        source = self.source(path, member) if member.kind == b"1" else None
        self.remove(path)
        if member.kind in b"34" and path[0] in self.left_out and len(path) > 1:
            return
        self.touch(path)
        if source:
            self.tree[path] = source
        elif member.kind == b"5":
            self.say(path, member)
        else:
            who = (member.mode, member.uid, member.gid)
            target, content = member.target, member.content
            xattrs = member.xattrs if member.kind == b"0" else ()
            self.tree[path] = Thing(member.kind, who, content, target, xattrs)

    def source(self, path: Path, member: Member) -> Thing:
        target = _normal(member.target)
        parent = self.follow(target[:-1], lower=True) if target else None
        if parent is None:
            raise Refused("hard-link")
        place = parent + target[-1:]
        there = self.tree.get(place)
        if there is None or there.kind == b"5" or _below(place, path):
            raise Refused("hard-link")
        return there

    def say(self, path: Path, member: Member) -> None:
        who = (member.mode, member.uid, member.gid)
        self.tree[path] = Thing(b"5", who, xattrs=member.xattrs)
        self.touch(path)
        self.said.add(path)

    def touch(self, path: Path) -> None:
        self.fresh |= {path[:length] for length in range(len(path) + 1)}

    def remove(self, top: Path) -> None:
        gone = {path for path in self.tree if _below(path, top)}
        for path in gone:
            del self.tree[path]
        self.fresh -= gone
        self.said -= gone

    def directory(self, parts: Path) -> Path:
        """Where entries of that directory go: what is missing on the way is made."""
        at = self.walk(parts, lower=False, make=True)
        assert at is not None
        self.touch(at)
        return at

    def follow(self, parts: Path, *, lower: bool) -> Path | None:
        return self.walk(parts, lower=lower, make=False)

    def walk(self, parts: Path, *, lower: bool, make: bool) -> Path | None:
        at: Path = ()
        hops = 0
        while parts:
            part, parts = parts[0], parts[1:]
            if part in (b"", b".", b".."):
                at = at[:-1] if part == b".." else at
                continue
            path = (*at, part)
            there = self.tree.get(path)
            if there and there.kind == b"5":
                at = path
            elif there and there.kind == b"2" and (lower or path in self.fresh):
                hops += 1
                if hops > 40:
                    raise Refused("symlink-loop")
                at = () if there.target.startswith(b"/") else at
                parts = (*there.target.split(b"/"), *parts)
            elif not make:
                return None
            elif there and path in self.fresh:
                raise Refused("no-directory")
            else:
                self.remove(path)
                self.tree[path] = Thing(b"5")
                self.touch(path)
                at = path
        return at


def _normal(name: bytes) -> Path:
    parts: Path = ()
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts = (*parts, part)
    if name.split(b"/")[-1] == b"..":
        raise Refused("name-dots")
    return parts


def _below(path: Path, top: Path) -> bool:
    return path[: len(top)] == top


def _manifest(tree: dict[Path, Thing]) -> bytes:
    words = {b"0": "file", b"2": "link", b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo"}
    by_bytes = {b"/".join((b".", *path)): thing for path, thing in tree.items()}
    first: dict[Thing, str] = {}
    text = "#mtree v2.0\n"
    for path in sorted(by_bytes):
        thing = by_bytes[path]
        shown = "".join(
            chr(byte) if 33 <= byte <= 126 and chr(byte) not in "\\#=*?[]" else f"\\{byte:03o}"
            for byte in path
        )
        mode, uid, gid = thing.who
        text += f"{shown} type={words[thing.kind]}"
        text += "" if thing.kind == b"2" else f" mode={mode:04o}"
        text += f" uid={uid} gid={gid}"
        if thing.kind == b"0":
            digest = hashlib.sha256(thing.content).hexdigest()
            text += f" size={len(thing.content)} sha256={digest}"
        text += f" link={thing.target.decode()}\n" if thing.kind == b"2" else "\n"
        for name, value in thing.xattrs:
            text += f"# xattr {name.decode()} sha256={hashlib.sha256(value).hexdigest()}\n"
        if thing.kind != b"5" and first.setdefault(thing, shown) != shown:
            text += f"# hardlink {first[thing]}\n"
    return text.encode()
