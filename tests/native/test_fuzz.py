"""What hostile bytes may do to those who read them first: be read, or be refused by name.

``make soak`` is these tests, each at it for SOAK_SECONDS.
"""

from __future__ import annotations

import decimal
import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import time

import zstandard
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from deploy import images
from templates_app.errors import CoppiceError, NotAnImage, PullFailed, TreeRefused
from templates_app.names import Platform
from templates_app.sources import documents
from templates_app.sources.native import codecs, tar
from templates_app.sources.native.entry import Kind
from templates_app.sources.native.grammar import MAX_ID, RULES
from tests.corpus.streams import STREAMS
from tests.native.archives import END, LIMITS, file, gnu_long, header, padded, raw_pax, record

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))


def at_it(examples):
    """One round of so many examples; rounds until SOAK_SECONDS are over."""

    def decorate(property_):
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        within = settings(max_examples=examples, deadline=None, suppress_health_check=slow)
        one_round = within(property_)

        def test():
            deadline = time.monotonic() + SECONDS
            one_round()
            while time.monotonic() < deadline:
                one_round()

        test.__name__, test.__doc__ = property_.__name__, property_.__doc__
        return test

    return decorate


class Counted:
    """A stream that notices who goes on asking after its end."""

    def __init__(self, data, size):
        self.source, self.size, self.ends = io.BytesIO(data), size, 0

    def chunk(self):
        data = self.source.read(self.size)
        self.ends += not data
        assert self.ends <= 2
        return data


def read(data, size=4096):
    """[(entry, contents)] or TreeRefused; nothing else."""
    reader = tar.Reader(Counted(data, size), LIMITS)
    found = []
    for entry in reader:
        assert entry.name
        assert b"\0" not in entry.name + entry.target
        assert 0 <= entry.mode <= 0o7777
        assert 0 <= entry.uid <= MAX_ID
        assert 0 <= entry.gid <= MAX_ID
        assert -(2**63) < entry.mtime_ns < 2**63
        assert 0 <= entry.size <= LIMITS.file_bytes
        assert entry.size == 0 or entry.kind is Kind.FILE
        assert bool(entry.target) == (entry.kind in (Kind.SYMLINK, Kind.HARDLINK))
        body = b"".join(reader.parts())
        assert len(body) == entry.size
        found.append((entry, body))
    return found


# --- what an archiver writes ---------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
PATHS = st.one_of(NAMES, st.builds("/".join, st.lists(NAMES | st.just("d" * 60), max_size=8)))
TIMES = st.integers(-(2**32), 2**33) | st.integers(-(2**40), 2**40).map(lambda n: n / 1000)
TYPES = st.sampled_from([b"0", b"\0", b"7", b"1", b"2", b"3", b"4", b"5", b"6"])


@st.composite
def members(draw):
    member = tarfile.TarInfo(draw(PATHS))
    member.type, member.mode = draw(TYPES), draw(st.integers(0, 0o7777))
    member.uid, member.gid = (draw(st.integers(0, 2**21) | st.integers(0, MAX_ID)) for _ in "ug")
    member.mtime, member.linkname = draw(TIMES), draw(PATHS)
    member.devmajor, member.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1))
    member.uname = draw(st.sampled_from(["", "root", "u" * 40]))
    body = draw(st.binary(max_size=10) | st.sampled_from([b"x" * 512, b"y" * 5000]))
    if not member.isreg():
        body = b""
    member.size = len(body)
    is_link = member.type in (b"1", b"2")
    assume(member.name.strip("/") and (member.linkname or not is_link))
    assume(not member.name.endswith("/") or member.isdir())
    return member, body


def written(form, found):
    """The archive; None where the format cannot hold it."""
    out = io.BytesIO()
    try:
        with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as archive:
            for member, body in found:
                archive.addfile(member, io.BytesIO(body))
    except ValueError:
        return None
    return out.getvalue()


FORMS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
KINDS = {b"0": 1, b"\0": 1, b"7": 1, b"5": 2, b"2": 3, b"1": 4, b"3": 5, b"4": 6, b"6": 7}


