"""The archive of a layer: read as it was written, or refused by a rule with a name."""

import io
import os
import re
import subprocess
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from templates_app.errors import TreeRefused
from templates_app.sources.native import codecs, failures, tar
from templates_app.sources.native import rules as tree_rules
from templates_app.sources.native.entry import Kind
from templates_app.sources.native.grammar import RULES
from tests.corpus.streams import STREAMS
from tests.native.archives import END, LIMITS, Plain, file, gnu_long, header, pax

FILE = file(b"f", b"hello")
TAKEN = [one for one in STREAMS if one.data and not isinstance(one.expected, str)]
CAPABILITY = b"\x01\0\0\x02" + bytes(16)  # revision 2, effective

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
    tarfile.FIFOTYPE: Kind.FIFO,
}


def read(data, chunk=256 * 1024, limits=LIMITS):
    """[(entry, contents)], and the reader's findings."""
    reader = tar.Reader(Plain(data, chunk), limits)
    found = []
    for entry in reader:
        whole = reader.small()
        parts = reader.parts() if whole is None else [whole]
        found.append((entry, b"".join(parts)))
    return found, reader.findings


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("chunk", [1000, 256 * 1024])
def test_what_an_archiver_writes_is_read_as_it_was_written(form, chunk):
    written = io.BytesIO()
    bodies = {b"small": b"small", b"empty": b"", b"large": bytes(range(256)) * 1000}
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for number, (name, body) in enumerate(bodies.items()):
            member = tarfile.TarInfo(f"usr/share/doc/{'d' * 90}/{name.decode()}")
            member.size, member.mode, member.mtime = len(body), 0o4755, 1_700_000_000 + number
            member.uid, member.gid = 1000, 0o7777777
            archive.addfile(member, io.BytesIO(body))
        for kind, name in ((b"5", "dir"), (b"2", "symlink"), (b"1", "link"), (b"3", "tty")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.devmajor, member.devminor = kind, "small", 5, 1
            archive.addfile(member)
    found, findings = read(written.getvalue(), chunk)
    assert [(e.name.rpartition(b"/")[2], body) for e, body in found[:3]] == list(bodies.items())
    assert [(e.mode, e.uid, e.gid, e.mtime_ns) for e, _ in found[:2]] == [
        (0o4755, 1000, 0o7777777, 1_700_000_000 * 10**9),
        (0o4755, 1000, 0o7777777, 1_700_000_001 * 10**9),
    ]
    assert [(e.kind, e.name, e.target, e.major, e.minor) for e, _ in found[3:]] == [
        (Kind.DIRECTORY, b"dir/", b"", 0, 0),
        (Kind.SYMLINK, b"symlink", b"small", 0, 0),
        (Kind.HARDLINK, b"link", b"small", 0, 0),
        (Kind.CHARACTER, b"tty", b"", 5, 1),
    ]
    assert findings == []


@pytest.mark.parametrize("chunk", [1, 700, 256 * 1024])
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_the_grammar(stream, chunk):
    if isinstance(stream.expected, str):
        with pytest.raises(TreeRefused) as refused:
            read(stream.data, chunk)
        assert refused.value.extra["rule"] == stream.expected
        assert "(no name)" not in refused.value.detail or "name" in stream.name
    else:
        found, findings = read(stream.data, chunk)
        assert [(entry.name, body) for entry, body in found] == stream.expected
        after = "after-the-end" in stream.name
        assert findings == ["A layer has other bytes after the end of its archive."] * after


def test_every_rule_has_a_stream():
    assert {one.expected for one in STREAMS if isinstance(one.expected, str)} == set(RULES)


def test_stream_names_are_unique():
    assert len({stream.name for stream in STREAMS}) == len(STREAMS) > 100


@pytest.mark.parametrize("stream", TAKEN, ids=lambda stream: stream.name)
def test_what_is_taken_other_readers_unpack_alike(stream, tmp_path):
    """GNU tar and bsdtar make the same files of it; what they do not agree on is refused."""
    trees = []
    for program in ("tar", "bsdtar"):
        place = tmp_path / program
        place.mkdir()
        command = [program, "-x", "-f", "-", "--no-same-owner", "-C", str(place)]
        subprocess.run(command, input=stream.data, capture_output=True, env={"LC_ALL": "C.UTF-8"})
        trees.append(
            {
                os.fsencode(path.relative_to(place)): path.read_bytes() if path.is_file() else b""
                for path in place.rglob("*")
            }
        )
    expected = {name.rstrip(b"/"): body for name, body in stream.expected}
    for tree in trees:
        # Directories above a file are made without being named.
        assert {name: tree.get(name) for name in expected} == expected
        assert all(
            any(one.startswith(name + b"/") for one in expected)
            for name in tree.keys() - expected.keys()
        )


def one(data):
    """The only entry."""
    found, _ = read(data + END)
    assert len(found) == 1
    return found[0][0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": b"0104755\0"}, {"mode": 0o4755}),
        ({"mode": b"   644 \0"}, {"mode": 0o644}),
        ({"uid": b"\x80" + bytes(3) + b"\0\1\0\0", "gid": bytes(8)}, {"uid": 65536, "gid": 0}),
        ({"uid": b"\x80" + bytes(3) + b"\xff\xff\xff\xfe"}, {"uid": 2**32 - 2}),
        ({"mtime": b"14524770400\0"}, {"mtime_ns": 1_700_000_000 * 10**9}),
        ({"mtime": b"\xff" * 12}, {"mtime_ns": -(10**9)}),
        ({"mtime": b"\x80" + bytes(8) + b"\1\0\0"}, {"mtime_ns": 65536 * 10**9}),
        ({"magic": b"ustar\0\0\0"}, {"name": b"f"}),
    ],
)
def test_numbers_of_a_header(fields, said):
    entry = one(file(b"f", b"", **fields))
    assert {key: getattr(entry, key) for key in said} == said


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([(b"uid", b"70000"), (b"gid", b"4294967294")], {"uid": 70000, "gid": 2**32 - 2}),
        ([(b"mtime", b"1.5")], {"mtime_ns": 1_500_000_000}),
        ([(b"mtime", b"1700000000.123456789987")], {"mtime_ns": 1_700_000_000_123_456_789}),
        ([(b"mtime", b"1.")], {"mtime_ns": 10**9}),
        ([(b"mtime", b"-1.5")], {"mtime_ns": -1_500_000_000}),
        ([(b"mtime", b"-0.25")], {"mtime_ns": -250_000_000}),
        ([(b"atime", b"x"), (b"ctime", b""), (b"uname", b"\0")], {"mtime_ns": 0}),
        ([(b"hdrcharset", b"BINARY"), (b"path", b"\xff")], {"name": b"\xff"}),
        ([(b"SCHILY.fflags", b"schg,uarch,nodump")], {"flags": (b"nodump", b"schg")}),
        (
            [(b"SCHILY.fflags", b"uimmutable,sappend,sunlink,offline")],
            {"flags": (b"sappnd", b"sunlnk", b"uchg")},
        ),
        ([(b"SCHILY.fflags", b"")], {"flags": ()}),
        (
            [(b"SCHILY.xattr.user.b", b"a\0=\n"), (b"SCHILY.xattr.user.a", b"")],
            {"xattrs": ((b"user.a", b""), (b"user.b", b"a\0=\n"))},
        ),
        ([(b"LIBARCHIVE.xattr.user.a%20b%3d", b"AAEC")], {"xattrs": ((b"user.a b=", b"\0\1\2"),)}),
        (
            [(b"LIBARCHIVE.xattr.user.a", b"eA"), (b"SCHILY.xattr.user.a", b"x")],
            {"xattrs": ((b"user.a", b"x"),)},
        ),
        (
            [
                (b"SCHILY.xattr.security.selinux", b"a label"),
                (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                (b"SCHILY.xattr.system.posix_acl_access", b"x"),
                (b"SCHILY.xattr.security.ima", b"x"),
                (b"LIBARCHIVE.xattr.security.evm", b"not base64 *"),
                (b"SCHILY.acl.access", b"user::rwx"),
                (b"RHT.security.selinux", b"x"),
                (b"SCHILY.dev", b"7"),
            ],
            {"xattrs": (), "flags": ()},
        ),
        (
            [(b"SCHILY.xattr.security.capability", CAPABILITY)],
            {"xattrs": ((b"security.capability", CAPABILITY),)},
        ),
        ([(b"SCHILY.xattr.user.a", b"x" * 65_000)], {"xattrs": ((b"user.a", b"x" * 65_000),)}),
    ],
)
def test_what_extended_headers_say(records, said):
    entry = one(pax(*records) + file())
    assert {key: getattr(entry, key) for key in said} == said


