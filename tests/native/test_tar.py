"""The archive of a layer: read as it was written, or refused by a rule with a name."""

import io
import tarfile

import pytest

from templates_app.sources.native import tar
from templates_app.sources.native.entry import Kind
from tests.native.archives import LIMITS, Plain

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
