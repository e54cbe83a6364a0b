"""The tree manifest: its bytes, and what stock mtree(8) says of a tree by it."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from templates_app.errors import PoolUnavailable, TreeChanged, TreeRefused
from templates_app.trust import tree
from tests.unit.trees import (
    ODD_NAMES,
    TAMPERING,
    UNSEEN_BY_MTREE,
    digest,
    mtree,
    odd_tree,
    scan,
    write,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return odd_tree(tmp_path / "tree")


def paths(manifest: bytes) -> list[bytes]:
    """The paths in a manifest, unescaped."""
    lines = [line for line in manifest.splitlines() if not line.startswith(b"#")]
    escaped = [line.split(b" ")[0] for line in lines]
    return [re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), one) for one in escaped]


def lines_of(manifest: bytes, path: bytes) -> list[bytes]:
    """The path's own line and the comments that follow it."""
    lines = manifest.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(path + b" "))
    end = next((i for i in range(at + 1, len(lines)) if lines[i][:1] != b"#"), len(lines))
    return lines[at:end]


# --- the bytes ---------------------------------------------------------------------------------


def test_the_manifest_of_a_small_tree_is_exactly_this(tmp_path: Path):
    root = tmp_path / "t"
    root.mkdir(mode=0o755)
    top = os.fsencode(root)
    os.mkdir(top + b"/bin", 0o755)
    write(top + b"/bin/su do", b"hello\n", mode=0o4755)
    os.link(top + b"/bin/su do", top + b"/bin/zz")
    os.symlink(b"bin/su do", top + b"/bin.link")
    write(top + b"/net", b"", owner=(65534, 12))
    os.setxattr(top + b"/net", "user.x", b"1")
    os.mkfifo(top + b"/pipe", 0o600)
    hello = hashlib.sha256(b"hello\n").hexdigest()
    nothing = hashlib.sha256(b"").hexdigest()
    one = hashlib.sha256(b"1").hexdigest()
    expected = rf"""#mtree v2.0
. type=dir mode=0755 uid=0 gid=0
./bin type=dir mode=0755 uid=0 gid=0
./bin.link type=link uid=0 gid=0 link=bin/su\040do
./bin/su\040do type=file mode=4755 uid=0 gid=0 size=6 sha256={hello}
./bin/zz type=file mode=4755 uid=0 gid=0 size=6 sha256={hello}
# hardlink ./bin/su\040do
./net type=file mode=0644 uid=65534 gid=12 size=0 sha256={nothing}
# xattr user.x sha256={one}
./pipe type=fifo mode=0600 uid=0 gid=0
""".encode()
    found, manifest = scan(root)
    assert manifest == expected
    assert found.digest == "sha256:" + hashlib.sha256(expected).hexdigest()
    assert (found.entries, found.size_bytes) == (6, 6)


def test_paths_are_in_bytewise_order_of_the_unescaped_path(root: Path):
    found, manifest = scan(root)
    listed = paths(manifest)
    assert listed == sorted(listed)
    assert [one for one in listed if one[:3] == b"./a"][:7] == [
        b"./a",
        b"./a!",
        b"./a.b",
        b"./a.linked",
        b"./a/b",
        b"./a/linked",
        b"./a=b",
    ]
    assert len(listed) == len(set(listed)) == found.entries + 1


def test_nothing_odd_is_in_the_manifest_unescaped(root: Path):
    _, manifest = scan(root)
    assert re.fullmatch(rb"[!-~ \n]*", manifest)
    for name in ODD_NAMES:
        assert b"./" + name in paths(manifest)


def test_every_name_of_a_hard_linked_file_but_the_first_names_the_first(root: Path):
    found, manifest = scan(root)
    linked = [b"./a.linked", b"./a/linked", b"./zzz-first"]
    assert [lines_of(manifest, path)[1:] for path in linked] == [
        [],
        [b"# hardlink ./a.linked"],
        [b"# hardlink ./a.linked"],
    ]
    assert lines_of(manifest, b"./loop2")[1:] == [b"# hardlink ./loop"]
    contents = {(p.lstat().st_ino, p.lstat().st_size) for p in root.rglob("*") if is_regular(p)}
    assert found.size_bytes == sum(size for _, size in contents)


def is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def test_a_hard_link_to_outside_the_tree_is_a_plain_file(tmp_path: Path):
    root = odd_tree(tmp_path / "t")
    before = digest(root)
    os.link(root / "set-id", tmp_path / "elsewhere")
    assert digest(root) == before


def test_attributes_that_count_follow_their_path_in_order(root: Path):
    os.setxattr(root / "ping", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "ping", "security.selinux", b"label\x00")
    subprocess.run(["setfacl", "-m", "u:1:r", root / "a.b"], check=True)
    _, manifest = scan(root)
    words = [line.split(b" ")[:3] for line in lines_of(manifest, b"./ping")[1:]]
    assert words == [
        [b"#", b"xattr", b"security.capability"],
        [b"#", b"xattr", b"user.a"],
        [b"#", b"xattr", rb"user.b\377\040\012\043"],
    ]
    assert len(lines_of(manifest, b"./a.b")) == 1
    assert lines_of(manifest, b"./a")[1].startswith(b"# xattr user.of-a-directory sha256=")


