"""The canonical manifest of a file tree, and the tree digest: sha256 over the manifest's bytes.

The manifest is an mtree(5) specification that stock mtree(8) checks a tree with; what mtree has no
keyword for stands in comment lines, so that the digest covers it too. The format's description is
docs/reference/tree-manifest.md.

A tree is walked through directory descriptors, no link of it is ever followed, and nothing of it is
opened but directories and regular files. It must not change meanwhile: a change that is noticed
ends the scan.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from templates_app.errors import CoppiceError, PoolUnavailable, TreeChanged, TreeRefused
from templates_app.trust import attributes, mtree
from templates_app.trust.mtree import escape

MAX_PATH = 4096  # bytes of a path below the root: Linux's PATH_MAX, beyond which tools fail
MAX_DEPTH = 255  # components of a path; each level of a walk holds one descriptor open
_CHUNK = 1024 * 1024  # bytes of a file that are read at a time
_FLUSH = 1000  # lines of the manifest that are hashed and written at a time
_PROGRESS_SECONDS = 0.25
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: should a fifo have taken a file's place, the open must not wait for its other end.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SPECIAL = {stat.S_IFIFO: b"fifo", stat.S_IFCHR: b"char", stat.S_IFBLK: b"block"}
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What :func:`scan` found."""

    digest: str  # sha256:<hex> of the manifest
    entries: int  # below the root
    size_bytes: int  # contents of regular files, holes included, each hard-linked file once


def scan(
    root: Path,
    *,
    limit_entries: int,
    on_progress: Callable[[int, int], None] | None = None,
    ownership: Mapping[bytes, tuple[int, int]] | None = None,
    into: BinaryIO | None = None,
) -> Tree:
    """Walk the tree once, and write its manifest ``into`` a stream if one is given.

    ``root`` is a directory, not a link to one. ``on_progress`` gets entries and bytes done so far,
    at most four times a second and once at the end. ``ownership`` has (uid, gid) for paths that
    have others in the image than here; paths are relative to the root, the root itself is ``b"."``.
    Memory grows with the largest directory and with hard links whose other names are still to come,
    not with the tree.

    Raises TreeRefused (``extra``: ``path``, ``rule``) for what a template may not hold: rule
    ``type`` (sockets), ``path_length``, ``depth``, ``entries``, ``mount``; TreeChanged if files
    come, go or grow meanwhile; PoolUnavailable if something cannot be read.
    """
    return _Scan(limit_entries, on_progress, ownership or {}, into).whole(root)