@pytest.mark.parametrize(
    ("data", "kind", "target", "device"),
    [
        (header(b"d/", b"5", link=b"x"), Kind.DIRECTORY, b"", (0, 0)),
        (header(b"s", b"2", link=b"../x"), Kind.SYMLINK, b"../x", (0, 0)),
        (header(b"s", b"2", link=b"t" * 100), Kind.SYMLINK, b"t" * 100, (0, 0)),
        (
            gnu_long(b"t" * 200 + b"\0", b"K") + header(b"s", b"2", link=b"t" * 100),
            Kind.SYMLINK,
            b"t" * 200,
            (0, 0),
        ),
        (pax((b"linkpath", b"p")) + header(b"l", b"1", link=b"t"), Kind.HARDLINK, b"p", (0, 0)),
        (pax((b"linkpath", b"p")) + header(b"l", b"1"), Kind.HARDLINK, b"p", (0, 0)),
        (pax((b"linkpath", b"p")) + header(b"f"), Kind.FILE, b"", (0, 0)),
        (pax((b"linkpath", b"p")) + header(b"f", b"6"), Kind.FIFO, b"", (0, 0)),
        (
            header(b"c", b"3", major=b"0007777\0", minor=b"3777777\0"),
            Kind.CHARACTER,
            b"",
            (4095, 2**20 - 1),
        ),
        (header(b"b", b"4", major=b"0000010\0", minor=b"0000001\0"), Kind.BLOCK, b"", (8, 1)),
        (header(b"p", b"6", major=b"0000010\0"), Kind.FIFO, b"", (0, 0)),
    ],
)
def test_what_is_no_plain_file(data, kind, target, device):
    entry = one(data)
    assert (entry.kind, entry.target, (entry.major, entry.minor)) == (kind, target, device)
    assert entry.size == 0


