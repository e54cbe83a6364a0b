"""What a file carries beside mode and owner, and mtree(8) has no keyword for.

Extended attributes that an image can bring and that the kernel or programs act on, and FreeBSD's
file flags. One spelling on every system: FreeBSD's namespace ``user`` is Linux's prefix ``user.``,
as tar and rsync write it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable

CAPABILITY = b"security.capability"

#: In bytewise order of the words, which are chflags(1)'s. Left out: what a file system sets by
#: itself (``uarch``, which ZFS sets at every change, ``sparse``, ``offline`` …).
_FLAGS = (
    (stat.UF_NODUMP, b"nodump"),
    (stat.UF_OPAQUE, b"opaque"),
    (stat.SF_APPEND, b"sappnd"),
    (stat.SF_IMMUTABLE, b"schg"),
    (stat.SF_NOUNLINK, b"sunlnk"),
    (stat.UF_APPEND, b"uappnd"),
    (stat.UF_IMMUTABLE, b"uchg"),
    (stat.UF_NOUNLINK, b"uunlnk"),
)
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.EOPNOTSUPP)  # the file system keeps none
_NAMESPACE_USER = 1  # EXTATTR_NAMESPACE_USER of FreeBSD's sys/extattr.h
_NO_FOLLOW = 0x200  # AT_SYMLINK_NOFOLLOW of FreeBSD's fcntl.h


def flag_words(flags: int) -> list[bytes]:
    """The words of chflags(1) for ``st_flags``, in bytewise order."""
    return [word for bit, word in _FLAGS if flags & bit]


def put_flags(fd: int, words: Iterable[bytes]) -> bool:
    """Set the flags that the words name; False where the system has none. OSError."""
    if not hasattr(os, "chflags"):
        return False
    wanted = set(words)
    _checked(_libc().fchflags(fd, sum(bit for bit, word in _FLAGS if word in wanted)))
    return True


def clear_flags(fd: int) -> None:
    """An open file or directory can be changed again, whatever flags it had. OSError."""
    if getattr(os.fstat(fd), "st_flags", 0):
        _checked(_libc().fchflags(fd, 0))


def clear_flags_of(directory: int, name: bytes) -> bool:
    """The same for what has this name in a directory; whether it had any flags. OSError."""
    there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not getattr(there, "st_flags", 0):
        return False
    _checked(_libc().chflagsat(directory, name, 0, _NO_FOLLOW))
    return True


def extended(fd: int) -> list[tuple[bytes, bytes]]:
    """(name, value) of the extended attributes that count, in bytewise order of names.

    ``security.capability`` and ``user.*``. Not labels and rules of the host (``security.selinux``,
    ``trusted.*``, ``system.*``): those say where a tree lies, not what it is. OSError.
    """
    if not hasattr(os, "listxattr"):
        return _of_freebsd(fd)
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return []
        raise
    if not names:  # the common case, at every file
        return []
    counted = sorted(filter(_counts, map(os.fsencode, names)))
    return [(name, os.getxattr(fd, name)) for name in counted]


def put(fd: int, name: bytes, value: bytes) -> None:
    """Set an extended attribute. OSError, ENOTSUP where the system has no such attribute."""
    if hasattr(os, "setxattr"):
        os.setxattr(fd, name, value)
        return
    namespace, _, rest = name.partition(b".")
    if namespace != b"user":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    _checked(_libc().extattr_set_fd(fd, _NAMESPACE_USER, rest, value, len(value)))


def remove(fd: int, name: bytes) -> None:
    """Remove an extended attribute that :func:`extended` has found. OSError."""
    if hasattr(os, "removexattr"):
        os.removexattr(fd, name)
        return
    _checked(_libc().extattr_delete_fd(fd, _NAMESPACE_USER, name.removeprefix(b"user.")))


def _counts(name: bytes) -> bool:
    return name == CAPABILITY or name.startswith(b"user.")


def _of_freebsd(fd: int) -> list[tuple[bytes, bytes]]:
    """The same through extattr(2), which Python has no function for."""
    libc = _libc()
    try:
        packed = _all_of(functools.partial(libc.extattr_list_fd, fd, _NAMESPACE_USER))
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return []
        raise
    return [
        (
            b"user." + name,
            _all_of(functools.partial(libc.extattr_get_fd, fd, _NAMESPACE_USER, name)),
        )
        for name in sorted(unpack_names(packed))
    ]


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_void_p, ctypes.c_size_t)
    libc.extattr_list_fd.argtypes = (ctypes.c_int, ctypes.c_int, *buffer)
    libc.extattr_get_fd.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, *buffer)
    libc.extattr_set_fd.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, *buffer)
    libc.extattr_delete_fd.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
    for name in ("list", "get", "set"):
        getattr(libc, f"extattr_{name}_fd").restype = ctypes.c_ssize_t
    libc.fchflags.argtypes = (ctypes.c_int, ctypes.c_ulong)
    libc.chflagsat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_int)
    return libc


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _all_of(call: Callable[[ctypes.Array[ctypes.c_char] | None, int], int]) -> bytes:
    """What ``call(buffer, size)`` fills in; without a buffer it says how many bytes there are."""
    size = call(None, 0)
    if size >= 0:
        buffer = ctypes.create_string_buffer(max(size, 1))
        size = call(buffer, size)
        if size >= 0:
            return buffer.raw[:size]
    _checked(size)
    raise AssertionError("a negative size is an error")


def unpack_names(packed: bytes) -> list[bytes]:
    """The names in what extattr_list_fd(2) gives: each one after a byte with its length."""
    names = []
    at = 0
    while at < len(packed):
        end = at + 1 + packed[at]
        names.append(packed[at + 1 : end])
        at = end
    return names
