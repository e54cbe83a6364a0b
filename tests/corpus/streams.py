"""Archives that readers disagree about, or that broke one: what each must be here.

``others`` says what GNU tar 1.34, bsdtar 3.6.2 (libarchive) and Python 3.11's tarfile make of it,
where it is something else. Rule ids are those of the grammar in docs/reference/layers.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.native.archives import END, file, gnu_long, header, padded, pax, raw_pax

GNU, V7 = b"ustar  \0", bytes(8)


@dataclass(frozen=True, slots=True)
class Stream:
    name: str
    data: bytes
    #: A rule, or what is read: (name, contents) of each entry.
    expected: str | list[tuple[bytes, bytes]]
    others: str = ""


def with_size(field: bytes) -> bytes:
    return header(size=field) + padded(b"hello") + END


F = [(b"f", b"hello")]
FILE = file(b"f", b"hello")
LONG = b"l" * 200 + b"/" + b"m" * 100

STREAMS = [
    # --- what is read ---
    Stream("v7", header(b"f", b"\0", 5, magic=V7) + padded(b"hello") + END, F),
    Stream("gnu", header(b"f", b"0", 5, magic=GNU) + padded(b"hello") + END, F),
    Stream("contiguous", header(b"f", b"7", 5) + padded(b"hello") + END, F),
    Stream("prefix", file(b"f", b"hello", prefix=b"a/b") + END, [(b"a/b/f", b"hello")]),
    Stream("name-of-100", file(b"n" * 100, b"hello") + END, [(b"n" * 100, b"hello")]),
    Stream("not-utf-8", file(b"\xff\xfe", b"hello") + END, [(b"\xff\xfe", b"hello")]),
    Stream("gnu-long-name", gnu_long(LONG + b"\0") + FILE + END, [(LONG, b"hello")]),
    Stream("pax-path", pax((b"path", b"\xe4/b")) + FILE + END, [(b"\xe4/b", b"hello")]),
    Stream("pax-is-for-one", pax((b"path", b"p")) + FILE + FILE + END, [(b"p", b"hello"), *F]),
    Stream(
        "pax-size-and-gnu-name",
        pax((b"size", b"5")) + gnu_long(b"long\0") + header(b"f") + padded(b"hello") + END,
        [(b"long", b"hello")],
    ),
    Stream("last-key-wins", pax((b"path", b"p"), (b"path", b"q")) + FILE + END, [(b"q", b"hello")]),
    Stream("unknown-keys", pax((b"VENDOR.x", b"a\0b"), (b"comment", b"")) + FILE + END, F),
    Stream("global-comment", pax((b"comment", b"c"), kind=b"g") + FILE + END, F),
    Stream(
        "global-owner",
        pax((b"uid", b"7"), (b"mtime", b"1"), kind=b"g") + FILE + END,
        F,
        "GNU tar and Python give the file that owner; umoci refuses any global header",
    ),
    Stream("pax-size", pax((b"size", b"5")) + header(b"f") + padded(b"hello") + END, F),
    Stream("size-of-a-directory", header(b"d", b"5", 512) + FILE + END, [(b"d", b""), *F]),
    Stream("base-256-size", with_size(b"\x80" + bytes(10) + b"\5"), F),
    Stream("blanks-before-digits", with_size(b"          5 "), F),
    Stream("digits-to-the-end", with_size(b"000000000005"), F),
    Stream("no-end", FILE, F),
    Stream("no-archive", b"", []),
    Stream("one-zero-block-at-the-end", FILE + bytes(512), F, "GNU tar warns"),
    Stream("half-a-zero-block", FILE + bytes(700), F),
    Stream("only-the-end", END, []),
    Stream("time-after-2038", pax((b"mtime", b"4294967296.5")) + FILE + END, F),
    Stream("last-time", pax((b"mtime", b"9223372035.999999999")) + FILE + END, F),
    Stream("first-time", pax((b"mtime", b"-9223372035")) + header(b"d", b"5") + END, [(b"d", b"")]),
    Stream("padded-to-a-tape-block", FILE + bytes(10240 - 1024), F),
    Stream("something-after-the-end", FILE + END + b"secret" + bytes(99), F),
    Stream("an-archive-after-the-end", FILE + END + file(b"g", b"x") + END, F),
    # --- headers ---
    Stream("checksum", file(checksum=b"001234\0 ") + END, "checksum"),
    Stream("no-checksum", file(checksum=bytes(8)) + END, "checksum"),
    # 65521 too few: what a checksum modulo adler's prime would let through.
    Stream(
        "checksum-modulo",
        header(b"\xff" * 100, link=b"\xff" * 100, prefix=b"\xff" * 155, checksum=b"061127\0 ")
        + END,
        "checksum",
    ),
    Stream("magic", file(magic=b"USTAR\x0000") + END, "magic", "read as v7"),
    Stream(
        "prefix-with-gnu-magic",
        header(b"f", b"0", 5, magic=GNU, prefix=b"a") + padded(b"hello") + END,
        "prefix",
        "Python: a/f; GNU tar and bsdtar: f; Go before 1.8 wrote such",
    ),
    Stream(
        "prefix-in-v7",
        header(b"f", b"0", 5, magic=V7, prefix=b"a") + padded(b"hello") + END,
        "prefix",
        "Python: a/f; GNU tar and bsdtar: f",
    ),
    Stream("no-name", file(b"") + END, "name-empty"),
    Stream("no-name-but-a-prefix", file(b"", prefix=b"a") + END, "name-empty"),
    Stream("not-an-archive", b"<html>" * 200, "checksum"),
    Stream("half-a-header", FILE + header()[:500], "truncated"),
    # --- numbers ---
    Stream("negative-size", with_size(b"\xff" * 12), "number", "CVE-2025-8194 looped in Python"),
    Stream("base-256-with-other-bits", with_size(b"\x81" + bytes(10) + b"\5"), "number"),
    Stream("size-of-blanks", with_size(b" " * 12), "number", "bsdtar, Python: 0"),
    Stream("size-in-hexadecimal", with_size(b"0x000000005\0"), "number"),
    Stream(
        "size-with-a-sign", with_size(b"+0000000005\0"), "number", "GNU tar: base 64; Python: 5"
    ),
    Stream("size-with-underscores", with_size(b"00000_00005\0"), "number", "Python: 5"),
    Stream("size-with-an-8", with_size(b"00000000008\0"), "number"),
    Stream("size-and-junk", with_size(b"5\0garbage777"), "number", "GNU tar, Python: 5"),
    Stream("negative-owner", file(uid=b"\xff" * 8) + END, "number"),
    Stream("owner-that-means-none", file(gid=b"\x80\0\0\0\xff\xff\xff\xff") + END, "number"),
    Stream("time-beyond-nanoseconds", file(mtime=b"7" * 12) + END, "number"),
    Stream("device-out-of-range", header(b"c", b"3", major=b"0010000\0") + END, "number"),
    Stream("minor-out-of-range", header(b"c", b"4", minor=b"4000000\0") + END, "number"),
    Stream("larger-than-allowed", with_size(b"\x80\0\0\0\0\0\0\3\0\0\0\0"), "file-bytes"),
    *(
        Stream(f"pax-{key.decode()}-{value!r}", pax((key, value)) + FILE + END, "number")
        for key, value in (
            (b"size", b""),
            (b"size", b"-1"),
            (b"size", b"0x5"),
            (b"size", b"5.0"),
            (b"size", b" 5"),
            (b"size", b"1_0"),
            (b"size", b"9" * 30),
            (b"uid", b"4294967295"),
            (b"gid", b"-2"),
            (b"mtime", b""),
            (b"mtime", b"1e9"),
            (b"mtime", b"1.5.5"),
            (b"mtime", b"99999999999"),
        )
    ),
    Stream(
        "pax-size-of-a-directory",
        pax((b"size", b"%d" % len(FILE))) + header(b"d/", b"5") + FILE + END,
        "size",
        "GNU tar, Python: d/ and f; bsdtar: d/ alone",
    ),
    Stream(
        "pax-size-of-a-hard-link",
        pax((b"size", b"%d" % len(FILE))) + header(b"l", b"1", link=b"f") + FILE + END,
        "size",
    ),
    *(
        Stream(f"size-of-{name}", header(b"l", kind, 512, link=b"f") + FILE + END, "size", others)
        for name, kind, others in (
            (
                "a-hard-link",
                b"1",
                "bsdtar has contents follow, if any entry before had a pax header",
            ),
            ("a-symlink", b"2", "GNU tar's list has no f, but it unpacks f"),
            ("a-character-device", b"3", "GNU tar's list has no f, but it unpacks f"),
            ("a-fifo", b"6", "GNU tar's list has no f, but it unpacks f"),
        )
    ),
    Stream("pax-size-too-large", pax((b"size", b"9" * 18)) + FILE + END, "file-bytes"),
    # --- extended headers ---
    Stream(
        "pax-and-gnu-name",
        pax((b"path", b"p")) + gnu_long(b"l\0") + FILE + END,
        "extension-twice",
        "Go: l; the others: p",
    ),
    Stream(
        "gnu-and-pax-name",
        gnu_long(b"l\0") + pax((b"path", b"p")) + FILE + END,
        "extension-twice",
        "GNU tar: p; bsdtar, Python: l",
    ),
    Stream(
        "pax-and-gnu-target",
        pax((b"linkpath", b"p")) + gnu_long(b"l\0", b"K") + header(b"s", b"2", link=b"x") + END,
        "extension-twice",
    ),
    Stream(
        "gnu-and-pax-target",
        gnu_long(b"l\0", b"K") + pax((b"linkpath", b"p")) + header(b"s", b"2", link=b"x") + END,
        "extension-twice",
        "GNU tar: p; bsdtar: l",
    ),
    Stream(
        "two-pax",
        pax((b"path", b"p")) + pax((b"uid", b"1")) + FILE + END,
        "extension-twice",
        "GNU tar, bsdtar: the second counts; Python: both",
    ),
    Stream(
        "two-gnu-names",
        gnu_long(b"l\0") + gnu_long(b"m\0") + FILE + END,
        "extension-twice",
        "GNU tar, bsdtar: m; Python: l",
    ),
    Stream(
        "pax-at-the-end",
        FILE + pax((b"path", b"p")) + END,
        "extension-orphan",
        "GNU tar ignores it",
    ),
    Stream(
        "gnu-name-at-the-end", FILE + gnu_long(b"l\0"), "extension-orphan", "GNU tar ignores it"
    ),
    Stream(
        "global-after-pax",
        pax((b"path", b"p")) + pax((b"comment", b"c"), kind=b"g") + FILE + END,
        "extension-orphan",
        "Go: f; the others: p",
    ),
    *(
        Stream(f"record-{name}", raw_pax(body) + FILE + END, "extension-record")
        for name, body in (
            ("without-end", b"9 path=p"),
            ("too-long", b"99 path=p\n"),
            ("too-short", b"8 path=pq\n"),
            ("of-no-length", b"0 path=p\n"),  # CVE-2019-20907 looped in Python
            ("of-negative-length", b"-9 path=p\n"),
            ("with-a-signed-length", b"+9 path=p\n"),
            ("with-zeros-before-its-length", b"010 path=p\n"),
            ("with-a-huge-length", b"99999999999 path=p\n"),
            ("shorter-than-its-length", b"1 path=p\n"),
            ("without-a-value", b"7 path\n"),
            ("without-a-key", b"6 =xy\n"),
            ("and-zeros", b"9 path=p\n" + bytes(3)),
            ("and-a-newline", b"9 path=p\n\n"),
            ("with-nul-in-its-key", b"11 p\0ath=p\n"),
        )
    ),
    Stream(
        "nul-in-pax-path",
        pax((b"path", b"a\0b")) + FILE + END,
        "nul",
        "bsdtar and GNU tar: a; Python: a NUL b; Go refuses",
    ),
    Stream("nul-in-pax-linkpath", pax((b"linkpath", b"a\0b")) + FILE + END, "nul"),
    Stream(
        "nul-in-gnu-name", gnu_long(b"a\0b\0") + FILE + END, "nul", "GNU tar, bsdtar, Python: a"
    ),
    Stream(
        "empty-pax-path",
        pax((b"path", b"")) + FILE + END,
        "name-empty",
        "GNU tar, Python: no name; bsdtar: f",
    ),
    Stream("empty-gnu-name", gnu_long(b"\0") + FILE + END, "name-empty"),
    Stream("empty-pax-linkpath", pax((b"linkpath", b"")) + FILE + END, "target-empty"),
    Stream("empty-gnu-long-name", gnu_long(b"") + FILE + END, "extension-record"),
    Stream(
        "gnu-name-without-nul",
        header(b"././@LongLink", b"L", 2, magic=GNU) + padded(b"long") + FILE + END,
        "extension-record",
        "GNU tar, Python: long; bsdtar: lo",
    ),
    Stream("empty-gnu-target", gnu_long(b"\0", b"K") + FILE + END, "target-empty"),
    Stream("long-pax-path", pax((b"path", b"p" * 4097)) + FILE + END, "name-length"),
    Stream("long-gnu-name", gnu_long(b"l" * 4097 + b"\0") + FILE + END, "name-length"),
    Stream("large-pax", pax((b"comment", b"c" * 2**20)) + FILE + END, "extension-size"),
    Stream("endless-gnu-name", gnu_long(b"l" * (2**20 + 1)) + FILE + END, "extension-size"),
    Stream("negative-pax-header", header(b"p", b"x", b"\xff" * 12) + FILE + END, "number"),
    Stream(
        "many-records", pax(*((b"k%d" % n, b"") for n in range(257))) + FILE + END, "extension-size"
    ),
    *(
        Stream(f"global-{name}", pax((key, b"1"), kind=b"g") + FILE + END, "global-field", others)
        for name, key, others in (
            ("path", b"path", "GNU tar, Python: all files have this name; bsdtar: f"),
            ("linkpath", b"linkpath", ""),
            (
                "size",
                b"size",
                "GNU tar, Python: 1 byte, and no more of the archive; bsdtar: 5 bytes",
            ),
            ("sparse", b"GNU.sparse.major", ""),
        )
    ),
    # --- what is in it ---
    *(
        Stream(f"type-{kind.decode()}", header(b"f", kind) + END, "type", "a file, or skipped")
        for kind in (b"V", b"M", b"N", b"D", b"X", b"A", b"Z", b"8", b" ")
    ),
    Stream("sparse-of-gnu", header(b"f", b"S", magic=GNU) + END, "sparse"),
    *(
        Stream(f"sparse-of-pax-{n}", pax(*fields) + FILE + END, "sparse")
        for n, fields in enumerate(
            (
                [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"0")],
                [(b"GNU.sparse.map", b"0,5"), (b"GNU.sparse.name", b"g")],
                [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
                [(b"SCHILY.realsize", b"9")],
            )
        )
    ),
    Stream(
        "sparse-of-solaris",
        pax((b"SUN.holesdata", b" 0 512 1024")) + file(b"f", b"A" * 1024) + END,
        "sparse",
        "bsdtar makes a hole of what GNU tar and Python take for contents",
    ),
    *(
        Stream(
            f"device-of-pax-{n}",
            pax((key, b"8")) + header(b"c", b"3", major=b"0000001\0", minor=b"0000003\0") + END,
            "device",
            "bsdtar makes another device than GNU tar and Python",
        )
        for n, key in enumerate((b"SCHILY.devmajor", b"SCHILY.devminor"))
    ),
    *(
        Stream(f"slash-{name}", data + END, "trailing-slash", others)
        for name, data, others in (
            ("ustar", file(b"f/"), "GNU tar, bsdtar: a directory; Python: a file"),
            ("v7", header(b"f/", b"\0", magic=V7), "a directory; Go: a file"),
            ("pax", pax((b"path", b"f/")) + FILE, "GNU tar, bsdtar: a directory; Python: f"),
            ("gnu", gnu_long(b"f/\0") + FILE, "GNU tar, bsdtar: a directory; Python: a file"),
            ("symlink", header(b"f/", b"2", link=b"x"), "a symlink"),
        )
    ),
    Stream("symlink-to-nothing", header(b"s", b"2") + END, "target-empty"),
    Stream("hard-link-to-nothing", header(b"s", b"1") + END, "target-empty"),
    Stream("contents-of-a-directory", header(b"d", b"5", 5) + padded(b"hello") + END, "checksum"),
    Stream("one-zero-block", FILE + bytes(512) + FILE + END, "zero-block", "the first file alone"),
    Stream("one-zero-block-and-a-byte", FILE + bytes(512) + b"x", "zero-block"),
    Stream("cut-in-contents", header(size=600) + b"x" * 512, "truncated"),
    Stream("cut-before-contents", header(size=600), "truncated"),
    Stream("cut-in-padding", header(size=5) + b"hello" + bytes(99), "truncated"),
    Stream("cut-in-pax", header(b"p", b"x", 600) + bytes(512), "truncated"),
    Stream("cut-in-a-large-file", header(size=99_999) + bytes(99_998), "truncated"),
    # CVE-2025-62518 (TARmageddon), CVE-2026-33055, libarchive#2405: the contents are an archive;
    # who misses the size that pax gives reads its entries as those of the outer one.
    Stream(
        "an-archive-within",
        pax((b"size", b"%d" % len(FILE))) + header(b"inner.tar") + FILE + END,
        [(b"inner.tar", FILE)],
    ),
    Stream(
        "an-archive-within-that-is-said-to-be-short",
        pax((b"size", b"%d" % len(FILE))) + header(b"inner.tar", size=512) + FILE + END,
        [(b"inner.tar", FILE)],
        "libarchive before 3.7.8 reads the inner file",
    ),
    # --- extended attributes ---
    *(
        Stream(f"xattr-{name}", pax(*fields) + FILE + END, "xattr")
        for name, fields in (
            ("too-large", [(b"SCHILY.xattr.user.a", b"x" * (2**16 + 1))]),
            ("too-many", [(b"SCHILY.xattr.user.%d" % n, b"x" * 2**15) for n in range(3)]),
            ("long-name", [(b"SCHILY.xattr.user." + b"n" * 251, b"x")]),
            ("no-name", [(b"SCHILY.xattr.user.", b"x")]),
            ("nul-in-name", [(b"LIBARCHIVE.xattr.user.a%00b", b"eA")]),
            ("not-base64", [(b"LIBARCHIVE.xattr.user.a", b"e*")]),
            ("half-of-base64", [(b"LIBARCHIVE.xattr.user.a", b"e")]),
            ("twice", [(b"SCHILY.xattr.user.a", b"x"), (b"LIBARCHIVE.xattr.user.a", b"eQ")]),
            ("capability", [(b"SCHILY.xattr.security.capability", b"all of them")]),
            (
                "capability-flags",
                [(b"SCHILY.xattr.security.capability", b"\xff\0\0\2" + bytes(16))],
            ),
            ("capability-0", [(b"SCHILY.xattr.security.capability", bytes(20))]),
        )
    ),
]