@pytest.mark.parametrize("chunk", [100, 70_000])
def test_contents_that_nobody_reads_are_skipped(chunk):
    data = file(b"a", b"x" * 200_000) + file(b"b", b"y" * 5) + file(b"c", b"z" * 200_000) + END
    assert [entry.name for entry in tar.Reader(Plain(data, chunk), LIMITS)] == [b"a", b"b", b"c"]
    reader = tar.Reader(Plain(data, chunk), LIMITS)
    first = [(entry.name, bytes(next(reader.parts())[:1])) for entry in reader]
    assert first == [(b"a", b"x"), (b"b", b"y"), (b"c", b"z")]


def test_small_contents_come_in_one_piece_that_stays():
    bodies = [bytes([n]) * size for n, size in enumerate((0, 1, 512, 65536, 65537, 3, 70_000, 9))]
    data = b"".join(file(b"%d" % n, body) for n, body in enumerate(bodies)) + END
    reader = tar.Reader(Plain(data, 3000), LIMITS)
    kept = [(entry.size, reader.small()) for entry in reader]
    for (size, whole), body in zip(kept, bodies, strict=True):
        assert size == len(body)
        assert whole is None if size > tar.SMALL else whole == body


def test_contents_that_are_cut_off_are_not_given_at_all():
    reader = tar.Reader(Plain(header(size=600) + bytes(599)), LIMITS)
    next(iter(reader))
    with pytest.raises(TreeRefused, match="cut off"):
        reader.small()


