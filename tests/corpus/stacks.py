"""Crafted layer stacks, each with the tree that it must make, or the rule that refuses it.

One stack for each trick of which a reader of images was fooled, and for each rule of layers that
readers differ in. They are data, so that any engine can be tried with them on any pool: an archive
of a layer is ``members.archive(layer)``, a tree is compared by ``members.lines``. Nothing may ever
lie, be changed or be missing outside of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.corpus.members import (
    Layer,
    Member,
    device,
    directory,
    fifo,
    file,
    hardlink,
    symlink,
)


@dataclass(frozen=True, slots=True)
class Stack:
    name: str
    layers: tuple[Layer, ...]
    tree: tuple[str, ...] = ()  # as members.lines has it
    rule: str = ""  # of the refusal; then there is no tree
    finding: str = ""  # a part of a sentence
    #: What buildah (1.28, layers as overlays) does instead. Without this it makes the same tree,
    #: or fails where a rule refuses.
    overlay: str = ""


def makes(
    name: str, layers: list[list[Member]], *tree: str, finding: str = "", overlay: str = ""
) -> Stack:
    return Stack(name, tuple(map(tuple, layers)), tree, finding=finding, overlay=overlay)


def and_above(path: bytes) -> list[str]:
    """The lines of a directory and of all above it."""
    parts = path.decode().split("/")
    return ["/".join(parts[:length]) + "/" for length in range(1, len(parts) + 1)]


def refused(name: str, layers: list[list[Member]], rule: str, overlay: str = "") -> Stack:
    return Stack(name, tuple(map(tuple, layers)), rule=rule, overlay=overlay)


LONG = b"n" * 255
DEEP = b"/".join([b"d"] * 254)
LONGEST = b"/".join([b"p" * 255] * 15 + [b"q" * 100, b"r" * 155])  # 4096 bytes
XATTR = ((b"user.note", b"1"),)

# --- names: `..`, absolute, odd (CVE-2014-9356, CVE-2007-4559; L23) ------------------------------

NAMES = [
    makes("dot-dot-clamped", [[file(b"../../etc/a", b"x")]], "etc/", "etc/a =x"),
    makes("dot-dot-inside", [[file(b"a/../../../b", b"x")]], "b =x"),
    makes("absolute", [[directory(b"/etc/"), file(b"//etc//a", b"x")]], "etc/", "etc/a =x"),
    makes("dots", [[file(b"./a/./b", b"x"), directory(b"a/.")]], "a/", "a/b =x"),
    makes("not-utf-8", [[file(b"\xff\xfe/\n", b"x")]], "\\377\\376/", "\\377\\376/\\012 =x"),
    makes("dot-names", [[file(b"...", b"x"), file(b"..a", b"y")]], "... =x", "..a =y"),
    makes("backslashes", [[file(b"..\\..\\a", b"x")]], "..\\134..\\134a =x"),
    makes("options", [[file(b"-rf", b"x"), directory(b"--/")]], "--/", "-rf =x"),
    makes("longest-path", [[directory(LONGEST)]], *and_above(LONGEST), overlay="fails: too long"),
    makes("deepest", [[directory(DEEP + b"/d")]], *and_above(DEEP + b"/d")),
    makes("deepest-replaced", [[directory(DEEP + b"/d")], [file(b"d", b"x")]], "d =x"),
    makes("both-cases", [[file(b"A", b"x"), file(b"a", b"y")]], "A =x", "a =y"),
    makes(
        "both-forms-of-unicode",
        [[file("\u00e9".encode(), b"x"), file("e\u0301".encode(), b"y")]],
        "e\\314\\201 =y",
        "\\303\\251 =x",
    ),
    makes(
        "lines-of-a-manifest",
        [[file(b"a\n# hardlink .", b"x"), file(b"# flags schg", b"y"), symlink(b"s", b"x\n. y")]],
        *("\\043\\040flags\\040schg =y", "a\\012\\043\\040hardlink\\040. =x", "s -> x\\012.\\040y"),
    ),
    makes(
        "names-of-the-pool",
        [[file(b"@base", b"x"), file(b".coppice/pool-id", b"y"), file(b".zfs/snapshot/a", b"z")]],
        *(".coppice/", ".coppice/pool-id =y", ".zfs/", ".zfs/snapshot/", ".zfs/snapshot/a =z"),
        "@base =x",
    ),
    makes("longest-name", [[file(LONG, b"x")]], f"{LONG.decode()} =x"),
    refused(
        "dot-dot-last", [[directory(b"a"), directory(b"a/..")]], "name-dots", overlay="makes a"
    ),
    refused("dot-dot-alone", [[directory(b"..")]], "name-dots", overlay="passes over it"),
    refused("dot-dot-file", [[file(b"a/b/..", b"x")]], "name-dots", overlay="makes a"),
    refused("name-too-long", [[file(LONG + b"n", b"x")]], "component-length"),
    refused("directory-name-too-long", [[file(LONG + b"n/a", b"x")]], "component-length"),
    refused(
        "path-too-long-through-links",
        [
            [directory(b"/".join([b"d" * 250] * 10)), symlink(b"s", b"/".join([b"d" * 250] * 10))]
            + [file(b"s/" + b"/".join([b"e" * 250] * 8), b"x")],
        ],
        "path-length",
    ),
    refused("too-deep", [[directory(DEEP), file(DEEP + b"/d/d", b"x")]], "depth"),
    refused(
        "too-deep-through-links",
        [[directory(DEEP), symlink(b"s", DEEP), file(b"s/a/b", b"x")]],
        "depth",
    ),
    refused("entry-is-the-root-as-file", [[file(b"./", b"x")]], "root", overlay="passes over it"),
]

# --- the root (CVE-2021-29136; L2) ---------------------------------------------------------------

ROOT = [
    makes("root-attributes", [[directory(b"./", 0o700, uid=5, gid=6)]], "./ 0700 5:6"),
    makes("root-restated", [[directory(b".", 0o700)], [directory(b"/", 0o711)]], "./ 0711"),
    makes("root-left-alone", [[directory(b"./", 0o700)], [file(b"a", b"x")]], "./ 0700", "a =x"),
    makes(
        "root-opaque",
        [[file(b"a"), directory(b"d/")], [file(b".wh..wh..opq")]],
        overlay="hides nothing",
    ),
    refused("root-as-symlink", [[symlink(b".", b"/tmp")]], "root", overlay="passes over it"),
    refused(
        "root-as-symlink-by-dots", [[symlink(b"././/", b"/tmp")]], "root", overlay="passes over it"
    ),
    refused(
        "root-as-hard-link", [[file(b"a"), hardlink(b"./", b"a")]], "root", overlay="passes over it"
    ),
    refused("root-as-fifo", [[fifo(b"/")]], "root"),
    refused("root-twice", [[directory(b"."), directory(b"./")]], "duplicate"),
]

# --- symlinks in the way (CVE-2025-47290, CVE-2021-32760; 3c) ------------------------------------

SYMLINKS = [
    makes(
        "same-layer-absolute",
        [[symlink(b"out", b"/"), file(b"out/tmp/a", b"x")]],
        *("out -> /", "tmp/", "tmp/a =x"),
    ),
    makes(
        "same-layer-dot-dot",
        [[directory(b"a/"), symlink(b"a/out", b"../../../.."), file(b"a/out/b", b"x")]],
        *("a/", "a/out -> ../../../..", "b =x"),
    ),
    makes(
        "same-layer-missing",
        [[symlink(b"lib", b"usr/lib"), file(b"lib/b", b"x")]],
        *("lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/b =x"),
        overlay="fails: the link leads nowhere",
    ),
    makes(
        "same-layer-chain",
        [[symlink(b"a", b"b"), symlink(b"b", b"/c/../d"), directory(b"c"), file(b"a/f", b"x")]],
        *("a -> b", "b -> /c/../d", "c/", "d/", "d/f =x"),
        overlay="fails: the link leads nowhere",
    ),
    makes(
        "lower-becomes-directory",
        [[directory(b"usr/lib"), symlink(b"lib", b"usr/lib")], [file(b"lib/b", b"x")]],
        *("lib/", "lib/b =x", "usr/", "usr/lib/"),
        finding="lib was a symlink in a lower layer",
    ),
    makes(
        "lower-to-outside",
        [[symlink(b"etc", b"/../../host")], [file(b"etc/passwd", b"x")]],
        *("etc/", "etc/passwd =x"),
        finding="etc was a symlink",
    ),
    makes(
        "directory-then-link-then-file",
        [[directory(b"a"), file(b"a/f", b"x")], [symlink(b"a", b"/tmp"), file(b"a/g", b"y")]],
        *("a -> /tmp", "tmp/", "tmp/g =y"),
        overlay="fails: the link leads nowhere",
    ),
    makes(
        "cached-parent-becomes-link",
        [[directory(b"b"), file(b"a/f", b"x"), symlink(b"a", b"b"), file(b"a/g", b"y")]],
        *("a -> b", "b/", "b/g =y"),
    ),
    makes(
        "cached-link-parent-becomes-directory",
        [
            [directory(b"b"), symlink(b"a", b"b"), symlink(b"c", b"."), file(b"a/f", b"x")]
            + [directory(b"c/a"), file(b"a/g", b"y")]
        ],
        *("a/", "a/g =y", "b/", "b/f =x", "c -> ."),
    ),
    makes(
        "link-replaced-by-directory",
        [[directory(b"d"), symlink(b"a", b"d")], [directory(b"a"), file(b"a/f", b"x")]],
        *("a/", "a/f =x", "d/"),
    ),
    makes(
        "dangling-lower-link",
        [[symlink(b"a", b"nowhere")], [file(b"a/b/c", b"x")]],
        *("a/", "a/b/", "a/b/c =x"),
        finding="a was a symlink",
    ),
    refused("loop", [[symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/f")]], "symlink-loop"),
    refused(
        "too-many-components",
        [
            [symlink(b"a", b"./" * 2000 + b"b"), symlink(b"b", b"./" * 2000 + b"c")]
            + [symlink(b"c", b"./" * 2000 + b"d"), directory(b"d"), file(b"a/f")]
        ],
        "symlink-loop",
        overlay="follows them",
    ),
    refused("loop-of-itself", [[symlink(b"a", b"a/a"), file(b"a/f")]], "symlink-loop"),
    makes(
        "longest-target",
        [[symlink(b"a", b"t/" * 2047 + b"t"), file(b"b", b"x")]],
        *(f"a -> {'t/' * 2047}t", "b =x"),
    ),
    refused("too-long-a-target", [[symlink(b"a", b"t" * 4096)]], "target-length"),
    refused("below-a-file", [[file(b"a"), file(b"a/b")]], "no-directory"),
    refused("below-a-fifo", [[fifo(b"a"), directory(b"a/b")]], "no-directory"),
    refused(
        "below-a-file-through-link",
        [[file(b"f"), symlink(b"a", b"f"), file(b"a/b")]],
        "no-directory",
    ),
]

# --- replacing (L3, L12, L15) --------------------------------------------------------------------

REPLACING = [
    makes("file-over-directory", [[file(b"a/b/c")], [file(b"a", b"x")]], "a =x"),
    makes("directory-over-file", [[file(b"a", b"x")], [directory(b"a/")]], "a/"),
    makes("below-a-lower-file", [[file(b"a", b"x")], [file(b"a/b", b"y")]], "a/", "a/b =y"),
    makes("symlink-over-directory", [[file(b"a/b")], [symlink(b"a", b"c")]], "a -> c"),
    makes("file-over-symlink", [[symlink(b"a", b"b")], [file(b"a", b"x")]], "a =x"),
    makes(
        "file-over-link-target-stays",
        [[file(b"t", b"x"), symlink(b"a", b"t")], [file(b"a", b"y")]],
        "a =y",
        "t =x",
    ),
    makes("fifo-over-file", [[file(b"a")], [fifo(b"a")]], "a fifo"),
    makes("device-over-file", [[file(b"a")], [device(b"a")]], "a char"),
    makes(
        "whiteout-device-is-a-device",
        [[file(b"a")], [device(b"a", major=0, minor=0)]],
        "a char",
        overlay="such a device hides the name",
    ),
    makes(
        "directory-over-directory",
        [[directory(b"a", 0o700, uid=1, gid=2, xattrs=XATTR), file(b"a/b")], [directory(b"a/")]],
        *("a/", "a/b ="),
    ),
    makes(
        "shut-directories",
        [
            [directory(b"./", 0), directory(b"a", 0), directory(b"a/b", 0), file(b"a/b/f", b"x", 0)]
            + [directory(b"gone", 0), directory(b"gone/b", 0), file(b"gone/b/f", b"x", 0)],
            [file(b"a/b/g", b"y"), file(b".wh.gone")],
        ],
        *("./ 0000", "a/ 0000", "a/b/ 0000", "a/b/f =x 0000", "a/b/g =y"),
        overlay="a layer's implied directory hides them",
    ),
    makes(
        "deep-and-shut",
        [[directory(DEEP, 0), file(DEEP + b"/f", b"x", 0)], [file(b"d", b"y")]],
        "d =y",
    ),
    makes(
        "directory-gets-xattr", [[directory(b"a")], [directory(b"a", xattrs=XATTR)]], "a/ user.note"
    ),
    makes("file-loses-xattr", [[file(b"a", xattrs=XATTR)], [file(b"a")]], "a ="),
    makes(
        "implied-keeps-attributes",
        [[directory(b"a", 0o711, uid=3)], [file(b"a/b")]],
        "a/ 0711 3:0",
        "a/b =",
        overlay="a layer's implied directory hides them",
    ),
    makes(
        "implied-then-stated",
        [[file(b"a/b/c"), directory(b"a/b", 0o700), directory(b"a", 0o750)]],
        "a/ 0750",
        "a/b/ 0700",
        "a/b/c =",
    ),
    makes(
        "set-id-and-owner",
        [[file(b"su", mode=0o6755, uid=1, gid=2**31 - 1)]],
        "su = 6755 1:2147483647",
    ),
    makes(
        "largest-owner",
        [[symlink(b"s", b"a", uid=2**32 - 2), directory(b"d", gid=2**32 - 2)]],
        *("d/ 0:4294967294", "s -> a 4294967294:0"),
    ),
    makes(
        "flags",
        [[file(b"a", flags=b"schg"), directory(b"d", flags=b"nodump")]],
        "a = schg",
        "d/ nodump",
        overlay="has none, on Linux",
    ),
    makes("flags-then-replaced", [[file(b"a", b"x", flags=b"schg")], [file(b"a", b"y")]], "a =y"),
    makes(
        "replaced-name-of-two",
        [[file(b"a", b"x"), hardlink(b"b", b"a")], [file(b"a", b"y")]],
        *("a =y", "b =x"),
    ),
    makes(
        "hidden-name-of-three",
        [[file(b"a", b"x"), hardlink(b"b", b"a"), hardlink(b"c", b"b")], [file(b".wh.a")]],
        *("b =x", "c =x (b)"),
    ),
    makes(
        "moved-within-directory-swap",
        [[file(b"a/f", b"x"), symlink(b"b", b"a")], [symlink(b"a", b"b"), file(b"b/f", b"y")]],
        "a -> b",
        "b/",
        "b/f =y",
        finding="b was a symlink",
    ),
    refused("twice", [[file(b"a", b"x"), file(b"a", b"y")]], "duplicate"),
    refused("twice-by-other-names", [[file(b"a/b"), file(b"./a//x/../b")]], "duplicate"),
    refused("directory-twice", [[directory(b"a"), directory(b"a/")]], "duplicate"),
    refused("twice-file-and-link", [[file(b"a"), file(b"b"), hardlink(b"a", b"b")]], "duplicate"),
    refused(
        "twice-after-its-directory-went",
        [[file(b"d/x"), symlink(b"d", b"."), file(b"d/x")]],
        "duplicate",
    ),
    makes(
        "twice-through-a-link",
        [[symlink(b"l", b"d"), directory(b"d"), file(b"d/x", b"1"), file(b"l/x", b"2")]],
        "d/",
        "d/x =2",
        "l -> d",
    ),
]

# --- whiteouts (L4 to L9) ------------------------------------------------------------------------

WHITEOUTS = [
    makes("whiteout", [[file(b"a"), file(b"b")], [file(b".wh.a")]], "b ="),
    makes("whiteout-of-directory", [[file(b"a/b/c"), file(b"d")], [file(b".wh.a")]], "d ="),
    makes(
        "whiteout-of-nothing",
        [[file(b"a")], [file(b".wh.b"), file(b"x/.wh.y")]],
        "a =",
        overlay="makes x",
    ),
    makes("whiteout-then-add", [[file(b"a", b"x")], [file(b".wh.a"), file(b"a", b"y")]], "a =y"),
    makes(
        "add-then-whiteout",
        [[file(b"a", b"x")], [file(b"a", b"y"), file(b".wh.a")]],
        "a =y",
        overlay="fails",
    ),
    makes(
        "add-below-then-whiteout",
        [[directory(b"a", 0o700), file(b"a/x")], [file(b"a/y", b"y"), file(b".wh.a")]],
        "a/",
        "a/y =y",
        overlay="fails",
    ),
    makes(
        "whiteout-then-add-below",
        [[directory(b"a", 0o700), file(b"a/x")], [file(b".wh.a"), file(b"a/y", b"y")]],
        "a/",
        "a/y =y",
        overlay="fails",
    ),
    makes(
        "stated-then-whiteout",
        [[file(b"a/x")], [directory(b"a", 0o711), file(b".wh.a")]],
        "a/ 0711",
        overlay="fails",
    ),
    makes("whiteout-in-its-own-layer-only", [[file(b".wh.a"), file(b"a", b"x")]], "a =x"),
    makes(
        "opaque-first",
        [[file(b"a/x"), file(b"a/s/y")], [file(b"a/.wh..wh..opq"), file(b"a/z")]],
        "a/",
        "a/z =",
    ),
    makes(
        "opaque-last",
        [[file(b"a/x"), file(b"a/z", b"1")], [file(b"a/z", b"2"), file(b"a/.wh..wh..opq")]],
        "a/",
        "a/z =2",
    ),
    makes(
        "opaque-last-and-implied",
        [
            [directory(b"a/b", 0o700), file(b"a/b/low"), file(b"a/c/low")],
            [file(b"a/b/foo"), file(b"a/.wh..wh..opq")],
        ],
        "a/",
        "a/b/",
        "a/b/foo =",
    ),
    makes(
        "opaque-keeps-own-attributes",
        [[directory(b"a", 0o700), file(b"a/x")], [file(b"a/.wh..wh..opq")]],
        "a/ 0700",
        overlay="a layer's implied directory hides them",
    ),
    makes("opaque-of-nothing", [[file(b"b")], [file(b"a/.wh..wh..opq")]], "b =", overlay="makes a"),
    makes(
        "opaque-hides-a-link",
        [[symlink(b"a/l", b"/"), file(b"a/b/c")], [directory(b"a"), file(b"a/.wh..wh..opq")]],
        "a/",
    ),
    makes(
        "whiteout-is-any-type",
        [
            [file(b"a"), file(b"b"), file(b"c")],
            [symlink(b".wh.a", b"/"), directory(b".wh.b"), fifo(b".wh.c")],
        ],
    ),
    makes(
        "whiteout-as-a-directory-on-the-way",
        [[file(b"d/.wh.x/a", b"1")]],
        "d/",
        "d/.wh.x/",
        "d/.wh.x/a =1",
    ),
    makes(
        "aufs",
        [
            [
                file(b".wh..wh.aufs"),
                directory(b".wh..wh.plnk"),
                file(b".wh..wh.plnk/1.2", b"x"),
                directory(b"a/.wh..wh.orph/"),
                file(b"b"),
            ]
        ],
        "b =",
        overlay="keeps them",
    ),
    makes(
        "whiteout-through-lower-link",
        [[file(b"d/x", b"1"), symlink(b"l", b"d")], [file(b"l/.wh.x")]],
        "d/",
        "d/x =1",
        "l -> d",
        overlay="makes l a directory",
    ),
    makes(
        "whiteout-through-same-layer-link",
        [[file(b"d/x", b"1")], [symlink(b"l", b"d"), file(b"l/.wh.x")]],
        "d/",
        "l -> d",
        overlay="fails: the link leads nowhere",
    ),
    makes("whiteout-above-the-root", [[file(b"a"), file(b"b")], [file(b"../../.wh.a")]], "b ="),
    makes(
        "whiteout-of-a-name-that-begins-so",
        [[directory(b"d/.wh.x/y"), file(b"d/z")], [file(b"d/.wh..wh.x")]],
        "d/",
        "d/.wh.x/",
        "d/.wh.x/y/",
        "d/z =",
        overlay="the name is a whiteout below",
    ),
    refused("whiteout-of-dot", [[directory(b"a")], [file(b"a/.wh..")]], "whiteout"),
    refused("whiteout-of-dot-dot", [[directory(b"a")], [file(b"a/.wh...")]], "whiteout"),
    refused("whiteout-of-no-name", [[directory(b"a")], [file(b"a/.wh.")]], "whiteout"),
    refused("whiteout-too-long", [[file(b".wh." + LONG)]], "whiteout", overlay="passes over it"),
    refused("whiteout-twice", [[file(b"a")], [file(b".wh.a"), file(b"./.wh.a")]], "duplicate"),
]

# --- hard links (CVE-2025-4330; L10 to L12) ------------------------------------------------------

HARD_LINKS = [
    makes(
        "absolute-target",
        [[file(b"d/a", b"x"), hardlink(b"b", b"/d/a")]],
        "b =x",
        "d/",
        "d/a =x (b)",
    ),
    makes(
        "target-clamped",
        [[file(b"a", b"x"), hardlink(b"d/b", b"../../../a")]],
        "a =x",
        "d/",
        "d/b =x (a)",
    ),
    makes(
        "to-lower-layer",
        [[file(b"a", b"x", 0o600, uid=4)], [hardlink(b"b", b"a")]],
        "a =x 0600 4:0",
        "b =x 0600 4:0 (a)",
        overlay="fails: the file is in another layer",
    ),
    makes(
        "own-attributes-do-not-count",
        [[file(b"a", b"x", 0o600), hardlink(b"b", b"a", mode=0o6777, uid=9)]],
        "a =x 0600",
        "b =x 0600 (a)",
        overlay="gives the file the link's",
    ),
    makes(
        "to-a-symlink",
        [[symlink(b"s", b"/etc/passwd"), hardlink(b"b", b"s", mode=0o666)]],
        "b -> /etc/passwd",
        "s -> /etc/passwd (b)",
    ),
    makes(
        "to-a-fifo",
        [[fifo(b"p"), hardlink(b"q", b"p")]],
        "p fifo",
        "q fifo (p)",
        overlay="gives the fifo the link's attributes",
    ),
    makes(
        "to-a-link-of-a-link",
        [[file(b"c", b"x"), hardlink(b"b", b"c"), hardlink(b"a", b"b")]],
        "a =x",
        "b =x (a)",
        "c =x (a)",
    ),
    makes(
        "through-a-link-in-the-way",
        [[file(b"d/f", b"x"), symlink(b"s", b"d"), hardlink(b"b", b"s/f")]],
        "b =x",
        "d/",
        "d/f =x (b)",
        "s -> d",
    ),
    makes(
        "over-another-name-of-the-same",
        [[file(b"a", b"x"), hardlink(b"b", b"a")], [hardlink(b"b", b"a")]],
        "a =x",
        "b =x (a)",
        overlay="fails: the file is in another layer",
    ),
    makes(
        "over-a-directory",
        [[file(b"d/f"), file(b"a", b"x")], [hardlink(b"d", b"a")]],
        "a =x",
        "d =x (a)",
        overlay="fails: the file is in another layer",
    ),
    makes(
        "then-its-source-is-hidden",
        [[file(b"a", b"x")], [hardlink(b"b", b"a"), file(b".wh.a")]],
        "b =x",
        overlay="fails: the file is in another layer",
    ),
    makes(
        "then-its-source-is-replaced",
        [[file(b"a", b"x")], [hardlink(b"b", b"a"), file(b"a", b"y")]],
        "a =y",
        "b =x",
        overlay="fails: the file is in another layer",
    ),
    makes(
        "written-through-after",
        [[symlink(b"s", b"/etc"), hardlink(b"h", b"s"), file(b"h/x", b"1")]],
        "etc/",
        "etc/x =1",
        "h -> /etc",
        "s -> /etc (h)",
        overlay="fails: the link leads nowhere",
    ),
    makes(
        "through-a-lower-link-in-the-way",
        [[file(b"d/f", b"x"), symlink(b"s", b"d")], [hardlink(b"b", b"s/f")]],
        *("b =x", "d/", "d/f =x (b)", "s -> d"),
        overlay="fails: the file is in another layer",
    ),
    refused("to-the-outside", [[hardlink(b"a", b"/etc/passwd")]], "hard-link"),
    refused(
        "to-a-symlink-that-leads-out",
        [[symlink(b"s", b"/.."), hardlink(b"a", b"s/etc/passwd")]],
        "hard-link",
    ),
    refused("forward", [[hardlink(b"a", b"b"), file(b"b")]], "hard-link"),
    refused("to-itself", [[hardlink(b"a", b"a")]], "hard-link"),
    refused("to-itself-of-a-lower-layer", [[file(b"a")], [hardlink(b"a", b"./a")]], "hard-link"),
    refused("to-what-it-replaces", [[file(b"a/b", b"x")], [hardlink(b"a", b"a/b")]], "hard-link"),
    refused("to-a-directory", [[directory(b"a"), hardlink(b"b", b"a")]], "hard-link"),
    refused("to-the-root", [[hardlink(b"b", b"/")]], "hard-link"),
    refused(
        "to-a-hidden-file",
        [[file(b"a")], [file(b".wh.a"), hardlink(b"b", b"a")]],
        "hard-link",
        overlay="links the whiteout",
    ),
    refused(
        "to-aufs-links",
        [[file(b".wh..wh.plnk/1"), hardlink(b"b", b".wh..wh.plnk/1")]],
        "hard-link",
        overlay="keeps them",
    ),
]

# --- devices, /dev and /proc ---------------------------------------------------------------------

LEFT_OUT = [
    makes(
        "devices",
        [[device(b"lib/udev/null"), device(b"lib/disk", b"4", 7, 1), fifo(b"p")]],
        "lib/",
        "lib/disk block",
        "lib/udev/",
        "lib/udev/null char",
        "p fifo",
    ),
    makes(
        "below-dev",
        [[directory(b"dev", 0o700), device(b"dev/null"), file(b"dev/sub/x", b"1")]],
        "dev/ 0700",
    ),
    makes("below-proc", [[file(b"/proc/sys/x"), symlink(b"proc/self", b"1")]], "proc/"),
    makes(
        "anchored",
        [[file(b"usr/include/dev/x"), file(b"a/proc/y")]],
        "a/",
        "a/proc/",
        "a/proc/y =",
        "usr/",
        "usr/include/",
        "usr/include/dev/",
        "usr/include/dev/x =",
    ),
    makes(
        "dev-is-a-symlink",
        [[directory(b"d"), symlink(b"dev", b"d"), file(b"dev/x", b"1")]],
        "d/",
        "d/x =1",
        "dev -> d",
    ),
    makes("dev-is-a-file", [[file(b"dev", b"x")]], "dev =x"),
    makes(
        "linked-out-of-dev",
        [[file(b"dev/a", b"x"), hardlink(b"b", b"dev/a"), hardlink(b"c", b"dev/a")]],
        "b =x",
        "c =x (b)",
        "dev/",
    ),
    makes("linked-into-dev", [[file(b"a", b"x"), hardlink(b"dev/a", b"a")]], "a =x", "dev/"),
    makes(
        "device-in-dev-replaces",
        [[symlink(b"dev/l", b"/"), symlink(b"d", b"dev"), device(b"d/l")]],
        "d -> dev",
        "dev/",
    ),
    makes(
        "dev-through-a-link",
        [[symlink(b"d", b"dev"), directory(b"dev"), file(b"d/x", b"1")]],
        "d -> dev",
        "dev/",
    ),
    makes(
        "dev-later",
        [[file(b"a")], [file(b"dev/x"), device(b"dev/y")], [file(b"dev/.wh.x")]],
        "a =",
        "dev/",
    ),
    makes("dev-hidden", [[file(b"dev/x")], [file(b".wh.dev")]]),
    makes("device-hidden-later", [[device(b"a"), file(b"b")], [file(b".wh.a")]], "b ="),
    makes("device-replaced-later", [[device(b"a")], [file(b"a", b"x")]], "a =x"),
    makes("device-made-again", [[device(b"a")], [device(b"a", b"4", 7, 1)]], "a block"),
    makes("device-with-its-directory", [[device(b"d/a")], [file(b"d", b"x")]], "d =x"),
    makes(
        "device-with-two-names",
        [[device(b"a"), hardlink(b"b", b"a", mode=0o666)], [file(b".wh.a")]],
        "b char",
    ),
    makes(
        "device-of-a-lower-layer-linked",
        [[device(b"a")], [hardlink(b"b", b"a")], [file(b".wh.b"), hardlink(b"c", b"a")]],
        *("a char", "c char (a)"),
        overlay="fails: the device is in another layer",
    ),
    refused(
        "linked-to-a-device-in-dev",
        [[device(b"dev/null"), hardlink(b"n", b"dev/null")]],
        "hard-link",
        overlay="makes it",
    ),
]

STACKS = [*NAMES, *ROOT, *SYMLINKS, *REPLACING, *WHITEOUTS, *HARD_LINKS, *LEFT_OUT]