def test_owners_are_those_of_the_image_where_they_could_not_be_applied(root: Path):
    _, plain = scan(root)
    owners = {b".": (1, 2), b"a/b": (3, 4), b"link": (5, 6), b"zzz-first": (9, 9)}
    found, manifest = scan(root, ownership=owners)
    changed = [line for line in manifest.splitlines() if line not in plain.splitlines()]
    assert [re.sub(rb"mode=\S+ | (size|link)=.*", b"", line) for line in changed] == [
        b". type=dir uid=1 gid=2",
        b"./a/b type=file uid=3 gid=4",
        b"./link type=link uid=5 gid=6",
        b"./zzz-first type=file uid=9 gid=9",
    ]
    assert found.digest == "sha256:" + hashlib.sha256(manifest).hexdigest()


def test_the_same_tree_on_two_file_systems_has_one_digest(tmp_path: Path):
    # tmpfs has no attributes of users before Linux 6.6, but it has capabilities.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        places = [tmp_path, Path(memory)]
        assert len({place.stat().st_dev for place in places}) == 2
        first, second = (odd_tree(p / "t", user_attributes=False) for p in places)
        assert scan(first) == scan(second)


def test_times_make_no_difference(root: Path):
    before = digest(root)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)
    assert digest(root) == before


def test_progress_is_told_while_it_goes_and_at_the_end(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree, "_PROGRESS_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    found, _ = scan(root, on_progress=lambda entries, size: told.append((entries, size)))
    assert told == sorted(told)
    assert told[-1] == (found.entries, found.size_bytes)
    # A file of 3 MB is read in pieces, and progress goes on meanwhile.
    assert any(a[0] == b[0] and a[1] < b[1] for a, b in zip(told, told[1:], strict=False))


def test_progress_is_not_told_at_every_entry(root: Path):
    told: list[int] = []
    scan(root, on_progress=lambda entries, size: told.append(entries))
    assert len(told) < 5


# --- what stock mtree says ---------------------------------------------------------------------


def test_stock_mtree_finds_nothing_to_say_of_the_untouched_tree(root: Path):
    assert mtree(scan(root)[1], root) == ""


@pytest.mark.parametrize("what", TAMPERING)
def test_stock_mtree_and_the_digest_find(what: str, root: Path):
    found, manifest = scan(root)
    TAMPERING[what](root)
    assert mtree(manifest, root) != ""
    assert digest(root) != found.digest


@pytest.mark.parametrize("what", UNSEEN_BY_MTREE)
def test_the_digest_finds_what_mtree_has_no_word_for(what: str, root: Path):
    for twin in ("twin1", "twin2"):
        (root / twin).write_bytes(b"same")
    found, manifest = scan(root)
    UNSEEN_BY_MTREE[what](root)
    assert digest(root) != found.digest
    assert mtree(manifest, root) == ""


def test_bsdtar_reads_the_manifest_too(root: Path, tmp_path: Path):
    found, manifest = scan(root)
    (tmp_path / "spec").write_bytes(manifest)
    listed = subprocess.run(
        ["bsdtar", "-tf", tmp_path / "spec"], capture_output=True, check=True, cwd=root
    )
    assert len(listed.stdout.splitlines()) == found.entries + 1


# --- what is refused ---------------------------------------------------------------------------


def refusal(root: Path, limit_entries: int = 100_000) -> tuple[str, str]:
    with pytest.raises(TreeRefused) as raised:
        tree.scan(root, limit_entries=limit_entries)
    return raised.value.extra["rule"], raised.value.extra["path"]


def test_a_socket_is_refused(root: Path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "a" / "the socket"))
        assert refusal(root) == ("type", "./a/the\\040socket")


def test_one_entry_more_than_the_limit_is_refused(root: Path):
    found, _ = scan(root)
    assert tree.scan(root, limit_entries=found.entries) == found
    assert refusal(root, limit_entries=found.entries - 1)[0] == "entries"