@at_it(100)
@given(form=FORMS, found=st.lists(members(), max_size=5), size=st.sampled_from([1, 511, 4096]))
def test_what_an_archiver_writes_is_read_as_it_was_meant(form, found, size):
    data = written(form, found)
    assume(data is not None)
    entries = read(data, size)
    assert len(entries) == len(found)
    for (member, body), (entry, contents) in zip(found, entries, strict=True):
        # The archiver ends a directory's name with a slash.
        name = entry.name.rstrip(b"/") if member.isdir() else entry.name
        assert name == member.name.rstrip("/").encode()
        assert (entry.kind, contents) == (KINDS[member.type], body)
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        if member.type in (b"1", b"2"):
            assert entry.target == member.linkname.encode()
        if member.type in (b"3", b"4"):
            assert (entry.major, entry.minor) == (member.devmajor, member.devminor)
        seconds = decimal.Decimal(str(member.mtime))
        if form != tarfile.PAX_FORMAT:
            seconds = int(member.mtime)
        assert entry.mtime_ns == int(seconds * 10**9)


# --- what is not quite an archive ----------------------------------------------------------------

FIELDS = st.sampled_from(
    [b"0000644\0", b"00000000005\0", b"5", b" 7 ", b"", b"\x80" + bytes(6) + b"\5", b"\xff" * 12]
)
KEYS = [b"path", b"linkpath", b"size", b"uid", b"mtime", b"comment", b"SCHILY.fflags"]
KEYS += [b"GNU.sparse.major", b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.a", b""]
VALUES = st.sampled_from([b"", b"5", b"p", b"a/b", b"0", b"600", b"1.5", b"-1", b"d/", b"eA"])
RECORD = st.builds(record, st.sampled_from(KEYS), VALUES | st.binary(max_size=9))
PIECES = st.one_of(
    st.builds(file, st.sampled_from([b"f", b"d/f", b"\xff"]), st.binary(max_size=9)),
    st.builds(lambda kind: header(b"h", kind, 0, link=b"t"), TYPES),
    st.just(header(b"d/", b"5")),
    st.builds(
        lambda kind, size, uid, mtime, magic: header(
            b"h", kind, size, uid=uid[:8], mtime=mtime, magic=magic, link=b"t"
        ),
        st.sampled_from([b"0", b"1", b"5", b"x", b"g", b"L", b"K", b"S", b"Z"]),
        FIELDS | st.sampled_from([0, 5, 512, 513]),
        FIELDS,
        FIELDS,
        st.sampled_from([b"ustar\x0000", b"ustar  \0", bytes(8)]),
    ),
    st.builds(
        lambda records, kind: raw_pax(b"".join(records), kind),
        st.lists(RECORD | st.binary(max_size=5), max_size=3),
        st.sampled_from([b"x", b"x", b"x", b"g"]),
    ),
    st.builds(
        gnu_long,
        st.sampled_from([b"l\0", b"l" * 300 + b"\0", b"l", b"\0"]),
        st.sampled_from([b"L", b"K"]),
    ),
    st.builds(padded, st.binary(max_size=20)),
    st.just(bytes(512)),
)
CHANGES = st.just([]) | st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=2)
CUTS = st.sampled_from([0, 0, 0, 512, 1024, 1]) | st.integers(0, 3000)


def changed(data, changes):
    data = bytearray(data)
    for at, value in changes if data else []:
        data[at % len(data)] = value
    return bytes(data)


def has_global(data):
    """Python heeds owners and times of a global header; we do not, as buildah does not."""
    return any(data[at + 156 : at + 157] == b"g" for at in range(0, len(data), 512))


def of_python(data):
    """What Python's reader makes of it, as far as the two speak of the same; None for an error."""
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8") as archive:
            for one in archive:
                body = archive.extractfile(one).read() if one.isreg() else b""
                link = os.fsencode(one.linkname) if one.type in (b"1", b"2") else b""
                name = os.fsencode(one.name).rstrip(b"/")
                owner = (0, 0) if has_global(data) else (one.uid, one.gid)
                seconds = 0 if has_global(data) else int(one.mtime)
                mode = one.mode & 0o7777
                found.append((name, KINDS[one.type], link, mode, *owner, seconds, body))
    except tarfile.ReadError:  # an empty archive, or one that ends with a global header
        return None
    return found


@at_it(300)
@given(pieces=st.lists(PIECES, max_size=6), changes=CHANGES, cut=CUTS)
@example(pieces=[one.data for one in STREAMS if one.name == "last-key-wins"], changes=[], cut=0)
def test_what_is_taken_means_the_same_to_another_reader(pieces, changes, cut):
    """Changed at will, an archive is refused by a rule, or read as Python reads it."""
    data = changed(b"".join(pieces) + END, changes)
    data = data[: len(data) - cut]
    try:
        found = read(data)
    except TreeRefused as refused:
        assert refused.extra["rule"] in RULES  # noqa: PT017 - either this, or what follows
        return
    mine = []
    for entry, body in found:
        owner = (0, 0) if has_global(data) else (entry.uid, entry.gid)
        seconds = 0 if has_global(data) else int(entry.mtime_ns / 10**9)  # towards 0, as of a float
        name = entry.name.rstrip(b"/")
        mine.append((name, entry.kind, entry.target, entry.mode, *owner, seconds, body))
    assert of_python(data) in (mine, None)


