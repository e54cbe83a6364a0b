"""The writer: executes operations below one directory.

It knows directories by the numbers that the model gave them, and never resolves a path: each step
goes from an open directory to one component below it, following nothing. What it makes, it makes
anew (``O_EXCL``), so that a name that the model did not expect is an error and nothing is written
through it.

The order for one file: contents, owner, mode (chown clears set-id bits), extended attributes (chown
clears capabilities), times, flags. Without root, owners, devices and privileged attributes cannot
be applied: they are counted, and ``skipped`` says so.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from templates_app.sources.native import failures, wire
from templates_app.sources.native.disk import folds_names, has_room, set_time, write_soon
from templates_app.sources.native.entry import Kind
from templates_app.sources.native.operations import ROOT, Do, Meta
from templates_app.sources.native.removing import remove_below, unlink
from templates_app.trust import attributes

MAX_OPEN = 128  # directories that stay open
#: A file of this size begins its way to the disk when it is closed, so that the seal waits less.
_EARLY = 256 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.EOPNOTSUPP)
#: ext4 has one block for all attributes of a file, and calls that full, too.
_TOO_LARGE = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_WITH_ATTRIBUTES = frozenset({Do.FILE, wire.LARGE, Do.SYMLINK, Do.NODE, Do.SETTLE})
_DEVICES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}


@dataclass(slots=True)
class Skipped:
    """What could not be applied, in entries."""

    owners: int = 0
    modes: int = 0
    devices: int = 0
    attributes: int = 0  # that need privileges
    unsupported: int = 0  # attributes that the file system does not keep
    flags: int = 0


@dataclass(slots=True)
class _Open:
    """A directory that is open; ``gid`` is the group that what is made in it gets."""

    fd: int
    gid: int


@dataclass(slots=True)
class Writer:
    """``root`` is a descriptor of the directory that everything goes below; it stays the caller's.

    ``privileged``: owners, devices and capabilities can be applied.
    """

    root: int
    privileged: bool
    skipped: Skipped = field(default_factory=Skipped)
    written: int = 0  # bytes of contents
    _uid: int = field(default_factory=os.geteuid)
    _gid: int = field(default_factory=os.getegid)
    _places: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    _open: dict[int, _Open] = field(default_factory=dict)
    _attributed: set[int] = field(default_factory=set)  # directories that may have attributes
    _times: dict[int, int] = field(default_factory=dict)  # mtimes of kept layers' directories
    _unmade: set[tuple[int, bytes]] = field(default_factory=set)  # names of devices, without root
    _file: int = -1  # the file whose contents are coming
    _meta: Meta = (0, 0, 0, None, (), ())
    _missing: int = 0  # bytes of it that are still to come
    _gid_of_file: int = 0
    _size: int = 0

    def __post_init__(self) -> None:
        self._keep_time(ROOT)

    def run(self, frames: Callable[[], bytes], on_stop: Callable[[int], None]) -> None:
        """Execute frames for ever; Broken ends it. ``on_stop`` is called at each layer's end."""
        while True:
            frame = frames()
            try:
                self._execute(frame, on_stop)
            except FileExistsError as error:
                if not folds_names(self.root):
                    raise
                raise failures.folded(error) from error

    def _execute(self, frame: bytes, on_stop: Callable[[int], None]) -> None:
        at, end = 0, len(frame)
        while at < end:
            do = frame[at]
            if do in _WITH_ATTRIBUTES:
                at = self._node(frame, at)
            elif do == wire.DATA:
                _, length = wire.BULK.unpack_from(frame, at)
                at += wire.BULK.size
                self._data(memoryview(frame)[at : at + length])
                at += length
            elif do == Do.LINK:
                _, parent, source_parent, length, source_length = wire.LINK.unpack_from(frame, at)
                at += wire.LINK.size
                name = frame[at : at + length]
                at += length
                self._link(parent, name, source_parent, frame[at : at + source_length])
                at += source_length
            elif do == wire.STOP:
                _, layer = wire.BULK.unpack_from(frame, at)
                at += wire.BULK.size
                on_stop(layer)
            else:
                _, parent, number, length = wire.PLACE.unpack_from(frame, at)
                at += wire.PLACE.size
                self._place(do, parent, frame[at : at + length], number)
                at += length

    def _node(self, frame: bytes, at: int) -> int:
        do, parent, uid, gid, mode, when, size, name_length, rest_length = wire.NODE.unpack_from(
            frame, at
        )
        at += wire.NODE.size
        name = frame[at : at + name_length]
        at += name_length
        rest = frame[at : at + rest_length]
        at += rest_length
        mtime = None if when == wire.NO_TIME else when
        if do in (Do.FILE, wire.LARGE):
            xattrs, flags = wire.extras(rest) if rest else ((), ())
            self._begin(parent, name, (mode, uid, gid, mtime, xattrs, flags), size)
            if do == Do.FILE:
                self._data(memoryview(frame)[at : at + size])
                at += size
        elif do == Do.SYMLINK:
            self._symlink(parent, name, rest, uid, gid, mtime)
        elif do == Do.NODE:
            kind, major, minor = wire.DEVICE.unpack_from(rest)
            more = wire.extras(rest[wire.DEVICE.size :])
            self._special(parent, name, kind, (mode, uid, gid, mtime, *more), major, minor)
        else:
            self._settle(parent, (mode, uid, gid, mtime, *wire.extras(rest)))
        return at

    # --- directories -----------------------------------------------------------------------------

    def _place(self, do: int, parent: int, name: bytes, number: int) -> None:
        if do == Do.MKDIR:
            os.mkdir(name, 0o700, dir_fd=self._directory(parent).fd)
            self._places[number] = (parent, name)
        elif do == Do.KNOWN:
            self._places[number] = (parent, name)
            self._keep_time(number)
        elif do == Do.REMOVE:
            self._remove(parent, name, number)
        elif do == wire.SAME_TIME:
            then = self._times[number]
            set_time(self._directory(number).fd, then)
        else:
            raise wire.Broken(f"{do} is no operation")

    def _directory(self, number: int) -> _Open:
        found = self._open.pop(number, None)
        if found is None:
            found = self._reach(number)
        self._open[number] = found  # the last one, so the first is the one least recently used
        return found

    def _reach(self, number: int) -> _Open:
        if number == ROOT:
            fd = os.dup(self.root)
        else:
            parent, name = self._places[number]
            fd = os.open(name, _DIRECTORY, dir_fd=self._directory(parent).fd)
        if len(self._open) >= MAX_OPEN:
            os.close(self._open.pop(next(iter(self._open))).fd)
        there = os.fstat(fd)
        return _Open(fd, there.st_gid if _passes_group_on(there.st_mode) else self._gid)

    def _keep_time(self, number: int) -> None:
        """Of a directory that a kept layer made: its time, and that it may have attributes."""
        self._times[number] = os.fstat(self._directory(number).fd).st_mtime_ns
        self._attributed.add(number)

    def _settle(self, number: int, meta: Meta) -> None:
        mode, uid, gid, mtime, xattrs, flags = meta
        fd = self._directory(number).fd
        there = os.fstat(fd)
        if not self.privileged:
            mode = self._usable(mode, 0o700)
        self._own(fd, uid, gid, there.st_uid, there.st_gid)
        if stat.S_IMODE(there.st_mode) != mode or (there.st_uid, there.st_gid) != (uid, gid):
            os.fchmod(fd, mode)
        if number in self._attributed:
            kept = {name for name, _ in xattrs}
            for name, _ in attributes.extended(fd):
                if name not in kept:
                    attributes.remove(fd, name)
        if xattrs:
            self._attributed.add(number)
            self._attributes(fd, xattrs)
        if mtime is not None:
            set_time(fd, mtime)
        if flags:
            self._flags(fd, flags)
        # It may give its group to what is made in it from now on.
        self._open[number].gid = gid if _passes_group_on(mode) else self._gid

    # --- files -----------------------------------------------------------------------------------

    def _begin(self, parent: int, name: bytes, meta: Meta, size: int) -> None:
        if self._missing:
            raise wire.Broken("a file began before another had ended")
        into = self._directory(parent)
        mode = meta[0]
        if not self.privileged:
            mode = self._usable(mode, 0o600)
            meta = (mode, *meta[1:])
        self._file = os.open(name, _NEW, mode & 0o777, dir_fd=into.fd)
        self._meta, self._missing, self._size, self._gid_of_file = meta, size, size, into.gid
        if not size:
            self._finish()

    def _data(self, contents: memoryview) -> None:
        count = len(contents)
        if not count:
            return
        if count > self._missing:
            raise wire.Broken("a file has more contents than its size")
        done = os.write(self._file, contents)
        while done < count:
            done += os.write(self._file, contents[done:])
        self._missing -= count
        self.written += count
        if not self._missing:
            self._finish()

    def _finish(self) -> None:
        fd, (mode, uid, gid, mtime, xattrs, flags) = self._file, self._meta
        self._own(fd, uid, gid, self._uid, self._gid_of_file)
        if mode & _SET_ID:
            os.fchmod(fd, mode)
        if xattrs:
            self._attributes(fd, xattrs)
        if mtime is not None:
            set_time(fd, mtime)
        if flags:
            self._flags(fd, flags)
        if self._size >= _EARLY:
            write_soon(fd)
        os.close(fd)
        self._file = -1

    def _own(self, fd: int, uid: int, gid: int, uid_now: int, gid_now: int) -> None:
        if uid == uid_now and gid == gid_now:
            return
        if self.privileged:
            try:
                os.fchown(fd, uid, gid)
            except OSError as error:
                raise failures.of_owner(error, uid, gid) from error
        else:
            self.skipped.owners += 1

    def _usable(self, mode: int, least: int) -> int:
        """Without root, permission bits hold for us too: what is made stays readable, removable."""
        if mode & least != least:
            self.skipped.modes += 1
        return mode | least

    def _attributes(self, fd: int, xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
        put = {}
        for name, value in xattrs:
            if name == attributes.CAPABILITY and not self.privileged:
                self.skipped.attributes += 1
                continue
            try:
                attributes.put(fd, name, value)
            except OSError as error:
                if error.errno in _TOO_LARGE and has_room(fd):
                    raise failures.attribute_too_large(name, len(value)) from error
                if error.errno not in _NO_ATTRIBUTES:
                    raise
                self.skipped.unsupported += 1
            else:
                put[name] = value
        # Of a value of a thousand bytes zfs-fuse keeps eight others, and says nothing.
        kept = dict(attributes.extended(fd)) if put else {}
        for name, value in put.items():
            if kept.get(name) != value and name != attributes.CAPABILITY:
                raise failures.attribute_too_large(name, len(value))

    def _flags(self, fd: int, words: tuple[bytes, ...]) -> None:
        if not attributes.put_flags(fd, words):
            self.skipped.flags += 1

    # --- links and special files -----------------------------------------------------------------

    def _symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int, mtime: int | None
    ) -> None:
        into = self._directory(parent)
        os.symlink(target, name, dir_fd=into.fd)
        self._own_name(into, name, uid, gid)
        if mtime is not None:
            set_time(name, mtime, dir_fd=into.fd, follow_symlinks=False)

    def _link(self, parent: int, name: bytes, source_parent: int, source: bytes) -> None:
        if (source_parent, source) in self._unmade:
            self._unmade.add((parent, name))
            return
        # One may close the other's descriptor to make room, so the older is looked up first.
        self._directory(source_parent)
        into = self._directory(parent)
        of = self._directory(source_parent)
        os.link(source, name, src_dir_fd=of.fd, dst_dir_fd=into.fd, follow_symlinks=False)

    def _special(
        self, parent: int, name: bytes, kind: int, meta: Meta, major: int, minor: int
    ) -> None:
        mode, uid, gid, mtime, xattrs, _ = meta
        into = self._directory(parent)
        if kind == Kind.FIFO:
            os.mkfifo(name, mode, dir_fd=into.fd)
        elif not self.privileged:
            self.skipped.devices += 1
            self._unmade.add((parent, name))
            return
        else:
            node = _DEVICES[Kind(kind)] | mode
            os.mknod(name, node, os.makedev(major, minor), dir_fd=into.fd)
        self._own_name(into, name, uid, gid)
        if mode & _SET_ID:
            os.chmod(name, mode, dir_fd=into.fd)  # noqa: PTH101 - made above, and no link
        self.skipped.unsupported += bool(xattrs)  # user.* is for files and directories alone
        if mtime is not None:
            set_time(name, mtime, dir_fd=into.fd, follow_symlinks=False)

    def _own_name(self, into: _Open, name: bytes, uid: int, gid: int) -> None:
        if (uid, gid) == (self._uid, into.gid):
            return
        if self.privileged:
            try:
                os.chown(name, uid, gid, dir_fd=into.fd, follow_symlinks=False)
            except OSError as error:
                raise failures.of_owner(error, uid, gid) from error
        else:
            self.skipped.owners += 1

    # --- removing --------------------------------------------------------------------------------

    def _remove(self, parent: int, name: bytes, number: int) -> None:
        into = self._directory(parent).fd
        if not number:
            if (parent, name) in self._unmade:
                self._unmade.discard((parent, name))
            else:
                unlink(into, name)
            return
        # Numbers are not used twice, so no descriptor below is asked for again; none stays open.
        self._close_all(but=parent)
        remove_below(into, name)

    def _close_all(self, *, but: int = -1) -> None:
        for number in [number for number in self._open if number != but]:
            os.close(self._open.pop(number).fd)

    def close(self) -> None:
        self._close_all()
        if self._file >= 0:
            os.close(self._file)


def _passes_group_on(mode: int) -> bool:
    """BSD gives what is made in a directory the directory's group, Linux where it is set-gid."""
    return sys.platform.startswith("freebsd") or bool(mode & stat.S_ISGID)
