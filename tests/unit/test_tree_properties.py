"""The tree digest as a function: of what a tree is, and of nothing else."""

from __future__ import annotations

import dataclasses
import os
import random
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trees import digest

NAMES = st.binary(min_size=1, max_size=3).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
CONTENTS = st.binary(max_size=20)
KINDS = ("file", "directory", "link", "fifo")


@dataclass(frozen=True)
class Node:
    path: bytes
    kind: str
    mode: int
    owner: tuple[int, int]
    content: bytes  # of a file; of a link its target; of both, and of directories, an attribute


@st.composite
def trees(draw: st.DrawFn) -> list[Node]:
    places, nodes = [b""], {}
    for _ in range(draw(st.integers(1, 8))):
        path = draw(st.sampled_from(places)) + draw(NAMES)
        if path in nodes:
            continue
        kind = draw(st.sampled_from(KINDS))
        content = draw(CONTENTS)
        if kind == "link":
            content = content.replace(b"\0", b"") or b"x"
        mode, owner = draw(st.integers(0, 0o7777)), draw(st.tuples(*[st.integers(0, 70000)] * 2))
        nodes[path] = Node(path, kind, mode, owner, content)
        if kind == "directory":
            places.append(path + b"/")
    return list(nodes.values())


def make(top: bytes, nodes: list[Node], seed: int) -> None:
    """Make the tree in an order, with times and holes in directories, that ``seed`` decides."""
    chance = random.Random(seed)
    waiting = list(nodes)
    while waiting:
        ready = [n for n in waiting if b"/" not in n.path or exists_above(top, n)]
        node = chance.choice(ready)
        waiting.remove(node)
        path = top + b"/" + node.path
        if chance.random() < 0.3:  # directories differ by what was in them
            Path(os.fsdecode(path)).touch()
            os.unlink(path)
        make_one(path, node)
        os.utime(path, (chance.randrange(2**31),) * 2, follow_symlinks=False)


def exists_above(top: bytes, node: Node) -> bool:
    return os.path.isdir(top + b"/" + os.path.dirname(node.path))


def make_one(path: bytes, node: Node) -> None:
    if node.kind == "link":
        os.symlink(node.content, path)
    elif node.kind == "directory":
        os.mkdir(path)
    elif node.kind == "fifo":
        os.mkfifo(path)
    else:
        with open(path, "xb") as stream:
            stream.write(node.content)
    os.lchown(path, *node.owner)
    if node.kind != "link":
        os.chmod(path, node.mode)
    if node.kind in ("file", "directory"):
        os.setxattr(path, b"user." + bytes([b"abc"[len(node.content) % 3]]), node.content)


def made(nodes: list[Node], seed: int) -> str:
    with tempfile.TemporaryDirectory() as place:
        make(os.fsencode(place), nodes, seed)
        return digest(Path(place))


@settings(max_examples=60, deadline=None)
@given(nodes=trees(), seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)))
def test_order_and_times_of_making_change_nothing(nodes: list[Node], seeds: tuple[int, int]):
    assert made(nodes, seeds[0]) == made(nodes, seeds[1])


def changed(node: Node, field: str, chance: random.Random) -> Node:
    if field == "content":
        return dataclasses.replace(node, content=node.content + b"!")
    if field == "mode":
        return dataclasses.replace(node, mode=node.mode ^ 1 << chance.randrange(12))
    if field == "owner":
        uid, gid = node.owner
        return dataclasses.replace(node, owner=chance.choice([(uid + 1, gid), (uid, gid + 1)]))
    others = [kind for kind in KINDS if kind != node.kind]
    return dataclasses.replace(node, kind=chance.choice(others), content=b"x")


@settings(max_examples=60, deadline=None)
@given(nodes=trees(), data=st.data())
def test_every_change_of_one_entry_changes_the_digest(nodes: list[Node], data: st.DataObject):
    at = data.draw(st.integers(0, len(nodes) - 1))
    node = nodes[at]
    matters = {"file": 4, "directory": 3, "link": 4, "fifo": 4}[node.kind]
    fields = ["owner", "content", "mode", "kind"][:matters]
    if node.kind == "link":
        fields.remove("mode")  # means nothing there
    if node.kind == "fifo":
        fields.remove("content")
    field = data.draw(st.sampled_from(fields))
    other = changed(node, field, random.Random(data.draw(st.integers(0, 1000))))
    assert made(nodes, 1) != made([*nodes[:at], other, *nodes[at + 1 :]], 1)


@settings(max_examples=30, deadline=None)
@given(nodes=trees(), data=st.data())
def test_every_entry_counts(nodes: list[Node], data: st.DataObject):
    leaves = [n for n in nodes if not any(o.path.startswith(n.path + b"/") for o in nodes)]
    gone = data.draw(st.sampled_from(leaves))
    assert made(nodes, 1) != made([n for n in nodes if n is not gone], 1)


def test_the_kinds_of_these_trees_are_made_as_said(tmp_path: Path):
    """The generator's own test: were it to make plain files only, the rest would prove little."""
    modes = []
    for kind in KINDS:
        path = os.fsencode(tmp_path / kind)
        make_one(path, Node(path, kind, 0o4751, (1, 2), b"x"))
        there = os.lstat(path)
        modes.append((stat.S_IFMT(there.st_mode), stat.S_IMODE(there.st_mode), there.st_uid))
    assert [kind for kind, _, _ in modes] == [
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFIFO,
    ]
    assert {mode for kind, mode, _ in modes if kind != stat.S_IFLNK} == {0o4751}
    assert {uid for _, _, uid in modes} == {1}