def test_memory_does_not_grow_with_the_archive():
    def endless():
        yield from (file(b"%d" % n, b"x" * 3000) for n in range(20_000))
        yield END

    class Stream:
        chunks = endless()

        def chunk(self):
            return next(self.chunks, b"")

    tracemalloc.start()
    assert sum(1 for _ in tar.Reader(Stream(), LIMITS)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_extended_headers_at_their_limits_cost_little_memory():
    attributes = [(b"SCHILY.xattr.user.%d" % n, b"x" * 240) for n in range(250)]
    most = pax(*attributes, (b"comment", b"c" * (2**20 - 80_000)))
    data = (most + file()) * 5 + END
    tracemalloc.start()
    assert [len(entry.xattrs) for entry in tar.Reader(Plain(data), LIMITS)] == [250] * 5
    assert tracemalloc.get_traced_memory()[1] < 8 << 20  # of which the archive is 5
    tracemalloc.stop()


def test_a_refusal_names_the_entry_in_a_way_that_can_be_shown():
    with pytest.raises(TreeRefused) as refused:
        read(FILE + header(b"\x1b[2J\n\xff" + b"n" * 90, b"Z"))
    assert refused.value.extra == {
        "path": "\\x1b[2J\\x0a\\xff" + "n" * 90,
        "rule": "type",
    }


def test_every_rule_is_documented_once_and_nothing_else_is():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "layers.md").read_text()
    rules = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert sorted(rules) == sorted([*RULES, *codecs.RULES, *tree_rules.RULES, *failures.RULES])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Files of every kind that an ordinary user can make, and names as long as they may be."""
    top = tmp_path_factory.mktemp("tree")
    deep = top / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(b"deep")
    (top / "file").write_bytes(b"contents" * 10_000)
    (top / "empty").touch()
    os.setxattr(top / "file", "user.color", b"green\0=\n")
    (top / "hard").hardlink_to(top / "file")
    (top / "link").symlink_to("x" * 150)
    (top / "file").chmod(0o4750)
    os.mkfifo(top / "fifo")
    os.utime(top / "file", ns=(0, 1_700_000_000_123_456_789))
    return top


@pytest.mark.parametrize(
    "command",
    [
        ["tar", "--format=pax", "--xattrs", "--sort=name"],
        ["tar", "--format=gnu", "--sort=name"],
        ["tar", "--format=oldgnu", "--sort=name"],
        ["bsdtar", "--format=pax", "--xattrs"],
        ["bsdtar", "--format=gnutar"],
    ],
    ids=" ".join,
)
def test_what_other_programs_write_is_read_as_it_lies_there(command, tree):
    done = subprocess.run(
        [*command, "-c", "-f", "-", "-C", str(tree), "."], capture_output=True, check=True
    )
    found, findings = read(done.stdout)
    assert findings == []
    pax = "--format=pax" in command
    seen = set()
    for entry, body in found:
        path = tree / os.fsdecode(entry.name)
        there = path.lstat()
        seen.add(path)
        assert (entry.mode, entry.uid, entry.gid) == (
            there.st_mode & 0o7777,
            there.st_uid,
            there.st_gid,
        )
        unit = 1 if pax else 10**9
        assert entry.mtime_ns == there.st_mtime_ns // unit * unit
        if entry.kind is Kind.HARDLINK:
            assert path.samefile(tree / os.fsdecode(entry.target))
        elif path.is_symlink():
            assert (entry.kind, entry.target) == (Kind.SYMLINK, b"x" * 150)
        elif path.is_fifo():
            assert entry.kind is Kind.FIFO
        elif path.is_dir():
            assert entry.kind is Kind.DIRECTORY
        else:
            assert (entry.kind, body) == (Kind.FILE, path.read_bytes())
        if pax and body and path.samefile(tree / "file"):
            assert entry.xattrs == ((b"user.color", b"green\0=\n"),)
    assert seen == {tree, *tree.rglob("*")}
    assert sum(entry.kind is Kind.HARDLINK for entry, _ in found) == 1


def test_reading_takes_a_fraction_of_what_pythons_reader_takes():
    data = b"".join(file(b"%d/%d" % (n // 99, n), b"x" * 900) for n in range(2000)) + END

    def mine():
        assert len(list(tar.Reader(Plain(data), LIMITS))) == 2000

    def theirs():
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            assert len(list(archive)) == 2000

    took = {mine: [], theirs: []}
    for _ in range(5):
        for each, seconds in took.items():
            begun = time.process_time()
            each()
            seconds.append(time.process_time() - begun)
    assert min(took[theirs]) > 4 * min(took[mine])
