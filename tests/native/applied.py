"""Layers applied to the model, its operations to a disk in memory that trusts nobody.

The disk does what the system calls of a writer would do, and fails where they would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.limits import Limits
from templates_app.sources.native.model import Tree
from templates_app.sources.native.operations import Do, Meta, Operation
from templates_app.trust import mtree
from tests.corpus.members import Layer, Member
from tests.native.archives import LIMITS

LEFT_OUT = ("/dev/*", "/proc/*")

_KINDS = {b"0": Kind.FILE, b"1": Kind.HARDLINK, b"2": Kind.SYMLINK, b"3": Kind.CHARACTER}
_KINDS |= {b"4": Kind.BLOCK, b"5": Kind.DIRECTORY, b"6": Kind.FIFO}
_WORDS = {Kind.FIFO: b"fifo", Kind.CHARACTER: b"char", Kind.BLOCK: b"block"}


def entry(member: Member) -> Entry:
    """As a reader gives it."""
    return Entry(
        kind=_KINDS[member.kind],
        name=member.name,
        target=member.target,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime * 10**9,
        size=len(member.content),
        xattrs=member.xattrs,
        flags=tuple(member.flags.split(b",")) if member.flags else (),
        major=member.major,
        minor=member.minor,
    )


@dataclass(eq=False)
class Inode:
    kind: Kind
    meta: Meta | None = None
    content: bytes = b""  # of a symlink: its target
    children: dict[bytes, Inode] = field(default_factory=dict)
    settled: bool = True


class Disk:
    def __init__(self) -> None:
        self.root = Inode(Kind.DIRECTORY)
        self.known = {0: self.root}

    def forget_numbers(self) -> None:
        """As when another process goes on."""
        self.known = {0: self.root}

    def do(self, operation: Operation, content: bytes = b"") -> None:
        match operation:
            case (Do.MKDIR, parent, name, number):
                made = self._put(parent, name, Inode(Kind.DIRECTORY, settled=False))
                self._know(number, made)
            case (Do.KNOWN, parent, name, number):
                there = self.known[parent].children[name]
                assert there.kind == Kind.DIRECTORY
                self._know(number, there)
            case (Do.FILE, parent, name, meta, size):
                assert size == len(content)
                self._put(parent, name, Inode(Kind.FILE, meta, content))
            case (Do.SYMLINK, parent, name, target, uid, gid, mtime):
                meta = (0o777, uid, gid, mtime, (), ())
                self._put(parent, name, Inode(Kind.SYMLINK, meta, target))
            case (Do.LINK, parent, name, source, source_name):
                there = self.known[source].children[source_name]
                assert there.kind != Kind.DIRECTORY
                self._put(parent, name, there)
            case (Do.NODE, parent, name, kind, meta, _, _):
                self._put(parent, name, Inode(Kind(kind), meta))
            case (Do.REMOVE, parent, name, number):
                gone = self.known[parent].children.pop(name)
                assert (gone.kind == Kind.DIRECTORY) == (number != 0)
                if number:
                    assert self.known.get(number, gone) is gone
                    self._drop(gone)
                self.known[parent].settled = self.known[parent].meta is None
            case (Do.SETTLE, number, meta):
                there = self.known[number]
                assert all(one.settled for one in there.children.values()), "not the deepest first"
                if meta is None:
                    assert there.meta is not None
                there.meta = meta or there.meta
                there.settled = True
            case _:
                raise AssertionError(operation)

    def _put(self, parent: int, name: bytes, inode: Inode) -> Inode:
        there = self.known[parent]
        assert there.kind == Kind.DIRECTORY
        assert name not in there.children, "EEXIST"
        assert name not in (b"", b".", b"..")
        assert b"/" not in name
        assert len(name) <= 255
        there.children[name] = inode
        there.settled = False
        return inode

    def _know(self, number: int, inode: Inode) -> None:
        assert number not in self.known, "a number is used twice"
        assert inode not in self.known.values(), "a directory has two numbers"
        self.known[number] = inode

    def _drop(self, gone: Inode) -> None:
        self.known = {number: one for number, one in self.known.items() if one is not gone}
        for child in gone.children.values():
            self._drop(child)

    def manifest(self) -> bytes:
        """By sorting whole paths, not by walking."""
        found = {b".": self.root}
        self._collect(self.root, b"./", found)
        first: dict[Inode, bytes] = {}
        text = [mtree.FIRST_LINE]
        for path in sorted(found):
            inode = found[path]
            assert inode.meta is not None and inode.settled, path
            mode, uid, gid, _, xattrs, flags = inode.meta
            text.append(mtree.escape(path) + b" " if path != b"." else b". ")
            who, comments = mtree.mode_and_owner(mode, uid, gid), mtree.comments(xattrs, flags)
            if inode.kind == Kind.DIRECTORY:
                text.append(mtree.directory(who, comments))
                continue
            if inode.kind == Kind.FILE:
                digest = hashlib.sha256(inode.content).hexdigest().encode()
                text.append(mtree.file(who, len(inode.content), digest, comments))
            elif inode.kind == Kind.SYMLINK:
                text.append(mtree.link(uid, gid, inode.content))
            else:
                text.append(mtree.special(_WORDS[inode.kind], who))
            if first.setdefault(inode, path) != path:
                text.append(mtree.hardlink(mtree.escape(first[inode])))
        return b"".join(text)

    def _collect(self, inode: Inode, above: bytes, found: dict[bytes, Inode]) -> None:
        for name, child in inode.children.items():
            found[above + name] = child
            self._collect(child, above + name + b"/", found)


@dataclass
class Applied:
    tree: Tree
    disk: Disk
    manifests: list[bytes]  # after each layer

    @property
    def manifest(self) -> bytes:
        return self.manifests[-1]


def apply(
    layers: Sequence[Layer],
    limits: Limits = LIMITS,
    *,
    left_out: tuple[str, ...] = LEFT_OUT,
    keeps_flags: bool = True,
    restored: bool = False,
) -> Applied:
    """The model's tree and the disk's, found to be the same after each layer.

    ``restored``: after each layer a new model goes on, from the manifest alone.
    """
    tree, disk = Tree(limits, left_out, keeps_flags=keeps_flags), Disk()
    manifests: list[bytes] = []
    for layer in layers:
        if restored and manifests:
            tree = Tree.restore(manifests[-1], limits, left_out, keeps_flags=keeps_flags)
            assert b"".join(tree.manifest()) == manifests[-1]
            disk.forget_numbers()
        tree.begin()
        for member in layer:
            operations = tree.add(entry(member))
            for operation in operations:
                disk.do(operation, member.content)
            if operations and operations[-1][0] == Do.FILE:
                tree.content(hashlib.sha256(member.content).hexdigest())
        for operation in tree.end():
            disk.do(operation)
        manifests.append(b"".join(tree.manifest()))
        assert disk.manifest() == manifests[-1]
        assert tree.entries == sum(1 for at in manifests[-1].splitlines() if at[:1] != b"#") - 1
    return Applied(tree, disk, manifests)
