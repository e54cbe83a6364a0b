"""The writer: operations on a real directory, and a disk that is not as expected."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from templates_app.sources.native import wire
from templates_app.sources.native.entry import Kind
from templates_app.sources.native.model import Tree
from templates_app.sources.native.operations import Do
from templates_app.sources.native.writer import MAX_OPEN, Writer
from templates_app.trust import attributes
from tests.corpus.stacks import STACKS, Stack
from tests.native.applied import entry
from tests.native.archives import LIMITS
from tests.unit.trees import CAPABILITY, scan

DAY = 86400 * 10**9
PLAIN = (0o644, 0, 0, DAY, (), ())


class Disk:
    """What a reader would send, executed at once."""

    def __init__(self, top: Path, *, privileged: bool = True) -> None:
        top.mkdir()
        self.top = top
        self.fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.writer = Writer(self.fd, privileged)
        self.stopped: list[int] = []

    def run(self, *operations: tuple[object, ...], contents: bytes = b"") -> None:
        frames: list[bytes] = []
        encoder = wire.Encoder(lambda frame: frames.append(bytes(frame)))
        for operation in operations:
            if operation[0] != Do.FILE:
                encoder.add(operation)
            elif len(contents) <= 65536:
                encoder.file(operation, contents)
            else:
                encoder.file(operation, None)
                for at in range(0, len(contents), 50_000):
                    encoder.data(memoryview(contents)[at : at + 50_000])
        encoder.stop(len(self.stopped))
        lengths = [wire.LENGTH.unpack_from(frame)[0] for frame in frames]
        assert lengths == [len(frame) - 4 for frame in frames]
        waiting = [frame[4:] for frame in frames]

        def following() -> bytes:
            if not waiting:
                raise wire.Broken
            return waiting.pop(0)

        with pytest.raises(wire.Broken):
            self.writer.run(following, self.stopped.append)

    def close(self) -> None:
        self.writer.close()
        os.close(self.fd)


@pytest.fixture
def disk(tmp_path):
    before = os.umask(0)
    made = Disk(tmp_path / "root")
    yield made
    made.close()
    os.umask(before)


def facts(path: Path) -> tuple[int, int, int, int]:
    there = path.lstat()
    return stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid, there.st_mtime_ns


@pytest.mark.parametrize("size", [0, 7, 65536, 65537, 1_000_000])
def test_a_file_has_its_contents_and_attributes(disk, size):
    contents = os.urandom(size)
    xattrs = ((b"security.capability", CAPABILITY), (b"user.note", b"\0\xff"))
    meta = (0o6755, 5, 6, 3 * DAY + 7, xattrs, ())
    disk.run((Do.FILE, 0, b"odd \xff", meta, size), contents=contents)
    path = disk.top / os.fsdecode(b"odd \xff")
    assert path.read_bytes() == contents
    assert facts(path) == (0o6755, 5, 6, 3 * DAY + 7)
    with path.open("rb") as file:
        # chown(2) clears capabilities and set-id bits: both came after it.
        assert attributes.extended(file.fileno()) == list(xattrs)
    assert disk.writer.written == size
    assert disk.stopped == [0]


def test_links_and_special_files(disk):
    disk.run(
        (Do.FILE, 0, b"file", PLAIN, 1),
        (Do.SYMLINK, 0, b"symlink", b"../../etc/passwd", 7, 8, DAY),
        (Do.LINK, 0, b"second", 0, b"file"),
        (Do.LINK, 0, b"of-symlink", 0, b"symlink"),
        (Do.NODE, 0, b"fifo", int(Kind.FIFO), (0o4640, 1, 2, DAY, (), ()), 0, 0),
        (Do.NODE, 0, b"null", int(Kind.CHARACTER), (0o666, 1, 2, DAY, (), ()), 1, 3),
        contents=b"x",
    )
    assert (disk.top / "symlink").readlink() == Path("../../etc/passwd")
    assert facts(disk.top / "symlink")[1:] == (7, 8, DAY)
    assert (disk.top / "second").stat().st_ino == (disk.top / "file").stat().st_ino
    # Itself and not what it leads to.
    assert (disk.top / "of-symlink").lstat().st_ino == (disk.top / "symlink").lstat().st_ino
    assert stat.S_ISFIFO((disk.top / "fifo").stat().st_mode)
    assert facts(disk.top / "fifo") == (0o4640, 1, 2, DAY)
    assert (disk.top / "null").stat().st_rdev == os.makedev(1, 3)
    assert facts(disk.top / "null") == (0o666, 1, 2, DAY)


def test_directories_are_settled_after_what_is_in_them(disk):
    shut = (0o2550, 3, 4, DAY, ((b"user.a", b"1"), (b"user.b", b"2")), ())
    disk.run(
        (Do.MKDIR, 0, b"shut", 1),
        (Do.FILE, 1, b"inside", PLAIN, 0),
        (Do.SETTLE, 1, shut),
        (Do.SETTLE, 0, (0o711, 1, 2, 2 * DAY, (), ())),
    )
    assert facts(disk.top / "shut") == (0o2550, 3, 4, DAY)
    assert facts(disk.top) == (0o711, 1, 2, 2 * DAY)
    # The next layer puts a file in, and has other attributes: none of the old ones stay (L3).
    disk.run(
        (Do.FILE, 1, b"later", PLAIN, 0),
        (Do.SETTLE, 1, (0o750, 0, 0, DAY, ((b"user.b", b"3"),), ())),
    )
    assert facts(disk.top / "shut") == (0o750, 0, 0, DAY)
    assert os.listxattr(disk.top / "shut") == ["user.b"]
    # A directory that is set-gid gives its group to what is made in it; the image says another.
    assert facts(disk.top / "shut/later")[1:3] == (0, 0)


def test_a_directory_of_a_kept_layer_gets_its_time_back(disk):
    (disk.top / "old").mkdir()
    os.utime(disk.top / "old", ns=(DAY, DAY))
    disk.run(
        (Do.KNOWN, 0, b"old", 1),
        (Do.FILE, 1, b"new", PLAIN, 0),
        (Do.SETTLE, 1, None),
    )
    assert (disk.top / "old/new").exists()
    assert facts(disk.top / "old")[3] == DAY


def test_a_tree_is_removed_without_following_anything(disk, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "stays").write_text("here")
    (disk.top / "deep").mkdir()
    at = disk.top / "deep"
    for _ in range(200):
        at = at / "d"
        at.mkdir()
        (at / "file").write_text("x")
        (at / "out").symlink_to(beside)
    (disk.top / "deep/shut").mkdir(mode=0)
    disk.run((Do.REMOVE, 0, b"deep", 1))
    assert list(disk.top.iterdir()) == []
    assert (beside / "stays").read_text() == "here"


def test_more_directories_than_may_be_open(disk):
    made = [
        operation
        for number in range(1, 2 * MAX_OPEN)
        for operation in (
            (Do.MKDIR, number - 1 if number % 7 else 0, b"d%d" % number, number),
            (Do.FILE, number, b"f", PLAIN, 1),
        )
    ]
    disk.run(*made, *[(Do.FILE, number, b"g", PLAIN, 1) for number in range(1, 200)], contents=b"x")
    assert sum(len(files) for _, _, files in os.walk(disk.top)) == 2 * MAX_OPEN - 1 + 199
    assert len(list(Path("/proc/self/fd").iterdir())) < MAX_OPEN + 40


@pytest.mark.parametrize(
    ("in_the_way", "operation"),
    [
        ("file", (Do.FILE, 0, b"name", PLAIN, 1)),
        ("link", (Do.FILE, 0, b"name", PLAIN, 1)),
        ("link", (Do.MKDIR, 0, b"name", 1)),
        ("link", (Do.SYMLINK, 0, b"name", b"x", 0, 0, DAY)),
        ("link", (Do.REMOVE, 0, b"name", 1)),
    ],
)
def test_what_the_model_does_not_know_of_is_never_written_through(
    disk, tmp_path, in_the_way, operation
):
    outside = tmp_path / "outside"
    outside.mkdir()
    if in_the_way == "file":
        (disk.top / "name").write_text("other")
    else:
        (disk.top / "name").symlink_to(outside)
    with pytest.raises(OSError, match="exists|Not a directory|symbolic links"):
        disk.run(operation, contents=b"x")
    assert list(outside.iterdir()) == []


def test_a_directory_that_became_a_symlink_is_not_entered(disk, tmp_path):
    disk.run((Do.MKDIR, 0, b"dir", 1))
    (disk.top / "dir").rmdir()
    (disk.top / "dir").symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory|symbolic links"):
        disk.run((Do.FILE, 1, b"file", PLAIN, 0))
    assert not (tmp_path / "file").exists()


def test_without_root_the_rest_is_counted_and_files_stay_usable(tmp_path):
    disk = Disk(tmp_path / "root", privileged=False)
    capability = ((b"security.capability", CAPABILITY),)
    disk.run(
        (Do.MKDIR, 0, b"shut", 1),
        (Do.FILE, 1, b"file", (0, 5, 6, DAY, capability, (b"uchg",)), 1),
        (Do.NODE, 0, b"null", int(Kind.CHARACTER), PLAIN, 1, 3),
        (Do.SYMLINK, 0, b"symlink", b"x", 7, 8, DAY),
        (Do.SETTLE, 1, (0o555, 0, 0, DAY, (), ())),
        contents=b"x",
    )
    disk.close()
    skipped = disk.writer.skipped
    assert (skipped.owners, skipped.modes, skipped.devices, skipped.attributes) == (2, 2, 1, 1)
    assert skipped.flags == 1
    assert facts(disk.top / "shut")[0] == 0o755
    assert facts(disk.top / "shut/file") == (0o600, 0, 0, DAY)
    assert not (disk.top / "null").exists()


def test_without_root_a_device_that_was_not_made_can_be_linked_and_replaced(tmp_path):
    disk = Disk(tmp_path / "root", privileged=False)
    disk.run(
        (Do.NODE, 0, b"null", int(Kind.CHARACTER), PLAIN, 1, 3),
        (Do.LINK, 0, b"zero", 0, b"null"),
        (Do.REMOVE, 0, b"null", 0),
        (Do.FILE, 0, b"null", PLAIN, 1),
        (Do.REMOVE, 0, b"zero", 0),
        (Do.REMOVE, 0, b"null", 0),
        (Do.FILE, 0, b"null", PLAIN, 1),
        contents=b"x",
    )
    disk.close()
    assert disk.writer.skipped.devices == 1
    assert [path.name for path in disk.top.iterdir()] == ["null"]


@pytest.mark.parametrize("stack", [one for one in STACKS if not one.rule], ids=lambda one: one.name)
def test_without_root_all_is_there_but_devices(stack: Stack, tmp_path):
    disk = Disk(tmp_path / "root", privileged=False)
    tree = Tree(LIMITS, ("/dev/*", "/proc/*"))
    for layer in stack.layers:
        tree.begin()
        for member in layer:
            for operation in (operations := tree.add(entry(member))):
                disk.run(operation, contents=member.content)
            if operations and operations[-1][0] == Do.FILE:
                tree.content("0" * 64)
        disk.run(*tree.end())
    disk.close()
    there = [line.split()[0] for line in scan(disk.top)[1].splitlines() if line[:1] != b"#"]
    manifest = b"".join(tree.manifest()).splitlines()
    kinds = [line.split()[:2] for line in manifest if line[:1] != b"#"]
    assert there == [path for path, kind in kinds if kind not in (b"type=char", b"type=block")]


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc8",
        wire.PLACE.pack(99, 0, 0, 0),
        wire.BULK.pack(wire.DATA, 1) + b"x",
        wire.NODE.pack(wire.LARGE, 0, 0, 0, 0o644, 0, 5, 1, 0)
        + b"a"
        + wire.BULK.pack(wire.DATA, 6)
        + b"123456",
        2 * (wire.NODE.pack(wire.LARGE, 0, 0, 0, 0o644, 0, 5, 1, 0) + b"a"),
    ],
)
def test_frames_that_no_reader_sends_end_it(disk, frame):
    with pytest.raises((wire.Broken, struct.error)):
        disk.writer.run(iter([frame]).__next__, disk.stopped.append)
