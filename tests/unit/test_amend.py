"""A manifest that is amended is the one that a scan of the changed tree finds."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.sources.plant import described, plant_resolv_conf
from templates_app.trust import mtree, tree
from templates_app.trust.amend import amend

SERVER = "10.78.0.1"


def manifest(top: Path) -> bytes:
    into = io.BytesIO()
    tree.scan(top, limit_entries=1000, into=into)
    return into.getvalue()


def fill(top: Path, *files: str, links: tuple[tuple[str, str], ...] = ()) -> None:
    for name in files:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for old, new in links:
        (top / new).parent.mkdir(parents=True, exist_ok=True)
        os.link(top / old, top / new, follow_symlinks=False)


RESOLV = "etc/resolv.conf"
TREES = {
    "nothing": lambda top: None,
    "no etc, others around it": lambda top: fill(top, "bin/a", "etc.d/b", "etcetera", "zoo"),
    "an empty etc": lambda top: (top / "etc").mkdir(mode=0o750),
    "an etc with others": lambda top: fill(top, "etc/a", "etc/resolv.conf.d/x", "etc/z", "usr/x"),
    "names that sort oddly": lambda top: fill(top, "etc/resolv!", "etc/res\N{SNOWMAN}", "etc.a"),
    "a file": lambda top: fill(top, "etc/a", RESOLV, "etc/z"),
    "the last of all": lambda top: fill(top, RESOLV),
    "a symlink": lambda top: fill(top, "etc/a") or (top / RESOLV).symlink_to("../run/resolv.conf"),
    "a file with attributes": lambda top: (
        fill(top, RESOLV) or os.setxattr(top / RESOLV, "user.x", b"1")
    ),
    "the first name of three": lambda top: fill(
        top, RESOLV, links=((RESOLV, "etc/second"), (RESOLV, "usr/third"))
    ),
    "the first name of two, with attributes": lambda top: (
        fill(top, RESOLV, links=((RESOLV, "etc/second"),))
        or os.setxattr(top / RESOLV, "user.x", b"1")
    ),
    "the second name of three": lambda top: fill(
        top, RESOLV, links=((RESOLV, "a"), (RESOLV, "usr/third"))
    ),
    "the last name of two": lambda top: fill(top, RESOLV, links=((RESOLV, "a"),)),
}


@pytest.mark.parametrize("kind", TREES)
def test_it_is_what_a_scan_finds(tmp_path, kind):
    top = tmp_path / "top"
    top.mkdir()
    TREES[kind](top)
    before = manifest(top)
    plant_resolv_conf(top, SERVER)
    after = manifest(top)
    assert after != before
    assert amend(before, described(SERVER)) == after


def test_nothing_is_put(tmp_path):
    (tmp_path / "a").write_text("a")
    assert described("") == {}
    assert amend(manifest(tmp_path), {}) == manifest(tmp_path)


NAMES = st.binary(min_size=1, max_size=4).map(lambda name: name.replace(b"/", b"a"))


@given(st.sets(NAMES, max_size=12), NAMES, st.integers(0, 2))
def test_a_new_path_stands_where_its_bytes_belong(names, new, comments):
    def of(paths):
        more = b"# xattr x sha256=00\n" * comments
        lines = [b"./%s type=dir\n%s" % (mtree.escape(path), more) for path in sorted(paths)]
        return mtree.FIRST_LINE + b". type=dir\n" + more + b"".join(lines)

    names.discard(new)
    without = of(names)
    put = b"type=dir\n" + b"# xattr x sha256=00\n" * comments
    assert amend(without, {new: put}) == of({*names, new})
