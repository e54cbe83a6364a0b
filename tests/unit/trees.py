"""File trees for tests, with all that a file system can hold. Needs root: owners, device nodes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from templates_app.trust import tree
from templates_app.trust.tree import Tree

#: ``cap_net_raw+ep`` in the form of linux/capability.h, version 2.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

ODD_NAMES = [
    b"with blank",
    b"tab\tand\nnewline",
    b"caf\xe9 not utf-8",
    "snowman \N{SNOWMAN}".encode(),
    b"#comment",
    b"a=b",
    b"star*",
    b"what?",
    b"[x]",
    b"back\\slash\\040",
    b"-rf",
    b"..hidden",
    b"\x01\x7f\xff",
    b"type=file",
]


def odd_tree(top: Path, *, user_attributes: bool = True) -> Path:
    """Fill the new directory ``top``: odd names, set-id modes, links, fifo, device, attributes."""
    root = os.fsencode(top)
    os.mkdir(root, 0o755)
    for number, name in enumerate(ODD_NAMES):
        write(root + b"/" + name, b"%d" % number, mode=0o640, owner=(number, 100 + number))
    os.mkdir(root + b"/dir with * and \xff", 0o1777)
    write(root + b"/dir with * and \xff/in side", b"x" * 3_000_000)
    os.mkdir(root + b"/a")
    write(root + b"/a/b", b"1")
    write(root + b"/a.b", b"2")
    write(root + b"/a!", b"3")
    write(root + b"/set-id", b"#!", mode=0o6755)
    write(root + b"/empty", b"", mode=0)
    write(root + b"/zzz-first", b"linked " * 100)
    os.link(root + b"/zzz-first", root + b"/a/linked")
    os.link(root + b"/zzz-first", root + b"/a.linked")
    for name, target in [
        (b"link", b"../../etc/passwd"),
        (b"odd link", b"to [x] *#=?\\ \n\xff"),
        (b"dangling", b"/nowhere"),
        (b"loop", b"loop"),
        (b"to-dir", b"a"),
    ]:
        os.symlink(target, root + b"/" + name)
    os.lchown(root + b"/link", 7, 8)
    os.link(root + b"/loop", root + b"/loop2", follow_symlinks=False)
    os.mkfifo(root + b"/fifo", 0o622)
    os.mknod(root + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root + b"/disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    write(root + b"/ping", b"elf")
    os.setxattr(root + b"/ping", "security.capability", CAPABILITY)
    if user_attributes:
        os.setxattr(root + b"/ping", b"user.b\xff \n#", b"value")
        os.setxattr(root + b"/ping", "user.a", b"")
        os.setxattr(root + b"/a", "user.of-a-directory", b"\x00")
    return top


def write(path: bytes, content: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
    with open(path, "xb") as stream:
        stream.write(content)
    os.chown(path, *owner)  # before the mode: chown clears set-id bits
    os.chmod(path, mode)


def scan(root: Path, **rest: object) -> tuple[Tree, bytes]:
    """(what was found, the manifest)."""
    stream = BytesIO()
    found = tree.scan(root, into=stream, limit_entries=100_000, **rest)  # type: ignore[arg-type]
    return found, stream.getvalue()


def digest(root: Path) -> str:
    return tree.scan(root, limit_entries=100_000).digest


def mtree(manifest: bytes, root: Path) -> str:
    """What stock mtree(8) has to say of the tree: nothing, if it is what the manifest describes."""
    done = subprocess.run(
        ["mtree", "-p", root], input=manifest, capture_output=True, timeout=60, check=False
    )
    return (done.stdout + done.stderr).decode("utf-8", "backslashreplace")


# --- what may become of such a tree: in each row, something that an auditor must be told -------


def replace(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


TAMPERING: dict[str, Callable[[Path], object]] = {
    "content of the same size": lambda t: (t / "a/b").write_bytes(b"9"),
    "longer content": lambda t: (t / "set-id").write_bytes(b"#!/bin/sh"),
    "content under an odd name": lambda t: (t / "star*").write_bytes(b"7"),
    "a set-id bit more": lambda t: (t / "a/b").chmod(0o4644),
    "a set-id bit less": lambda t: (t / "set-id").chmod(0o4755),
    "a directory's mode": lambda t: (t / "a").chmod(0o777),
    "a sticky bit less": lambda t: next(t.glob("dir with*")).chmod(0o777),
    "the root's mode": lambda t: t.chmod(0o700),
    "owner": lambda t: os.chown(t / "a.b", 1000, 0),
    "group": lambda t: os.chown(t / "a.b", 0, 1000),
    "owner of a link": lambda t: os.lchown(t / "to-dir", 5, 0),
    "owner of a device": lambda t: os.chown(t / "null", 1, 1),
    "a file more": lambda t: (t / "a/extra").write_bytes(b""),
    "a file more that star* would match": lambda t: (t / "starling").write_bytes(b""),
    "a hidden file more": lambda t: (t / "a/.x").write_bytes(b""),
    "a file less": lambda t: (t / "empty").unlink(),
    "an odd file less": lambda t: (t / "tab\tand\nnewline").unlink(),
    "a directory more": lambda t: (t / "a/deep").mkdir(),
    "a directory less": lambda t: shutil.rmtree(t / "a"),
    "a link elsewhere": lambda t: replace(t / "link", lambda p: p.symlink_to("/etc/shadow")),
    "an odd link elsewhere": lambda t: replace(t / "odd link", lambda p: p.symlink_to("to [x]")),
    "a file now a link": lambda t: replace(t / "a.b", lambda p: p.symlink_to("a/b")),
    "a link now a file": lambda t: replace(t / "dangling", lambda p: p.write_bytes(b"") and None),
    "a fifo now a file": lambda t: replace(t / "fifo", lambda p: p.write_bytes(b"") and None),
    "a file now a directory": lambda t: replace(t / "a!", Path.mkdir),
    "renamed": lambda t: (t / "a.b").rename(t / "a,b"),
}
#: What mtree has no keyword for: the digest alone covers it.
UNSEEN_BY_MTREE: dict[str, Callable[[Path], object]] = {
    "a capability less": lambda t: os.removexattr(t / "ping", "security.capability"),
    "a capability more": lambda t: os.setxattr(
        t / "a.b", "security.capability", os.getxattr(t / "ping", "security.capability")
    ),
    "another value": lambda t: os.setxattr(t / "ping", "user.a", b"1"),
    "an attribute more on a directory": lambda t: os.setxattr(t / "a", "user.z", b"1"),
    "an attribute on the root": lambda t: os.setxattr(t, "user.z", b"1"),
    "a hard link split": lambda t: replace(
        t / "a.linked", lambda p: write(os.fsencode(p), b"linked " * 100)
    ),
    "two files made one": lambda t: replace(t / "twin2", lambda p: p.hardlink_to(t / "twin1")),
}
