"""A file tree with everything in it that an import can lose, and an exact description of a tree."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

#: struct vfs_cap_data, revision 2: cap_net_raw+ep.
CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
#: system.posix_acl_access, version 2: u::rw-, u:1:r--, g::r--, m::r--, o::r--.
ACL = bytes.fromhex(
    "02000000" "01000600ffffffff" "0200040001000000" "04000400ffffffff"
    "10000400ffffffff" "20000400ffffffff"
)  # fmt: skip


def fill(top: Path, text: str = "one") -> None:
    """Hard links, links, set-id bits, owners, xattrs, ACLs, a hole, devices, odd names and times.

    Ownership and devices for root only; nothing needs more than a file system of Linux.
    """
    for name in ("bin", "etc", "usr/include/dev", "var/empty", "tmp"):
        (top / name).mkdir(parents=True)
    (top / "etc/version").write_text(text)
    (top / "bin/su").write_bytes(b"\x7fELF su")
    os.link(top / "bin/su", top / "bin/sudo")
    os.link(top / "bin/su", top / "usr/include/dev/su")
    (top / "bin/sh").symlink_to("su")
    (top / "etc/nowhere").symlink_to("/nonexistent/../x")
    (top / "usr/include/dev/ad.h").write_text("header")
    with (top / "var/hole").open("wb") as file:
        file.write(b"begin")
        file.truncate(32 * 1024 * 1024)
    os.mkfifo(top / "var/fifo")
    (top / os.fsdecode(b"var/\xff\xfe odd\nname")).write_text("bytes, not text")
    os.setxattr(top / "etc/version", "user.note", b"\x00kept\xff")
    os.setxattr(top / "etc", "user.note", b"of a directory")
    if os.geteuid() == 0:
        os.chown(top / "bin/su", 0, 42)
        os.chown(top / "etc/version", 1234, 5678)
        os.chown(top / "bin/sh", 7, 8, follow_symlinks=False)
        os.mknod(top / "var/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.setxattr(top / "usr/include/dev/ad.h", "security.capability", CAP_NET_RAW)
    os.setxattr(top / "etc/version", "system.posix_acl_access", ACL)
    # After the owners: chown(2) clears set-id bits.
    (top / "bin/su").chmod(0o6755)
    (top / "tmp").chmod(0o1777)
    (top / "var/empty").chmod(0o555)
    for name in ("etc/version", "etc", "bin/su"):
        os.utime(top / name, ns=(10**18, 10**18 + 123_456_789))
    top.chmod(0o751)


def describe(top: Path) -> dict[str, Any]:
    """Path -> everything of it that must survive; for comparing two trees with ``==``."""
    groups: dict[int, list[str]] = {}
    found: dict[str, Any] = {}
    paths = [
        top,
        *(Path(base, name) for base, dirs, files in os.walk(top) for name in dirs + files),
    ]
    for path in sorted(paths):
        name = str(path.relative_to(top))
        there = path.lstat()
        entry: dict[str, Any] = {
            "mode": stat.filemode(there.st_mode),
            "owner": (there.st_uid, there.st_gid),
            "device": there.st_rdev,
            "mtime": there.st_mtime_ns,
            "xattrs": {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
        }
        if stat.S_ISREG(there.st_mode):
            entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            groups.setdefault(there.st_ino, []).append(name)
        if stat.S_ISLNK(there.st_mode):
            entry["target"] = str(path.readlink())
        found[name] = entry
    for group in groups.values():
        for name in group:
            found[name]["links"] = tuple(sorted(group))
    return found
