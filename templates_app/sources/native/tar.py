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
from collections.abc import Iterator, Sequence
from typing import Protocol

from isal.isal_zlib import adler32

from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.grammar import (
    MAX_ID,
    MAX_SECONDS,
    Extended,
    broken,
    extend,
    number,
    refuse_global,
)
from templates_app.sources.native.limits import MAX_PAX, Limits

SMALL = 64 * 1024  # bytes; contents up to here come in one piece

_BLOCK = 512
#: name mode uid gid size mtime checksum type target magic major minor prefix
_unpack = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x").unpack_from
_ZEROS = bytes(_BLOCK)
_USTAR, _GNU, _V7 = b"ustar\0", b"ustar  \0", bytes(8)
_NO_PREFIX = bytes(155)
_FILE, _DIRECTORY = Kind.FILE, Kind.DIRECTORY  # a member of an enum takes as long as a checksum
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
_EXTENSIONS = b"xgLK"  # pax: of the next entry, of all; GNU: a long name, a long target
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # Linux's dev_t
_CACHED = 8192  # numbers of header fields that are kept


class Stream(Protocol):
    def chunk(self) -> bytes: ...


class Reader:
    """The entries of one layer, once."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.findings: list[str] = []
        self.name = b""  # of the current entry, for messages
        self._stream = stream
        self._limits = limits
        self._data = b""
        self._view = memoryview(b"")
        self._at = 0  # in _data
        self._left = 0  # bytes of the current entry's contents that were not given yet
        self._padding = 0  # bytes after them

    def __iter__(self) -> Iterator[Entry]:
        """Raises TreeRefused, and what the stream raises.

        All in one place: it runs for each entry of an image, and a call costs as much as a check.
        """
        numbers, sums, most = _Numbers(self), _Sums(self), self._limits.file_bytes
        extended: Extended | None = None
        while True:
            data, at = self._data, self._at + self._left + self._padding
            if at + _BLOCK > len(data):
                if not self._next_block():
                    break
                data, at = self._data, self._at
            header = _unpack(data, at)
            name, mode, uid, gid, size, mtime, checksum, type_, target, magic, _, _, prefix = header
            if not name[0] and data.startswith(_ZEROS, at):
                self._end(at + _BLOCK)
                break
            self._at, self._left, self._padding = at + _BLOCK, 0, 0
            self.name = name = name.partition(b"\0")[0]
            # The lower half of adler32 is the sum of the bytes modulo 65521, and 256 bytes are
            # 65280 at the most: exact, and ten times as fast as sum().
            middle = at + 256
            low, high = adler32(data[at:middle], 0), adler32(data[middle : middle + 256], 0)
            if (low & 0xFFFF) + (high & 0xFFFF) != sums[checksum]:
                raise broken("checksum", name)
            if prefix[0] or magic[:6] != _USTAR:
                self.name = name = self._whole_name(name, magic, prefix)
            mode, uid, gid = numbers[mode], numbers[uid], numbers[gid]
            size, mtime = numbers[size], numbers[mtime]
            if not (
                0 <= uid <= MAX_ID
                and 0 <= gid <= MAX_ID
                and -MAX_SECONDS <= mtime <= MAX_SECONDS
                and mode >= 0
                and size >= 0
            ):
                raise broken("number", name)
            kind = _KINDS.get(type_)
            if kind is None:
                extended = self._extension(type_, size, extended)
                continue

            entry = Entry(kind, name, b"", mode & 0o7777, uid, gid, mtime * 10**9)
            if extended is not None:
                size = extended.applied_to(entry, size)
                self.name = name = entry.name
            if not name:
                raise broken("name-empty", name)
            if kind is _FILE:
                if size > most:
                    raise broken("file-bytes", name)
                entry.size = self._left = size
                self._padding = -size % _BLOCK
            elif kind is _DIRECTORY:
                if extended is not None and extended.size:
                    raise broken("size", name)
            elif size:
                # No contents follow, but libarchive skips as many bytes after a hard link, and at
                # directories those of an extended header; GNU tar does where it only lists.
                raise broken("size", name)
            else:
                if extended is not None and extended.target is not None:
                    target = extended.target
                self._special(entry, target, header[10:12], numbers)
            if name[-1] == 0x2F and kind is not _DIRECTORY:
                raise broken("trailing-slash", name)
            extended = None
            yield entry
        if extended is not None:
            raise broken("extension-orphan", self.name)

    def small(self) -> memoryview | None:
        """All contents of the entry that came last, where they are 64 KiB at the most."""
        size = self._left
        if size > SMALL:
            return None
        if not self._fill(size):
            raise broken("truncated", self.name)
        at = self._at
        self._at = at + size
        self._left = 0
        return self._view[at : at + size]

    def parts(self) -> Iterator[memoryview]:
        """The contents of the entry that came last, piece by piece."""
        while self._left:
            if self._at == len(self._data) and not self._fill(1):
                raise broken("truncated", self.name)
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

    def _next_block(self) -> bool:
        """Go to the next header, over what is left of contents; False at the end of the stream."""
        left = self._left + self._padding
        self._left = self._padding = 0
        while left > len(self._data) - self._at:
            left -= len(self._data) - self._at
            self._at = len(self._data)
            if not self._fill(1):
                raise broken("truncated", self.name)
        self._at += left
        if self._fill(_BLOCK):
            return True
        if self._at < len(self._data):
            raise broken("truncated", self.name)
        return False

    def _end(self, at: int) -> None:
        """After the first block of zeros: a second one and the rest, which means nothing."""
        self._at, self._left, self._padding = at, 0, 0
        self._fill(_BLOCK)
        rest = self._data[self._at :]
        if any(rest[:_BLOCK]):
            raise broken("zero-block", self.name)
        odd = rest.count(0) != len(rest)
        while data := self._stream.chunk():
            odd = odd or data.count(0) != len(data)
        self._data, self._at = b"", 0
        if odd:
            self.findings.append("A layer has other bytes after the end of its archive.")

    # --- what is not a plain file ----------------------------------------------------------------

    def _whole_name(self, name: bytes, magic: bytes, prefix: bytes) -> bytes:
        """The name with its prefix; headers of other formats than ustar have none."""
        if magic[:6] == _USTAR:
            return prefix.partition(b"\0")[0] + b"/" + name if name else b""
        if magic not in (_V7, _GNU):
            raise broken("magic", name)
        if prefix != _NO_PREFIX:
            # GNU's own header has times here, Go before 1.8 put a name, Python reads one.
            raise broken("prefix", name)
        return name

    def _special(
        self, entry: Entry, target: bytes, device: Sequence[bytes], numbers: dict[bytes, int]
    ) -> None:
        """What links and devices have beside what all have."""
        if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
            entry.target = target.partition(b"\0")[0]
            if not entry.target:
                raise broken("target-empty", entry.name)
        elif entry.kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major, entry.minor = numbers[device[0]], numbers[device[1]]
            if not (0 <= entry.major <= _MAX_MAJOR and 0 <= entry.minor <= _MAX_MINOR):
                raise broken("number", entry.name)

    def _extension(self, type_: bytes, size: int, extended: Extended | None) -> Extended | None:
        """What is known of the next entry, after one more extended header."""
        name = self.name
        if type_ not in _EXTENSIONS:
            raise broken("sparse" if type_ == b"S" else "type", name)
        if size > MAX_PAX:
            raise broken("extension-size", name)
        if not self._fill(size):
            raise broken("truncated", name)
        body = self._data[self._at : self._at + size]
        self._at += size
        self._padding = -size % _BLOCK
        if type_ == b"g":
            if extended is not None:  # some readers drop what came before, others do not
                raise broken("extension-orphan", name)
            refuse_global(body, name)
            return None
        extended = extended or Extended()
        if type_ == b"x":
            if extended.pax:
                raise broken("extension-twice", name)
            extended.pax = True
            extend(extended, body, name)
        else:
            if body[-1:] != b"\0":  # GNU tar reads on, to the next one
                raise broken("extension-record", name)
            take = extended.set_path if type_ == b"L" else extended.set_target
            take(body.rstrip(b"\0"), name)
        return extended


class _Numbers(dict[bytes, int]):
    """The numbers in fields of headers, which repeat."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __missing__(self, field: bytes) -> int:
        return self._keep(field, number(field, self._reader.name))

    def _keep(self, field: bytes, found: int) -> int:
        if len(self) >= _CACHED:
            self.clear()
        self[field] = found
        return found


class _Sums(_Numbers):
    """What a checksum field says of the sum of all bytes: it counts as eight blanks itself."""

    def __missing__(self, field: bytes) -> int:
        said = number(field, self._reader.name, "checksum")
        return self._keep(field, said + sum(field) - 8 * 0x20)