def descend(root: Path, name: bytes, levels: int) -> int:
    """Make ``levels`` directories, one in the other; a descriptor of the last (to be closed)."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    return fd


def test_a_tree_of_255_levels_is_taken_and_one_of_256_refused(tmp_path: Path):
    fd = descend(tmp_path, b"d", 255)
    try:
        assert tree.scan(tmp_path, limit_entries=1000).entries == 255
        os.mkdir(b"d", dir_fd=fd)
        assert refusal(tmp_path)[0] == "depth"
    finally:
        os.close(fd)


def test_a_path_of_4096_bytes_is_taken_and_a_longer_one_refused(tmp_path: Path):
    fd = descend(tmp_path, b"n" * 249, 16)  # 16 times 250 bytes with the slash
    try:
        for size in (95, 96):
            os.close(os.open(b"f" * size, os.O_CREAT, dir_fd=fd))
        assert tree.scan(tmp_path, limit_entries=1000).entries == 18
        os.close(os.open(b"g" * 97, os.O_CREAT, dir_fd=fd))
        rule, path = refusal(tmp_path)
        assert (rule, len(path)) == ("path_length", 200)
    finally:
        os.close(fd)


@pytest.fixture
def mounted(root: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    place = root / "a" / "mount point"
    if request.param == "bind mount of a file":
        place.touch()
        argv = ["mount", "--bind", str(root / "a.b"), str(place)]
    else:
        place.mkdir()
        bind = ["--bind", str(root / "a")]
        argv = ["mount", *(bind if "bind" in request.param else ["-t", "tmpfs", "tmpfs"])]
        argv.append(str(place))
    subprocess.run(argv, check=True)
    yield root
    subprocess.run(["umount", str(place)], check=True)


MOUNTS = ["tmpfs", "bind mount", "bind mount of a file"]


@pytest.mark.parametrize("mounted", MOUNTS, indirect=True)
def test_a_mount_in_the_tree_is_refused(mounted: Path):
    assert refusal(mounted) == ("mount", "./a/mount\\040point")


@pytest.mark.parametrize("mounted", MOUNTS[:1], indirect=True)
def test_a_mount_is_found_by_its_device_where_there_is_no_list(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tree, "_MOUNTS", Path("/nonexistent"))
    assert refusal(mounted) == ("mount", "./a/mount\\040point")


def test_a_mount_beside_the_tree_is_nothing_to_it(root: Path):
    place = root.with_name(root.name + "-beside")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        scan(root)
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- a tree that changes, or cannot be read ----------------------------------------------------


def when_told(do: Callable[[], object], *, read: int) -> Callable[[int, int], None]:
    """An ``on_progress`` that does something once, when ``read`` bytes have been read."""
    done: list[bool] = []

    def told(entries: int, size: int) -> None:
        if size >= read and not done:
            done.append(True)
            do()

    return told


def swap(path: Path, make: Callable[[Path], object]) -> None:
    path.rename(path.with_name("aside"))
    make(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file grows": lambda t: os.truncate(next(t.glob("dir with*/in side")), 3_500_000),
    "a file shrinks": lambda t: os.truncate(next(t.glob("dir with*/in side")), 2_000_000),
    "a file goes": lambda t: (t / "zzz-first").unlink(),
    "a directory becomes a link": lambda t: swap(t / "a", lambda p: p.symlink_to("/etc")),
    "a directory becomes a file": lambda t: swap(t / "a", lambda p: p.touch()),
    "a file becomes a directory": lambda t: swap(t / "zzz-first", lambda p: p.mkdir()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_is_noticed_ends_the_scan(
    what: str, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tree, "_PROGRESS_SECONDS", 0.0)
    read = 1_000_000 if "grows" in what or "shrinks" in what else 0  # in the midst of that file
    with pytest.raises(TreeChanged):
        scan(root, on_progress=when_told(lambda: CHANGES[what](root), read=read))


def test_a_fifo_that_takes_a_files_place_at_the_last_moment_holds_nobody_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    look = os.stat

    def look_then_swap(path, **rest):
        found = look(path, **rest)
        if path == b"a.b":
            (root / "a.b").unlink()
            os.mkfifo(root / "a.b")
        return found

    monkeypatch.setattr(tree.os, "stat", look_then_swap)
    signal.alarm(20)  # ends the process, should the open wait for a writer
    try:
        with pytest.raises(TreeChanged):
            tree.scan(root, limit_entries=1000)
    finally:
        signal.alarm(0)


def test_what_links_point_at_is_never_looked_at(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("1")
    root = tmp_path / "t"
    root.mkdir()
    (root / "link").symlink_to(outside)
    found, manifest = scan(root)
    (outside / "secret").write_text("2")
    assert digest(root) == found.digest
    assert b"secret" not in manifest
    assert found.entries == 1


def test_what_cannot_be_read_is_an_error_with_its_path():
    with tempfile.TemporaryDirectory() as place:  # not tmp_path: nobody else may enter that
        top = Path(place)
        top.chmod(0o755)
        write(os.fsencode(top / "my secret"), b"", mode=0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(PoolUnavailable) as raised:
                tree.scan(top, limit_entries=1000)
        finally:
            os.seteuid(0)
    assert raised.value.detail == "./my\\040secret cannot be read: Permission denied."


@pytest.mark.parametrize("name", ["nothing", "link", "a.b"])
def test_a_root_that_is_no_directory_is_an_error(name: str, root: Path):
    (root / "link").unlink()
    (root / "link").symlink_to("a")
    with pytest.raises(PoolUnavailable, match="cannot be read"):
        tree.scan(root / name, limit_entries=1000)


def test_no_descriptor_stays_open_whatever_happens(root: Path):
    open_before = len(os.listdir("/proc/self/fd"))
    scan(root)
    with pytest.raises(TreeRefused):
        tree.scan(root, limit_entries=20)
    assert len(os.listdir("/proc/self/fd")) == open_before
