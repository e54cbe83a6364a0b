"""What the engine's processes give up before they see a byte of an image.

Defence in depth: the model decides every name, and the writer follows nothing; should one of them
be wrong, or a decompressor have a hole, this is what is left to break through. A process confines
itself, after all its imports, in this order: it dies with its parent, has no network, sees one
directory as its root, runs as nobody (the reader), may use so much and no more, and has none but
the named capabilities.

Linux: prctl(2), unshare(2), capabilities(7) by ctypes. Without root, a user namespace of its own
gives the right to the rest, where the system lets users make one. FreeBSD: chroot(2), for root,
with no directory open (``kern.chroot_allow_open_directories``); cap_enter(2) would fit as well, for
all work below goes through descriptors of directories. What could not be done is returned in words.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: capabilities(7), numbers of linux/capability.h.
CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETPCAP, MKNOD, SETFCAP = 0, 1, 3, 4, 8, 27, 31
_LAST_CAPABILITY = 63  # that capset(2) can name
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

_PR_SET_PDEATHSIG, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 23, 24, 38
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000

NOBODY = 65534
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOSPC, errno.EUSERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that a process may use (setrlimit(2))."""

    memory_bytes: int  # of addresses
    file_bytes: int
    files: int  # open at a time
    seconds: int  # of processor time


def confine(
    root: int, *, parent: int, ceiling: Ceiling, capabilities: Iterable[int], nobody: bool
) -> list[str]:
    """Give up what is not needed; what could not be given up, in words.

    ``root`` is a descriptor of the directory that becomes the root; it is closed. ``parent`` is the
    process to die with. ``nobody``: another user, for one who is root and needs no file. OSError
    where something fails that always works.
    """
    privileged = os.geteuid() == 0
    missing: list[str] = []
    linux = sys.platform.startswith("linux")
    if linux:
        _die_with(parent)
        _separate(privileged, missing)
    _set_root(root, missing)
    kept = set(capabilities) if privileged and not nobody else set()
    if linux:
        _narrow_capabilities(kept)
    if nobody and privileged:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        # The capabilities go with the user (capabilities(7), "Effect of user ID changes").
        os.setresuid(NOBODY, NOBODY, NOBODY)
        if linux:
            _die_with(parent)  # with the user went the signal, too (prctl(2))
    _limit(ceiling)
    if linux:
        _keep_capabilities(kept)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return missing


def _die_with(parent: int) -> None:
    # The signal comes when the *thread* that made us ends (prctl(2)): it waits for us anyway.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        raise SystemExit(1)


def _separate(privileged: bool, missing: list[str]) -> None:
    """Network and System V IPC of our own, with nothing in them."""
    uid, gid = os.geteuid(), os.getegid()
    wanted = _CLONE_NEWNET | _CLONE_NEWIPC
    try:
        _call(_libc().unshare, wanted if privileged else wanted | _CLONE_NEWUSER)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        missing.append("a network of its own")
        return
    if not privileged:
        # The one user that we are, and nobody else (user_namespaces(7)).
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _set_root(root: int, missing: list[str]) -> None:
    os.fchdir(root)
    os.close(root)
    try:
        os.chroot(".")
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        missing.append("a root directory of its own")
        return
    os.chdir("/")


def _limit(ceiling: Ceiling) -> None:
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, ceiling.memory_bytes),
        (resource.RLIMIT_FSIZE, ceiling.file_bytes),
        (resource.RLIMIT_NOFILE, ceiling.files),
        (resource.RLIMIT_CPU, ceiling.seconds),
        (resource.RLIMIT_NPROC, 0),  # no process, no thread; root's are not counted
    ]
    for what, most in wanted:
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


# --- capabilities --------------------------------------------------------------------------------


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _capabilities() -> tuple[_Header, ctypes.Array[_Data], int]:
    """What capset(2) takes, filled with what we have, and the permitted ones as one number."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    _call(_libc().capget, ctypes.byref(header), data)
    return header, data, data[0].permitted | data[1].permitted << 32


def _narrow_capabilities(kept: set[int]) -> None:
    """No other can ever come back: before the user changes, for it needs one itself."""
    _, _, permitted = _capabilities()
    if permitted >> SETPCAP & 1:
        for number in range(_LAST_CAPABILITY + 1):
            if number not in kept and _libc().prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
                _prctl(_PR_CAPBSET_DROP, number)


def _keep_capabilities(kept: set[int]) -> None:
    header, data, permitted = _capabilities()
    wanted = permitted & sum(1 << number for number in kept)
    for half, one in enumerate(data):
        one.effective = one.permitted = wanted >> 32 * half & 0xFFFF_FFFF
        one.inheritable = 0
    _call(_libc().capset, ctypes.byref(header), data)


# --- the C library -------------------------------------------------------------------------------


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(what: int, value: int) -> None:
    _call(_libc().prctl, what, value, 0, 0, 0)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
