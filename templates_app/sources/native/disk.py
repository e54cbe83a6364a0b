"""File systems of pools: what the writer asks of them, and what one does otherwise than another."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_END_OF_TIME = (2**31 - 1) * 10**9  # of seconds in 32 bits, in nanoseconds


def has_room(fd: int) -> bool:
    """Whether the file system of an open file has blocks and inodes left. OSError."""
    found = os.fstatvfs(fd)
    return found.f_bavail > 0 and (found.f_favail > 0 or not found.f_files)


def set_time(place: int | bytes, when: int, **where: Any) -> None:
    """utime(2) of both times, nanoseconds since 1970; ``where`` as for os.utime(). OSError."""
    try:
        os.utime(place, ns=(when, when), **where)
    except OSError as error:
        if error.errno != errno.EOVERFLOW:
            raise
        # As Linux does for file systems that tell it where their time ends; zfs-fuse does not.
        os.utime(place, ns=(_END_OF_TIME, _END_OF_TIME), **where)


def folds_names(directory: int) -> bool:
    """Whether the file system takes names for one that differ in case, or in Unicode's forms."""
    mark = os.urandom(8).hex().encode()
    for one, other in ((b"A", b"a"), ("\u00e9".encode(), "e\u0301".encode())):
        os.close(os.open(mark + one, _NEW, 0o600, dir_fd=directory))
        try:
            os.unlink(mark + other, dir_fd=directory)
        except FileNotFoundError:
            os.unlink(mark + one, dir_fd=directory)
        else:
            return True
    return False


def write_soon(fd: int) -> None:
    """Have the kernel begin to write the file out, without waiting: sync_file_range(2) of Linux."""
    if _sync_file_range is not None:
        _sync_file_range(fd, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE; what fails here, the seal will say


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function  # type: ignore[no-any-return]


_sync_file_range = _find_sync_file_range()
