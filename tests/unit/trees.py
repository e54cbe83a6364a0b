"""File trees for tests, with all that a file system can hold. Needs root: owners, device nodes."""

from __future__ import annotations

import os
import stat
import subprocess
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