@at_it(100)
@given(pieces=st.lists(PIECES, min_size=1, max_size=6), changes=CHANGES, cut=CUTS)
def test_what_is_taken_other_programs_list_alike(pieces, changes, cut):
    data = changed(b"".join(pieces) + END, changes)
    try:
        names = [entry.name.rstrip(b"/") for entry, _ in read(data[: len(data) - cut])]
    except TreeRefused:
        names = []
    assume(names and all(re.fullmatch(rb"[!-\[\]-~]+", name) for name in names))
    for program in ("tar", "bsdtar"):
        done = subprocess.run(
            [program, "-t", "-f", "-"],
            input=data[: len(data) - cut],
            capture_output=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        assert [name.rstrip(b"/") for name in done.stdout.splitlines()] == names


WHOLE = b"".join(
    [
        *(header(b"entry-%s" % kind, kind, 0, link=b"target") for kind in (b"0", b"1", b"2", b"5")),
        *(header(b"entry-%s" % kind, kind, major=b"0000010\0") for kind in (b"3", b"4", b"6")),
        header(b"v7", b"\0", mtime=b"14524770400\0", magic=bytes(8)),
        header(b"gnu", b"0", uid=b"\x80" + bytes(6) + b"\5", magic=b"ustar  \0"),
        header(b"name", b"7", prefix=b"prefix"),
    ]
)


@at_it(300)
@given(at=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_a_damaged_header_is_not_read_as_another_one(at, value):
    try:
        assert read(changed(WHOLE, [(at, value)])) == read(WHOLE)
    except TreeRefused as refused:
        assert refused.extra["rule"] in RULES  # noqa: PT017 - either this, or equal


# --- codecs --------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 300 + bytes(70_000)
FRAMES = zstandard.ZstdCompressor(write_checksum=True)
BLOBS = {
    "gzip": gzip.compress(BODY, mtime=0),
    "zstd": b"\x50\x2a\x4d\x18\3\0\0\0abc" + FRAMES.compress(BODY),
}


@at_it(200)
@given(codec=st.sampled_from(list(BLOBS)), changes=CHANGES, cut=CUTS)
def test_a_damaged_blob_gives_the_same_bytes_or_none(codec, changes, cut):
    blob = changed(BLOBS[codec], changes)
    layer = codecs.Layer(io.BytesIO(blob[: len(blob) - cut]), "x+" + codec, LIMITS)
    out = b""
    try:
        while data := layer.chunk():
            out += data
            assert len(out) <= len(BODY) + 2**20
    except TreeRefused as refused:
        assert refused.extra["rule"] in codecs.RULES  # noqa: PT017 - one of three outcomes
    except PullFailed as failed:
        assert failed.reason == "corrupt"  # noqa: PT017
    else:
        assert out in (BODY, b"")  # nothing, where what is left of zstd is a skippable frame


# --- manifests -----------------------------------------------------------------------------------

LAYER = images.layer([images.file("a", "a")])
IMAGE = images.image([LAYER])
SOUND = [IMAGE.data, images.index([IMAGE]).data]
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("x" * 999),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)


def put(document, odd, way):
    """The document with something odd at the place that ``way`` leads to."""
    if not way or not isinstance(document, dict | list) or not document:
        return odd
    step, rest = way[0], way[1:]
    if isinstance(document, list):
        at = step % len(document)
        return [*document[:at], put(document[at], odd, rest), *document[at + 1 :]]
    key = sorted(document)[step % len(document)]
    return {**document, key: put(document[key], odd, rest)}


@at_it(200)
@given(
    sound=st.sampled_from(SOUND),
    odd=ODD,
    way=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    changes=CHANGES,
)
def test_an_odd_manifest_is_understood_or_not_an_image(sound, odd, way, changes):
    document = json.dumps(put(json.loads(sound), odd, way)).encode("utf-8", "surrogatepass")
    try:
        found = documents.read(changed(document, changes))
        if isinstance(found, documents.Index):
            for one in found.matching(Platform.parse("linux/amd64")):
                assert one.size >= 0
        else:
            documents.read_config(changed(document, changes[:1]), found)
    except (NotAnImage, TreeRefused) as error:
        assert isinstance(error, CoppiceError)  # noqa: PT017 - either this, or understood
        assert error.detail