def digest(manifest: bytes) -> str:
    """The tree digest of a manifest."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def entries(manifest: bytes) -> int:
    """How many entries below the root a manifest has."""
    return manifest.count(b"\n./")


@dataclass(slots=True)
class _Linked:
    """A file with several names: what was found at the first, and how many are still to come."""

    path: bytes  # the bytewise first, escaped
    to_come: int
    content: tuple[int, bytes, bytes] | None = None


class _Scan:
    """One walk. Paths are bytes, relative to the root; ``shown`` is their escaped form."""

    def __init__(
        self,
        limit_entries: int,
        on_progress: Callable[[int, int], None] | None,
        ownership: Mapping[bytes, tuple[int, int]],
        into: BinaryIO | None,
    ) -> None:
        self._limit = limit_entries
        self._on_progress = on_progress
        self._ownership = ownership
        self._into = into
        self._digest = hashlib.sha256()
        self._lines = [mtree.FIRST_LINE]
        self._buffer = memoryview(bytearray(_CHUNK))
        self._device = -1
        self._listed = 0
        self._entries = 0
        self._size = 0
        self._linked: dict[tuple[int, int], _Linked] = {}
        self._next_report = time.monotonic() + _PROGRESS_SECONDS
        # Linux has a list of mounts, bind mounts too; there a file's device says nothing more, and
        # on an overlay it differs. Elsewhere every mount has a device of its own.
        self._files_by_device = not _MOUNTS.exists()

    def whole(self, root: Path) -> Tree:
        self._refuse_mounts(root)
        with _reading(b"."):
            top = os.open(root, _OPEN_DIRECTORY)
        try:
            with _reading(b"."):
                there = os.fstat(top)
                comments = _comments(top, there)
            self._device = there.st_dev
            self._write(b". " + mtree.directory(self._mode_and_owner(b".", there), comments))
            self._below(top, b"", b"./", 1)
        finally:
            os.close(top)
        self._flush()
        if self._on_progress is not None:
            self._on_progress(self._entries, self._size)
        return Tree(
            digest="sha256:" + self._digest.hexdigest(),
            entries=self._entries,
            size_bytes=self._size,
        )

    def _refuse_mounts(self, root: Path) -> None:
        """A bind mount has the device of what it shows, so comparing devices would not find it."""
        if self._files_by_device:
            return
        above = os.path.realpath(os.fsencode(root)).rstrip(b"/") + b"/"
        for line in _MOUNTS.read_bytes().splitlines():
            # proc(5): the fifth field is the mount point, with blanks and backslashes as \ooo.
            place = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split()[4])
            if place.startswith(above):
                raise _refused("mount", place.removeprefix(above), "is a mount point")

    # --- the walk ------------------------------------------------------------------------------

    def _below(self, fd: int, path: bytes, shown: bytes, depth: int) -> None:
        """All entries below an open directory; ``path`` and ``shown`` end with a slash or nothing.

        Whole paths come in bytewise order although directories are walked one by one: what is below
        ``a`` comes where ``a/`` stands among the names, so ``a``, ``a.b``, ``a/b``, for ``.`` is
        before ``/``. Names hold no slash, so none falls between two paths that begin with ``a/``.
        """
        items: list[bytes] = []
        directories = set()
        with _reading(path), os.scandir(fd) as found:
            for entry in found:
                name = os.fsencode(entry.name)
                self._count(path + name)
                items.append(name)
                if entry.is_dir(follow_symlinks=False):
                    items.append(name + b"/")
                    directories.add(name)
        if items and depth > MAX_DEPTH:
            raise _refused("depth", path + items[0], f"is deeper than {MAX_DEPTH} levels")
        items.sort()
        for item in items:
            if item[-1:] == b"/":
                with self._directory(fd, path + item[:-1], item[:-1]) as inner:
                    self._below(inner, path + item, shown + escape(item), depth + 1)
            elif self._entry(fd, path + item, item, shown + escape(item)) != (item in directories):
                raise _changed(path + item)

    def _count(self, path: bytes) -> None:
        self._listed += 1
        if self._listed > self._limit:
            raise _refused("entries", path, f"is one entry more than the {self._limit} allowed")
        if len(path) > MAX_PATH:
            raise _refused("path_length", path, f"has a path of more than {MAX_PATH} bytes")

    def _entry(self, parent: int, path: bytes, name: bytes, shown: bytes) -> bool:
        """Write the lines of one entry; True for a directory, whose inside is not looked at yet."""
        with _reading(path):
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(there.st_mode)
        is_directory = kind == stat.S_IFDIR
        if there.st_dev != self._device and (is_directory or self._files_by_device):
            raise _refused("mount", path, "is a mount point")
        first = None if is_directory or there.st_nlink == 1 else self._first_name(there, shown)
        who = self._mode_and_owner(path, there)
        if kind == stat.S_IFREG:
            size, sha256, comments = self._regular(parent, path, name, there, first)
            what = mtree.file(who, size, sha256, comments)
        elif is_directory:
            with self._directory(parent, path, name) as fd, _reading(path):
                what = mtree.directory(who, _comments(fd, there))
        elif kind == stat.S_IFLNK:
            with _reading(path):
                target = os.readlink(name, dir_fd=parent)
            what = mtree.link(*self._owner(path, there), target)
        elif kind in _SPECIAL:
            what = mtree.special(_SPECIAL[kind], who)
        else:
            is_socket = kind == stat.S_IFSOCK
            raise _refused("type", path, "is a socket" if is_socket else "is of an unknown type")
        self._write(b"%s %s" % (shown, what))
        if first is not None and first.path != shown:
            self._write(mtree.hardlink(first.path))
        self._entries += 1
        self._report()
        return is_directory

    def _first_name(self, there: os.stat_result, shown: bytes) -> _Linked:
        """The record of a file with several names; forgotten when the last of them has come."""
        key = there.st_dev, there.st_ino
        linked = self._linked.get(key)
        if linked is None:
            linked = self._linked[key] = _Linked(shown, there.st_nlink)
        linked.to_come -= 1
        if linked.to_come == 0:
            del self._linked[key]
        return linked

    @contextlib.contextmanager
    def _directory(self, parent: int, path: bytes, name: bytes) -> Iterator[int]:
        with _reading(path):
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            if os.fstat(fd).st_dev != self._device:
                raise _refused("mount", path, "is a mount point")
            yield fd
        finally:
            os.close(fd)

    def _regular(
        self, parent: int, path: bytes, name: bytes, there: os.stat_result, first: _Linked | None
    ) -> tuple[int, bytes, bytes]:
        """Size and sha256 of a regular file's content, and its comment lines."""
        if first is not None and first.content is not None:
            return first.content
        with _reading(path):
            fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            with _reading(path):
                opened = os.fstat(fd)
            if (opened.st_ino, opened.st_mode) != (there.st_ino, there.st_mode):
                raise _changed(path)
            digest = self._sha256(fd, path, there.st_size)
            with _reading(path):
                comments = _comments(fd, there)
        finally:
            os.close(fd)
        content = there.st_size, digest, comments
        if first is not None:
            first.content = content
        return content

    def _sha256(self, fd: int, path: bytes, size: int) -> bytes:
        digest = hashlib.sha256()
        done = 0
        while True:
            with _reading(path):
                count = os.readv(fd, (self._buffer,))
            if not count:
                break
            digest.update(self._buffer[:count])
            done += count
            self._size += count
            self._report()
        if done != size:
            raise _changed(path)
        return digest.hexdigest().encode("ascii")

    def _mode_and_owner(self, path: bytes, there: os.stat_result) -> bytes:
        return mtree.mode_and_owner(stat.S_IMODE(there.st_mode), *self._owner(path, there))

    def _owner(self, path: bytes, there: os.stat_result) -> tuple[int, int]:
        own = there.st_uid, there.st_gid
        return self._ownership.get(path, own) if self._ownership else own

    # --- what comes out ------------------------------------------------------------------------

    def _write(self, lines: bytes) -> None:
        self._lines.append(lines)
        if len(self._lines) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._lines)
        self._lines.clear()
        self._digest.update(data)
        if self._into is not None:
            self._into.write(data)

    def _report(self) -> None:
        if self._on_progress is not None and time.monotonic() >= self._next_report:
            self._on_progress(self._entries, self._size)
            self._next_report = time.monotonic() + _PROGRESS_SECONDS


def _comments(fd: int, there: os.stat_result) -> bytes:
    """The comment lines that follow a file's or directory's own line."""
    flags = attributes.flag_words(getattr(there, "st_flags", 0))
    return mtree.comments(attributes.extended(fd), flags)


class _reading:  # noqa: N801  (used as a statement's word; a generator costs three times as much)
    """Errors of the block's system calls as errors of ours, with the path inside the tree."""

    __slots__ = ("path",)
    _CHANGES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)

    def __init__(self, path: bytes) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in self._CHANGES and self.path != b".":
            raise _changed(self.path) from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise PoolUnavailable(
            f"{_brief(self.path)} cannot be read: {reason}.", private=str(error)
        ) from error


def _brief(path: bytes) -> str:
    """A path as a message shows it: escaped, at most 200 characters."""
    text = (b"./" + escape(path) if path != b"." else path).decode("ascii")
    return text if len(text) <= 200 else text[:199] + "…"


def _refused(rule: str, path: bytes, what: str) -> CoppiceError:
    where = _brief(path)
    return TreeRefused(f"{where} {what}.", extra={"path": where, "rule": rule})


def _changed(path: bytes) -> CoppiceError:
    return TreeChanged(f"{_brief(path)} changed while the files were read.")
