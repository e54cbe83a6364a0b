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
from collections.abc import Callable

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


def flag_words(flags: int) -> list[bytes]:
    """The words of chflags(1) for ``st_flags``, in bytewise order."""
    return [word for bit, word in _FLAGS if flags & bit]


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
    libc.extattr_list_fd.restype = libc.extattr_get_fd.restype = ctypes.c_ssize_t
    return libc


def _all_of(call: Callable[[ctypes.Array[ctypes.c_char] | None, int], int]) -> bytes:
    """What ``call(buffer, size)`` fills in; without a buffer it says how many bytes there are."""
    size = call(None, 0)
    if size >= 0:
        buffer = ctypes.create_string_buffer(max(size, 1))
        size = call(buffer, size)
        if size >= 0:
            return buffer.raw[:size]
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def unpack_names(packed: bytes) -> list[bytes]:
    """The names in what extattr_list_fd(2) gives: each one after a byte with its length."""
    names = []
    at = 0
    while at < len(packed):
        end = at + 1 + packed[at]
        names.append(packed[at + 1 : end])
        at = end
    return names
