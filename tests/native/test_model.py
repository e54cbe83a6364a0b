"""The model of the tree: crafted stacks; what it promises to the engine beside their trees."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest

from templates_app.errors import TreeRefused
from templates_app.sources.native import model, rules
from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.model import Tree
from templates_app.sources.native.operations import Do, Operation
from tests.corpus.members import (
    Layer,
    Member,
    device,
    directory,
    fifo,
    file,
    hardlink,
    lines,
    symlink,
)
from tests.corpus.stacks import STACKS, Stack
from tests.native.applied import apply, entry
from tests.native.archives import LIMITS

SHA256 = "0123456789abcdef" * 4


def rule_of(*layers: Layer, **limits: int) -> str:
    with pytest.raises(TreeRefused) as refusal:
        apply(layers, replace(LIMITS, **limits))
    return str(refusal.value.extra["rule"])


def operations(tree: Tree, *members: Member) -> list[Operation]:
    """Of one layer, with its end."""
    tree.begin()
    found = []
    for member in members:
        found += tree.add(entry(member))
        if found and found[-1][0] == Do.FILE:
            tree.content(SHA256)
    return found + tree.end()


def kept(*members: Member) -> bytes:
    tree = Tree(LIMITS)
    operations(tree, *members)
    return b"".join(tree.manifest())


@pytest.mark.parametrize("restored", [False, True], ids=["at once", "from kept layers"])
@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_a_stack_makes_the_tree_that_it_must_or_is_refused(stack: Stack, restored: bool):
    if stack.rule:
        with pytest.raises(TreeRefused) as refusal:
            apply(stack.layers, restored=restored)
        assert refusal.value.extra["rule"] == stack.rule
        return
    done = apply(stack.layers, restored=restored)
    assert lines(done.manifest, stack.layers) == stack.tree
    if not restored:
        findings = " ".join(done.tree.findings)
        assert stack.finding in findings
        assert bool(stack.finding) == bool(findings)


def test_the_stacks_have_names_of_their_own_and_cover_every_rule():
    assert len({stack.name for stack in STACKS}) == len(STACKS) >= 60
    of_limits = {"entries", "manifest-bytes", "tree-bytes"}
    assert {stack.rule for stack in STACKS} - {""} == set(rules.RULES) - of_limits


# --- limits --------------------------------------------------------------------------------------


def test_entries_are_limited_in_the_tree_and_implied_ones_count():
    assert rule_of((file(b"a"), file(b"b"), file(b"c")), entries=2) == "entries"
    assert rule_of((file(b"a/b/c"),), entries=2) == "entries"
    assert rule_of((file(b"a"), hardlink(b"b", b"a"), symlink(b"c", b"a")), entries=2) == "entries"
    apply([(file(b"a/b"),), (file(b".wh.a"), file(b"c"), file(b"d"))], replace(LIMITS, entries=2))


def test_entries_are_limited_over_all_layers():
    again = [(file(b"a"),)] * 10
    apply(again, replace(LIMITS, entries=1))
    assert rule_of(*again, (file(b".wh.a"),), entries=1) == "entries"


def test_bytes_are_limited_over_all_layers_also_where_they_are_replaced():
    twice = [(file(b"a", b"12345"),), (file(b"a", b"54321"),)]
    apply(twice, replace(LIMITS, tree_bytes=10))
    assert rule_of(*twice, tree_bytes=9) == "tree-bytes"


def test_a_small_archive_has_no_large_manifest():
    """Each line has a whole path, with four bytes for one that is odd. The server holds it."""
    long = b"/".join([b"\xff" * 255] * 15)
    layer = (directory(long), symlink(b"s", long), *(file(b"s/%d" % n) for n in range(2500)))
    assert rule_of(layer, memory_bytes=8 * 32 * 2**20) == "manifest-bytes"


def test_findings_are_bounded():
    links = tuple(symlink(b"%d" % n, b"/x") for n in range(30))
    below = tuple(file(b"%d/f" % n) for n in range(30))
    findings = apply([links, below]).tree.findings
    assert len(findings) == 11
    assert "20 other symlinks" in findings[-1]


def test_a_node_takes_little_memory():
    gc.collect()
    names = [b"usr/share/d%d/file-%d" % (n // 20, n) for n in range(20_000)]
    tracemalloc.start()
    tree = Tree(LIMITS)
    tree.begin()
    for name in names:
        tree.add(Entry(Kind.FILE, name, size=12345))
        tree.content(SHA256)
    tree.end()
    tree.begin()  # what only one layer needs is forgotten
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / tree.entries < 330


@pytest.mark.parametrize("name", [b"d%d/x", b"./d%d/x", b"d/%d/../x%d"])
def test_what_is_cached_is_bounded(name: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "_MAX_CACHED", 10)
    tree = Tree(LIMITS)
    members = [file(name.replace(b"%d", b"%d" % n), uid=n) for n in range(100)]
    operations(tree, *members)
    assert len(tree._places) <= 11
    assert len(tree._owners) <= 10


# --- what the writer and the engine may rely on --------------------------------------------------


def test_a_file_is_the_last_operation_of_its_entry_and_wants_its_contents():
    tree = Tree(LIMITS)
    tree.begin()
    done = tree.add(entry(file(b"a/b", b"x", 0o4755, uid=1, gid=2, mtime=3)))
    meta = (0o4755, 1, 2, 3 * 10**9, (), ())
    assert done == [(Do.MKDIR, 0, b"a", 1), (Do.FILE, 1, b"b", meta, 1)]
    assert all(type(one[0]) is int for one in done), "plain numbers, for marshal"
    with pytest.raises(ValueError, match="waits"):
        tree.end()
    tree.content(SHA256)
    with pytest.raises(ValueError, match="no file waits"):
        tree.content(SHA256)


def test_contents_of_what_is_no_file_of_the_tree_are_for_nobody():
    tree = Tree(LIMITS)
    assert operations(tree, file(b".wh.a", b"x"), file(b".wh..wh.aufs", b"x"))[:-1] == []


def test_directories_are_settled_last_and_the_deepest_first():
    plain = (0o755, 0, 0, None, (), ())
    private = (0o700, 0, 0, 5 * 10**9, (), ())
    tree = Tree(LIMITS)
    assert operations(tree, directory(b"a", 0o700, mtime=5), directory(b"b/c", 0o700, mtime=5)) == [
        (Do.MKDIR, 0, b"a", 1),
        (Do.MKDIR, 0, b"b", 2),
        (Do.MKDIR, 2, b"c", 3),
        (Do.SETTLE, 3, private),
        (Do.SETTLE, 1, private),
        (Do.SETTLE, 2, plain),
        (Do.SETTLE, 0, plain),
    ]
    # A directory that nothing was put into or taken from is left alone; else its time comes back.
    assert operations(tree, fifo(b"a/p"))[1:] == [(Do.SETTLE, 1, private)]
    assert operations(tree, file(b"a/.wh.p"))[1:] == [(Do.SETTLE, 1, private)]
    assert operations(tree, file(b".wh.b"))[1:] == [(Do.SETTLE, 0, plain)]
    assert operations(tree, file(b".wh.nothing")) == []


def test_a_kept_layers_directories_are_told_of_when_they_are_needed():
    tree = Tree.restore(kept(file(b"a/b/c"), file(b"a/x/y"), directory(b"z")), LIMITS)
    members = symlink(b"a/b/l", b"c"), hardlink(b"h", b"a/x/y"), directory(b"z")
    done = operations(tree, *members)
    assert [one for one in done if one[0] != Do.SETTLE] == [
        (Do.KNOWN, 0, b"a", 1),
        (Do.KNOWN, 1, b"b", 2),
        (Do.SYMLINK, 2, b"l", b"c", 0, 0, 1_700_000_000 * 10**9),
        (Do.KNOWN, 1, b"x", 3),
        (Do.LINK, 0, b"h", 3, b"y"),
        (Do.KNOWN, 0, b"z", 4),
    ]


def test_a_kept_layers_directory_that_is_not_stated_gets_its_time_back_only():
    tree = Tree.restore(kept(directory(b"a", 0o711), file(b"a/b")), LIMITS)
    assert operations(tree, file(b"a/.wh.b")) == [
        (Do.KNOWN, 0, b"a", 1),
        (Do.REMOVE, 1, b"b", 0),
        (Do.SETTLE, 1, None),
    ]


def test_what_is_removed_need_not_have_been_told_of():
    tree = Tree.restore(kept(file(b"a/b/c")), LIMITS)
    assert operations(tree, file(b".wh.a"))[0] == (Do.REMOVE, 0, b"a", 1)
    assert tree.entries == 0


def test_times_before_the_epoch_are_the_epoch():
    tree = Tree(LIMITS)
    tree.begin()
    (done,) = tree.add(Entry(Kind.FIFO, b"p", mtime_ns=-1))
    assert done[4][3] == 0


def test_only_files_and_directories_have_attributes():
    tree = Tree(LIMITS)
    one = replace(device(b"d"), xattrs=((b"user.x", b"1"),), flags=b"schg")
    assert operations(tree, one)[0][4] == (0o666, 0, 0, 1_700_000_000 * 10**9, (), ())


def test_without_file_flags_on_the_system_the_manifest_has_none():
    layer = (file(b"a", flags=b"schg"), directory(b"d", flags=b"nodump"))
    done = apply([layer], keeps_flags=False)
    assert b"flags" not in done.manifest
    assert done.tree.findings == ("2 entries have file flags, which this system has not.",)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"#mtree v2.0\n",
        b"#mtree v1.0\n. type=dir mode=0755 uid=0 gid=0\n",
        b"#mtree v2.0\n./a type=fifo mode=0755 uid=0 gid=0\n",
        b"#mtree v2.0\n. type=dir mode=0755 uid=0 gid=0\n./a/b type=fifo mode=0755 uid=0 gid=0\n",
        b"#mtree v2.0\n. type=dir mode=0755 uid=0 gid=0\n./a type=fifo mode=0755 uid=0 gid=0",
        b"#mtree v2.0\n. type=dir mode=0755 uid=0 gid=0\n./a type=fifo\n./a type=fifo\n",
        b"#mtree v2.0\n. type=dir mode=0755 uid=0 gid=0\n./a type=fifo\n# hardlink ./b\n",
    ],
)
def test_what_is_no_manifest_is_no_kept_layer(broken: bytes):
    with pytest.raises(ValueError, match="manifest"):
        Tree.restore(broken, LIMITS)


@pytest.mark.parametrize("pattern", ["dev/*", "/dev", "/a/b/*", "/*"])
def test_only_what_lies_directly_in_the_root_can_be_left_out(pattern: str):
    with pytest.raises(ValueError, match="/NAME/"):
        Tree(LIMITS, (pattern,))
