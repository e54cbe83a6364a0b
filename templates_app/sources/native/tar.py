"""The archive of a layer, read strictly: entry by entry, and the contents of each regular file.

    layer = codecs.Layer(blob, media_type, limits)
    reader = tar.Reader(layer, limits)
    for entry in reader:
        if entry.size:
            whole = reader.small()
            for part in reader.parts() if whole is None else (whole,):
                ...
    layer.diff_id

What its users may rely on:

* Entries come as they stand in the archive, extended headers applied; the grammar of
  :mod:`grammar` holds, and nothing is said of names: ``..``, ``/`` and whiteouts are the model's.
* Contents are read between their entry and the next one; what is not read is skipped.
* What :meth:`Reader.small` and :meth:`Reader.parts` give are views of bytes that do not change.
  Who keeps one keeps the 256 KiB or so around it.
* When the loop ends, the layer was read to the true end of its blob, so it has a diffID.
* Memory does not grow with the archive: a chunk of the layer, an extended header of 1 MiB.
* Raised are TreeRefused, with a rule of ``grammar.RULES`` and the entry's name, and what the layer
  raises. After that the reader is of no use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol
from zlib import adler32

from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.grammar import (
    MAX_ID,
    MAX_SECONDS,
    Extended,
    broken,
    checked_name,
    extend,
    number,
    refuse_global,
)
from templates_app.sources.native.limits import MAX_PAX, Limits

SMALL = 64 * 1024  # bytes; contents up to here come in one piece

_BLOCK = 512
#: name mode uid gid size mtime checksum type target magic major minor prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_ZEROS = bytes(_BLOCK)
_NO_PREFIX = bytes(155)
_V7, _GNU = bytes(8), b"ustar  \0"
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # "contiguous", which no file system is told any more
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_CACHED = 4096  # numbers that are kept: an archive's fields repeat
_NOTHING = Extended()
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # Linux's dev_t


class Stream(Protocol):
    def chunk(self) -> bytes: ...


class Reader:
    """The entries of one layer, once."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.findings: list[str] = []
        self._stream = stream
        self._limits = limits
        self._data = b""
        self._view = memoryview(b"")
        self._at = 0  # in _data
        self._left = 0  # bytes of the current entry's contents that were not given yet
        self._padding = 0  # bytes after them
        self._name = b""  # of the current entry, for messages
        self._numbers: dict[bytes, int] = {}
        self._checksums: dict[bytes, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Raises TreeRefused, and what the stream raises."""
        extended: Extended | None = None
        while True:
            self._skip()
            if not self._fill(_BLOCK):
                if self._at < len(self._data):
                    raise broken("truncated", self._name)
                break
            data, at = self._data, self._at
            if not data[at] and data.startswith(_ZEROS, at):
                self._end()
                break
            fields = _HEADER.unpack_from(data, at)
            self._check(data, at, fields)
            self._at = at + _BLOCK
            kind = _KINDS.get(fields[7])
            if kind is None:
                extended = self._extension(fields, extended)
                continue
            yield self._entry(kind, fields, extended)
            extended = None
        if extended is not None:
            raise broken("extension-orphan", self._name)

    def small(self) -> memoryview | None:
        """All contents of the entry that came last, where they are 64 KiB at the most."""
        size = self._left
        if size > SMALL:
            return None
        if not self._fill(size):
            raise broken("truncated", self._name)
        at = self._at
        self._at = at + size
        self._left = 0
        return self._view[at : at + size]

    def parts(self) -> Iterator[memoryview]:
        """The contents of the entry that came last, piece by piece."""
        while self._left:
            if self._at == len(self._data) and not self._fill(1):
                raise broken("truncated", self._name)
            part = self._view[self._at : self._at + self._left]
            self._at += len(part)
            self._left -= len(part)
            yield part

    # --- the stream ----------------------------------------------------------------------------

    def _fill(self, size: int) -> bool:
        """The buffer has ``size`` bytes to give; False where the stream ends before."""
        missing = size - (len(self._data) - self._at)
        if missing <= 0:
            return True
        found = [self._data[self._at :]]
        while missing > 0:
            data = self._stream.chunk()
            if not data:
                break
            found.append(data)
            missing -= len(data)
        self._data = b"".join(found)
        self._view = memoryview(self._data)
        self._at = 0
        return missing <= 0

    def _skip(self) -> None:
        """Behind the current entry's contents and their padding."""
        left = self._left + self._padding
        self._left = self._padding = 0
        while left > len(self._data) - self._at:
            left -= len(self._data) - self._at
            self._at = len(self._data)
            if not self._fill(1):
                raise broken("truncated", self._name)
        self._at += left

    def _body(self, size: int) -> bytes:
        """The contents of an extended header."""
        if size > MAX_PAX:
            raise broken("extension-size", self._name)
        if not self._fill(size):
            raise broken("truncated", self._name)
        self._padding = -size % _BLOCK
        self._at += size
        return self._data[self._at - size : self._at]

    def _end(self) -> None:
        """After the first block of zeros: a second one and the rest, which means nothing."""
        self._at += _BLOCK
        self._fill(_BLOCK)
        rest = self._data[self._at :]
        if any(rest[:_BLOCK]):
            raise broken("zero-block", self._name)
        odd = any(rest)
        while data := self._stream.chunk():
            odd = odd or data.count(0) != len(data)
        self._data, self._at = b"", 0
        if odd:
            self.findings.append("A layer has other bytes after the end of its archive.")

    # --- headers -------------------------------------------------------------------------------

    def _check(self, data: bytes, at: int, fields: tuple[bytes, ...]) -> None:
        """The checksum, and that the header is of a format that we know."""
        checksum = fields[6]
        self._name = fields[0].partition(b"\0")[0]
        stored = self._checksums.get(checksum)
        if stored is None:
            # The field itself counts as eight blanks.
            stored = number(checksum, self._name) + sum(checksum) - 8 * 0x20
            if len(self._checksums) < _CACHED:
                self._checksums[checksum] = stored
        # The lower half of adler32 is the sum of the bytes modulo 65521, which 256 bytes (65280 at
        # the most) stay below: twenty times as fast as sum().
        half = at + 256
        total = (adler32(data[at:half], 0) & 0xFFFF) + (
            adler32(data[half : half + 256], 0) & 0xFFFF
        )
        if total != stored:
            raise broken("checksum", self._name)
        magic = fields[9]
        if magic[:6] != b"ustar\0":
            if magic not in (_V7, _GNU):
                raise broken("magic", self._name)
            if fields[12] != _NO_PREFIX:
                # Here GNU's own header has times, old writers of Go put a name, Python reads one.
                raise broken("prefix", self._name)
        elif fields[12][0]:
            self._name = fields[12].partition(b"\0")[0] + b"/" + self._name

    def _number(self, field: bytes) -> int:
        found = self._numbers.get(field)
        if found is None:
            found = number(field, self._name)
            if len(self._numbers) < _CACHED:
                self._numbers[field] = found
        return found

    def _entry(self, kind: Kind, fields: tuple[bytes, ...], extended: Extended | None) -> Entry:
        mode, uid, gid, size, mtime = map(self._number, fields[1:6])
        mtime_ns = mtime * 10**9
        target = fields[8].partition(b"\0")[0]
        if extended is None:
            extended = _NOTHING
        else:
            uid = uid if extended.uid is None else extended.uid
            gid = gid if extended.gid is None else extended.gid
            size = size if extended.size is None else extended.size
            mtime_ns = mtime_ns if extended.mtime_ns is None else extended.mtime_ns
            target = target if extended.target is None else extended.target
        if extended.path is not None:
            self._name = extended.path
        elif not fields[0][0]:
            raise broken("name-empty", self._name)
        name = self._name
        small = uid <= MAX_ID and gid <= MAX_ID and abs(mtime) <= MAX_SECONDS
        if not small or mode < 0 or uid < 0 or gid < 0 or size < 0:
            raise broken("number", name)
        if name[-1] == 0x2F and kind is not Kind.DIRECTORY:
            raise broken("trailing-slash", name)
        entry = Entry(kind, name, b"", mode & 0o7777, uid, gid, mtime_ns)
        entry.xattrs, entry.flags = extended.xattrs, extended.flags
        if kind is Kind.FILE:
            if size > self._limits.file_bytes:
                raise broken("file-bytes", name)
            entry.size = self._left = size
            self._padding = -size % _BLOCK
        # Whatever size others have, no contents follow: all readers agree, so the next header must
        # be there.
        elif kind in (Kind.SYMLINK, Kind.HARDLINK):
            if not target:
                raise broken("target-empty", name)
            entry.target = target
        elif kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major, entry.minor = map(self._number, fields[10:12])
            if not (0 <= entry.major <= _MAX_MAJOR and 0 <= entry.minor <= _MAX_MINOR):
                raise broken("number", name)
        return entry

    def _extension(self, fields: tuple[bytes, ...], extended: Extended | None) -> Extended | None:
        """What an extended header adds to what is known of the next entry."""
        kind, name = fields[7], self._name
        size = self._number(fields[4])
        if kind == b"S":
            raise broken("sparse", name)
        if kind not in (b"x", b"g", b"L", b"K"):
            raise broken("type", name)
        if size < 0:
            raise broken("number", name)
        body = self._body(size)
        if kind == b"g":
            if extended is not None:  # some readers drop what came before, others do not
                raise broken("extension-orphan", name)
            refuse_global(body, name)
            return None
        extended = extended or Extended()
        if kind == b"x":
            if extended.pax:
                raise broken("extension-twice", name)
            extended.pax = True
            extend(extended, body, name)
            return extended
        text = checked_name(body.rstrip(b"\0"), name)
        if (extended.path if kind == b"L" else extended.target) is not None:
            raise broken("extension-twice", name)
        if not text:
            raise broken("name-empty" if kind == b"L" else "target-empty", name)
        if kind == b"L":
            extended.path = text
        else:
            extended.target = text
        return extended
