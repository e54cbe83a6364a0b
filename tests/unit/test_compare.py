"""Manifests read back, searched, compared: what differs, what of it matters most."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.payload import FieldChange
from templates_app.trust import compare, entries, mtree
from templates_app.trust.entries import Entry, NotAManifest

ROOT = b"type=dir mode=0755 uid=0 gid=0\n"
CAPABLE = mtree.comments([(b"security.capability", b"net")], [])


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).hexdigest().encode()


def a_file(text="x", mode=0o644, uid=0, gid=0, comments=b"") -> bytes:
    who = mtree.mode_and_owner(mode, uid, gid)
    return mtree.file(who, len(text), sha256(text), comments)


def Field(name: str, before: str | None, after: str | None) -> FieldChange:  # noqa: N802
    return FieldChange(name=name, before=before, after=after)


def manifest(tree: dict[bytes, bytes]) -> bytes:
    lines = [b"./%s %s" % (mtree.escape(path), tree[path]) for path in sorted(tree)]
    return b"".join([mtree.FIRST_LINE, b". ", ROOT, *lines])


TREE = {
    b"bin": ROOT,
    b"bin/passwd": a_file("passwd", 0o4755),
    b"bin/ping": a_file("ping", 0o755, comments=CAPABLE),
    b"bin/pw": a_file("passwd", 0o4755, comments=mtree.hardlink(b"./bin/passwd")),
    b"bin/sh": mtree.link(0, 0, b"../rescue/sh"),
    b"d\xc3\xa4ta file": a_file("data", comments=mtree.comments([], [b"schg", b"uchg"])),
    b"dev": ROOT,
    b"dev/tty": mtree.special(b"char", mtree.mode_and_owner(0o666, 0, 5)),
    b"etc/motd": a_file("hello"),
}
BEFORE = manifest(TREE)


def compared(after: dict[bytes, bytes], **more) -> compare.Comparison:
    return compare.compare(BEFORE, manifest(after), **{"limit": 20, **more})


def test_an_entry_is_what_its_lines_say():
    found = {one.path: one for one in map(entries.read, entries.blocks(BEFORE))}
    assert list(found) == [".", *(f"./{mtree.escape(path).decode()}" for path in sorted(TREE))]
    assert found["./bin/pw"] == Entry(
        path="./bin/pw",
        type="file",
        mode=0o4755,
        uid=0,
        gid=0,
        size=6,
        sha256=sha256("passwd").decode(),
        hardlink="./bin/passwd",
    )
    assert found["./bin/sh"].link == "../rescue/sh"
    assert found["./bin/sh"].mode is None
    assert found["./bin/ping"].xattrs == (("security.capability", sha256("net").decode()),)
    assert found["./d\\303\\244ta\\040file"].flags == "schg,uchg"
    assert found["."].type == "dir"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"#mtree v2.0\n. type=dir",
        mtree.FIRST_LINE + b"./a\n",
        mtree.FIRST_LINE + b"./a type=file mode=9 uid=0 gid=0\n",
        mtree.FIRST_LINE + b". " + ROOT + b"# smell musty\n",
        mtree.FIRST_LINE + b"./a type=dir uid=0 gid=\xc3\xa4\n",
    ],
)
def test_what_is_no_manifest_is_not_read(text):
    with pytest.raises(NotAManifest):
        list(map(entries.read, entries.blocks(text)))


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("p*", ["./bin/passwd", "./bin/ping", "./bin/pw"]),
        ("bin/p?", ["./bin/pw"]),
        ("./bin/p[aw]*", ["./bin/passwd", "./bin/pw"]),
        ("/etc/*", ["./etc/motd"]),
        ("*/motd", ["./etc/motd"]),
        ("däta file", ["./d\\303\\244ta\\040file"]),
        ("motd/", []),
        ("bin", ["./bin"]),
        ("[", []),
        ("bin/", []),
    ],
)
def test_a_pattern_means_what_find_takes_it_for(pattern, paths):
    found = entries.page(BEFORE, pattern=pattern, after="", limit=100)
    assert [one.path for one in found.entries] == paths
    assert found.after is None


def test_a_pattern_of_many_stars_ends():
    long = manifest({b"a" * 4000: a_file()})
    assert entries.page(long, pattern="*a" * 60 + "b", after="", limit=1).entries == ()


@pytest.mark.parametrize("pattern", ["", "*a*"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_are_the_whole(pattern, limit):
    whole = entries.page(BEFORE, pattern=pattern, after="", limit=1000)
    found, after = [], ""
    while after is not None:
        page = entries.page(BEFORE, pattern=pattern, after=after, limit=limit)
        assert len(page.entries) <= limit
        found += page.entries
        after = page.after
    assert tuple(found) == whole.entries


def test_a_page_behind_a_path_that_is_not_there_is_refused():
    with pytest.raises(NotAManifest, match="no path ./bin/p"):
        entries.page(BEFORE, pattern="", after="./bin/p", limit=1)


def test_the_same_is_no_difference():
    assert compared(TREE) == compare.Comparison()


@pytest.mark.parametrize(
    ("path", "now", "grave", "fields"),
    [
        (b"etc/motd", a_file("hullo"), (), [
            Field("sha256", sha256("hello").decode(), sha256("hullo").decode())]),
        (b"etc/motd", a_file("hello", 0o600), (), [Field("mode", "0644", "0600")]),
        (b"etc/motd", a_file("hello", 0o4644), ("set-id",), [Field("mode", "0644", "4644")]),
        (b"bin/passwd", a_file("passwd", 0o755), ("set-id",), [Field("mode", "4755", "0755")]),
        (b"bin/passwd", a_file("forged", 0o4755), ("set-id",), [
            Field("sha256", sha256("passwd").decode(), sha256("forged").decode())]),
        (b"bin/ping", a_file("ping", 0o755), ("capability",), [
            Field("xattr security.capability", sha256("net").decode(), None)]),
        (b"bin/ping", a_file("pong", 0o755, comments=CAPABLE), ("capability",), [
            Field("sha256", sha256("ping").decode(), sha256("pong").decode())]),
        (b"etc/motd", a_file("hello", uid=7), ("owner",), [Field("uid", "0", "7")]),
        (b"bin/sh", mtree.link(0, 3, b"/x"), ("owner",), [
            Field("gid", "0", "3"), Field("link", "../rescue/sh", "/x")]),
        (b"dev/tty", mtree.special(b"block", mtree.mode_and_owner(0o666, 0, 5)), ("device",), [
            Field("type", "char", "block")]),
        (b"dev/tty", None, ("device",), [
            Field("type", "char", None), Field("mode", "0666", None),
            Field("uid", "0", None), Field("gid", "5", None)]),
        (b"bin/su", a_file("su", 0o6755), ("set-id",), [
            Field("type", None, "file"), Field("mode", None, "6755"), Field("uid", None, "0"),
            Field("gid", None, "0"), Field("size", None, "2"),
            Field("sha256", None, sha256("su").decode())]),
    ],
)  # fmt: skip
def test_what_differs_is_named_and_why_it_matters(path, now, grave, fields):
    after = {**TREE, path: now}
    if now is None:
        del after[path]
    found = compared(after)
    (one,) = found.differences
    assert (one.path, one.grave, list(one.fields)) == (f"./{path.decode()}", grave, fields)
    assert found.total == 1
    assert (found.added, found.removed) == (path not in TREE, now is None)
    assert one.change == ("added" if found.added else "removed" if found.removed else "changed")


def test_what_matters_most_stands_first_in_pages_too():
    after = {
        **TREE,
        b"a-first": a_file(),
        b"bin/ping": a_file("ping", 0o755),
        b"bin/pw": a_file("passwd", 0o755, comments=mtree.hardlink(b"./bin/passwd")),
        b"dev/zero": mtree.special(b"char", mtree.mode_and_owner(0o666, 0, 0)),
        b"etc/motd": a_file("hello", gid=9),
        b"etc/other": a_file(),
    }
    order = ["./bin/pw", "./bin/ping", "./etc/motd", "./dev/zero", "./a-first", "./etc/other"]
    whole = compared(after)
    assert [one.path for one in whole.differences] == order
    assert (whole.added, whole.removed, whole.changed, whole.grave) == (3, 0, 3, 4)
    for size in (1, 2, 4):
        pages = [compared(after, skip=at, limit=size) for at in range(0, 6, size)]
        assert [one.path for page in pages for one in page.differences] == order
        assert all(page.total == 6 for page in pages)


NAMES = st.binary(min_size=1, max_size=3).filter(
    lambda name: b"/" not in name and b"\0" not in name
)
TREES = st.dictionaries(
    NAMES, st.sampled_from([a_file("a"), a_file("b"), a_file("a", 0o4755), mtree.link(0, 0, b"x")])
)


@given(TREES, TREES)
def test_any_two_trees_differ_in_the_paths_in_which_they_differ(one, other):
    found = compare.compare(manifest(one), manifest(other), limit=10**6)
    spelled = {f"./{mtree.escape(path).decode()}": path for path in {**one, **other}}
    said = {(spelled[d.path], d.change) for d in found.differences}
    assert said == {
        *((path, "added") for path in other.keys() - one.keys()),
        *((path, "removed") for path in one.keys() - other.keys()),
        *((path, "changed") for path in one.keys() & other.keys() if one[path] != other[path]),
    }
    assert found.total == len(found.differences)


@pytest.mark.parametrize(
    ("word", "path", "now"),
    [
        ("owners", b"etc/motd", a_file("hello", uid=1000, gid=1000)),
        ("owners", b"bin/sh", mtree.link(1000, 1000, b"../rescue/sh")),
        ("modes", b"etc/motd", a_file("hello", 0o744)),
        ("devices", b"dev/tty", None),
        ("attributes", b"bin/ping", a_file("ping", 0o755)),
        ("unsupported", b"bin/ping", a_file("ping", 0o755)),
        ("flags", b"d\xc3\xa4ta file", a_file("data")),
    ],
)
def test_what_an_import_could_not_bring_over_is_passed_over_and_nothing_else(word, path, now):
    after = {name: text for name, text in {**TREE, path: now}.items() if text is not None}
    assert compared(after).total == 1
    assert compared(after, excepted={word}).total == 0
    assert (
        compared(after, excepted=set(compare.SKIPPED) - {word, "unsupported", "attributes"}).total
        == 1
    )
    # And in the same entry everything else still counts.
    forged = a_file("forged", 0o777, uid=1000, gid=1000)
    assert compared({**TREE, path: forged}, excepted=set(compare.SKIPPED)).total == 1
    assert compared({**after, b"dev/new": TREE[b"dev/tty"]}, excepted={word}).added == 1


def test_the_words_of_an_imports_deviations_are_known_again():
    reasons = [f"{text} (12 entries)" for text in compare.SKIPPED.values()]
    assert compare.excepted_by(iter(reasons)) == set(compare.SKIPPED)
    assert compare.excepted_by(["replaced what the image has", "owners"]) == set()
