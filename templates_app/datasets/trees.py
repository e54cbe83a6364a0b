"""Whole file trees: look at one, copy one, remove one. For the ``dir:`` driver.

Nothing here follows a symbolic link of a tree, and none of it is for trees that others can change.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from templates_app.errors import (
    CoppiceError,
    OutOfSpace,
    PoolBusy,
    PoolUnavailable,
    ProgramFailed,
    StorageReadOnly,
    TreeRefused,
)
from templates_app.run import run
from templates_app.trust import mtree

#: Longer than a tick of any kernel's clock, in seconds: after it, a change has another ctime.
TICK = 0.011
#: Between two times that a tree which is being filled is written out, in seconds.
_PAUSE = 0.2
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: Bytes of a path that a program names, with the one that ends it: 4096 on Linux, 1024 on FreeBSD.
_PATH_MAX = os.pathconf("/", "PC_PATH_MAX")


@dataclass(frozen=True, slots=True)
class Look:
    """What :func:`look` saw of a tree."""

    guid: str  # decimal text of 64 bits
    size_bytes: int  # contents of regular files, each hard-linked file once
    entries: int
    longest: bytes  # path below the top, without a slash before it


def look(top: Path) -> Look:
    """Walk ``top`` and fold what lstat(2) says of each entry into a 64-bit number.

    The number stays the same as long as nobody changes the tree, and through renames of ``top``
    (so the ctime of ``top`` itself, which a rename sets, does not count). Every change of contents,
    mode, owner or extended attributes sets a ctime, and no system call can set it back. A copy has
    times of its own, so it has another number. FileNotFoundError if the tree goes away meanwhile;
    TreeRefused where a path in it is too long for the kernel.
    """
    try:
        return _look(top)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise too_long(os.fsencode(error.filename)[len(os.fsencode(top)) + 1 :]) from None


def too_long(path: bytes) -> TreeRefused:
    """The refusal of a tree that has this path below its top."""
    shown = mtree.escape(path)[:200].decode("ascii") + "…"
    return TreeRefused(
        f"{shown} has a path of {len(path)} bytes, too many below this pool's directory: programs"
        f" take paths of less than {_PATH_MAX} bytes.",
        hint="Give the pool a shorter directory, or import it on a zfs: pool.",
        extra={"path": shown, "rule": "path-length"},
    )


def fits(longest: bytes, top: Path, room: int) -> bool:
    """Whether a program can name it in a directory ``room`` bytes deeper than ``top``."""
    return len(longest) + len(os.fsencode(top)) + room < _PATH_MAX


def allocated(top: Path) -> tuple[int, int]:
    """Bytes on the disk that the tree's files take, each once; and of those with no name elsewhere.

    Blocks that files share (reflinks) cannot be told here.
    """
    blocks: dict[tuple[int, int], tuple[int, int]] = {}  # inode -> (bytes, names left to find)
    for directory, _, names in os.walk(top, onerror=_raise):
        for path in (directory, *(os.path.join(directory, name) for name in names)):  # noqa: PTH118
            seen = os.lstat(path)
            left = 1 if stat.S_ISDIR(seen.st_mode) else seen.st_nlink
            key = seen.st_dev, seen.st_ino
            size, left = blocks.get(key, (seen.st_blocks * 512, left))
            blocks[key] = size, left - 1
    everything = sum(size for size, _ in blocks.values())
    return everything, sum(size for size, left in blocks.values() if left <= 0)


def _raise(error: OSError) -> None:
    raise error


def _look(top: Path) -> Look:
    own = top.lstat()
    digest = hashlib.sha256(_facts(own, ctime=False))
    size = entries = 0
    longest = b""
    counted: set[int] = set()
    stack = [(str(top), "")]
    while stack:
        path, relative = stack.pop()
        with os.scandir(path) as scan:
            found = sorted(scan, key=lambda entry: entry.name)
        for entry in found:
            there = entry.stat(follow_symlinks=False)
            name = f"{relative}/{entry.name}"
            encoded = os.fsencode(name)
            digest.update(encoded + b"\0" + _facts(there, ctime=True))
            if len(encoded) > len(longest):
                longest = encoded
            entries += 1
            if stat.S_ISDIR(there.st_mode):
                stack.append((entry.path, name))
            elif stat.S_ISREG(there.st_mode) and there.st_ino not in counted:
                size += there.st_size
                if there.st_nlink > 1:
                    counted.add(there.st_ino)
    guid = str(int.from_bytes(digest.digest()[:8], "big"))
    return Look(guid, size, entries, longest[1:])


def _facts(there: os.stat_result, *, ctime: bool) -> bytes:
    # Not the inode number: on an overlay it may change with the next mount.
    size = 0 if stat.S_ISDIR(there.st_mode) else there.st_size
    facts = (there.st_mode, there.st_uid, there.st_gid, size, there.st_rdev, there.st_mtime_ns)
    return struct.pack("<7q", *facts, there.st_ctime_ns if ctime else 0)


def copy(source: Path, target: Path, *, seconds: float) -> None:
    """Make ``target`` a copy of ``source`` with everything that a file system keeps of a tree.

    Contents (shared blocks where the file system can), holes, hard links, modes with set-id bits,
    owners (for root), times, ACLs, extended attributes, links, devices and fifos (for root).
    """
    if _has_gnu_cp():
        program(["cp", "-a", "--reflink=auto", "-T", "--", str(source), str(target)], seconds)
    else:  # FreeBSD: its cp splits hard links
        program(
            ["rsync", "-aHAXS", "--numeric-ids", "--", f"{source}/", f"{target}/"],
            seconds,
        )


def _has_gnu_cp() -> bool:
    return "GNU coreutils" in run(["cp", "--version"], timeout=10, check=False).stdout


def remove(path: Path, *, seconds: float) -> None:
    """Remove a tree of any depth. rm(1) never follows links, nor leaves the tree by a rename."""
    with contextlib.suppress(OSError):
        path.rmdir()  # empty, most often: no need of a program then
        return
    result = run(["rm", "-rf", "--", str(path)], timeout=seconds, check=False)
    if result.status != 0 and os.geteuid() != 0:
        # Directories without write permission keep their entries from anyone but root.
        run(["chmod", "-R", "u+rwX", "--", str(path)], timeout=seconds, check=False)
        result = run(["rm", "-rf", "--", str(path)], timeout=seconds, check=False)
    if result.status != 0:
        raise complaint("rm", result.status, result.stderr)


def program(argv: list[str], seconds: float) -> None:
    """Run a program that writes into the pool, with its complaint as an error of ours."""
    result = run(argv, timeout=seconds, check=False)
    if result.status != 0:
        raise complaint(argv[0], result.status, result.stderr)


def complaint(what: str, status: int, stderr: str) -> CoppiceError:
    """Judged by the ends of lines, for file names (which an image chose) stand before them."""
    if re.search(r"(?m): (?:No space left on device|Disk quota exceeded)(?: \(\d+\))?$", stderr):
        return OutOfSpace("The pool's file system is full, or a quota used up.", private=stderr)
    if re.search(r"(?m): Read-only file system(?: \(\d+\))?$", stderr):
        return StorageReadOnly("The pool's file system is read-only.", private=stderr)
    return ProgramFailed(f"{what} ended with status {status}.", private=stderr)


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """An OSError of the block as an error of ours; ``what`` says what could not be done."""
    try:
        yield
    except OSError as failed:
        private = f"{what}: {failed}"
        if failed.errno in _NO_SPACE:
            raise OutOfSpace(
                "The pool's file system is full, or a quota used up.", private=private
            ) from failed
        if failed.errno == errno.EROFS:
            raise StorageReadOnly("The pool's file system is read-only.", private=private) from None
        if failed.errno == errno.EBUSY:
            raise PoolBusy(f"{what}: something is mounted there.", private=private) from failed
        reason = os.strerror(failed.errno) if failed.errno else type(failed).__name__
        raise PoolUnavailable(f"{what}: {reason}.", private=private) from failed


def mounts_below(top: Path) -> list[str]:
    """Mount points at or below ``top``: removing through one would empty another file system.

    A bind mount has the device number of what it shows, so comparing those is not enough.
    """
    table = Path("/proc/self/mountinfo")
    if table.exists():  # proc(5): the fifth field, with octal escapes
        raw = [line.split(b" ")[4] for line in table.read_bytes().splitlines()]
        points = [re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), one) for one in raw]
    else:  # FreeBSD: fstab(5) format
        listed = run(["mount", "-p"], timeout=30).stdout.splitlines()
        points = [os.fsencode(line.split()[1]) for line in listed if len(line.split()) > 1]
    prefix = os.fsencode(os.path.realpath(top))
    return sorted(
        os.fsdecode(one) for one in points if one == prefix or one.startswith(prefix + b"/")
    )


def make_durable(top: Path) -> None:
    """Have the file system of ``top`` write out all that it holds in memory: names, too.

    syncfs(2) for one file system; sync(2) for all where there is no such call.
    """
    if _syncfs is None:
        os.sync()
        write_names(top.parent)  # sync(2) need not wait (FreeBSD's does not); this does
        return
    with directory(top) as descriptor:
        if _syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def written_out_meanwhile(top: Path) -> Iterator[None]:
    """While the block fills ``top``, the disk gets what is there already, again and again.

    Else all of it would be waited for in the end, when there is nothing left to do besides. It is
    no promise: :func:`make_durable` is still to be called. Raises what the disk says meanwhile, as
    an error of ours: of a failed write syncfs(2) tells one caller, once.
    """
    over = threading.Event()

    def write_out() -> None:
        pause = _PAUSE
        while not over.wait(pause):
            begun = time.monotonic()
            make_durable(top)
            # A slow disk gets no more to do by this than half of its time.
            pause = max(_PAUSE, time.monotonic() - begun)

    if _syncfs is None:  # the others' files are none of our business
        yield
        return
    with ThreadPoolExecutor(1) as beside:
        working = beside.submit(write_out)
        try:
            yield
        finally:
            over.set()
    with disk_errors("What was written did not reach the disk"):
        working.result()


def write_names(place: Path) -> None:
    """Have the entries of a directory (what was made, renamed, removed in it) written out."""
    with directory(place) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
