"""/etc/resolv.conf of an import: what every clone inherits.

The tree is the image's, and may have a symlink where one expects a directory: writing by path would
write on the host as root. Every step here goes through a descriptor of the directory above, and
follows nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from templates_app.errors import CoppiceError, OutOfSpace, StorageReadOnly, TreeRefused
from templates_app.events import Deviation
from templates_app.trust import mtree

PLACE = "/etc/resolv.conf"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def text(nameserver: str) -> bytes:
    """The same bytes on every host: they are part of the tree that is signed."""
    return f"# written by coppice at import\nnameserver {nameserver}\n".encode("ascii")


def plant_resolv_conf(root: Path, nameserver: str) -> Deviation | None:
    """Make ``etc/resolv.conf`` below ``root`` a fresh file that names ``nameserver``.

    Returns what it did as a deviation from the image; None where ``nameserver`` is empty. What had
    the name before is unlinked: a symlink is not followed, other names of a hard link keep their
    content. Raises TreeRefused where ``etc`` is no directory, or ``etc/resolv.conf`` is one.
    """
    if not nameserver:
        return None
    content = text(nameserver)
    try:
        did = _plant(root, content)
    except OSError as error:
        if known := _storage_error(error):
            raise known from None
        raise
    return Deviation(path=PLACE, reason=did, sha256=hashlib.sha256(content).hexdigest())


def described(nameserver: str) -> dict[bytes, bytes]:
    """What :func:`plant_resolv_conf` puts into a tree, as the tree's manifest describes it."""
    if not nameserver:
        return {}
    content = text(nameserver)
    digest = hashlib.sha256(content).hexdigest().encode()
    return {
        b"etc": mtree.directory(mtree.mode_and_owner(0o755, 0, 0)),
        b"etc/resolv.conf": mtree.file(mtree.mode_and_owner(0o644, 0, 0), len(content), digest),
    }


def _plant(root: Path, content: bytes) -> str:
    top = os.open(root, _DIRECTORY)
    try:
        etc, made = _open_etc(top)
        try:
            replaced = _clear(etc)
            _write(etc, content)
        finally:
            os.close(etc)
    finally:
        os.close(top)
    return "; ".join(
        [
            "names the resolver that clones use",
            *([f"replaces {replaced} of the image"] if replaced else []),
            *(["the image had no /etc"] if made else []),
        ]
    )


def _open_etc(top: int) -> tuple[int, bool]:
    made = False
    try:
        os.mkdir("etc", 0o755, dir_fd=top)
        made = True
    except FileExistsError:
        pass
    try:
        etc = os.open("etc", _DIRECTORY, dir_fd=top)
    except OSError as error:
        # ELOOP or ENOTDIR (open(2)): a symlink, or a file; FreeBSD says EMLINK for a symlink.
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
            raise
        raise TreeRefused(
            "The image's /etc is not a directory; a resolv.conf cannot be put there.",
            hint="Mend the image, or set COPPICE_DNS_NAMESERVER to nothing.",
            extra={"rule": "etc-not-a-directory"},
        ) from None
    if made:
        os.fchmod(etc, 0o755)  # whatever the umask is
    return etc, made


def _clear(etc: int) -> str:
    """What had the name is gone; in words what it was."""
    try:
        mode = os.stat("resolv.conf", dir_fd=etc, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISDIR(mode):
        raise TreeRefused(
            "The image's /etc/resolv.conf is a directory.",
            hint="Mend the image, or set COPPICE_DNS_NAMESERVER to nothing.",
            extra={"rule": "resolv-conf-is-a-directory"},
        )
    os.unlink("resolv.conf", dir_fd=etc)
    if stat.S_ISLNK(mode):
        return "a symlink"
    return "a file" if stat.S_ISREG(mode) else "a special file"


def _write(etc: int, content: bytes) -> None:
    with os.fdopen(os.open("resolv.conf", _NEW_FILE, 0o644, dir_fd=etc), "wb") as file:
        file.write(content)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, 0)
        os.fchmod(file.fileno(), 0o644)


def _storage_error(error: OSError) -> CoppiceError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("There is no space left to write /etc/resolv.conf.")
    if error.errno == errno.EROFS:
        return StorageReadOnly("The pool is mounted read-only.")
    return None
