"""Image archives: tar files with an OCI layout in them, or with what ``docker save`` writes.

An archive is read once, from front to end, for it may be compressed and its list stands anywhere in
it. Its blobs go into the blob cache on the way, each under its digest and checked as one from a
registry is; the lists are kept in memory. What else is in it is passed over.
"""

from __future__ import annotations

import lzma
import os
import posixpath
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from templates_app.errors import CoppiceError, ImportTimeout, NotAnImage, PullFailed, TreeRefused
from templates_app.names import Digest, human_size, quote
from templates_app.sources.base import SourceContext
from templates_app.sources.documents import MAX_DOCUMENT, Descriptor, Index
from templates_app.sources.native import codecs, tar
from templates_app.sources.native.beneath import open_beneath
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.incoming import fetch, take
from templates_app.sources.native.layout import check_version, not_a_file, read_index
from templates_app.sources.native.limits import Limits

_MAGIC = (
    (b"\xfd7zXZ\0", "xz"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
)
_XZ_MEMORY = 256 * 1024 * 1024  # bytes; `xz -9` needs 65 MB
_STEP = 256 * 1024
_MAX_ENTRIES = 10_000  # in the oldest form a layer is four of them
_MAX_RATIO = 1100  # gzip's largest is 1032: layers of a docker archive are plain, and may be zeros
_BLOB = re.compile(rb"blobs/(sha256)/([0-9a-f]{64})")
_LISTS = frozenset({b"oci-layout", b"index.json", b"manifest.json"})


@dataclass(slots=True)
class Found:
    """What a pass over an archive has seen."""

    lists: dict[bytes, bytes] = field(default_factory=dict)
    files: dict[bytes, tuple[Digest, int]] = field(default_factory=dict)  # by name
    links: dict[bytes, bytes] = field(default_factory=dict)  # symlinks within the archive

    def file(self, name: str) -> tuple[Digest, int]:
        """A file that a list names; old versions of Docker write a layer's second use as a link."""
        wanted = _plain_name(name.encode("utf-8", "surrogatepass"))
        if (target := self.links.get(wanted)) is not None:
            wanted = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), target))
        if wanted not in self.files:
            raise PullFailed(f"The archive does not have {quote(name)}.", reason="not_found")
        return self.files[wanted]


class Archive:
    """A tar file beneath an import root, maybe compressed (gzip, xz, zstd).

    ``by_digest``: only ``blobs/sha256/…`` are taken, by their names; else every regular file, under
    the digest that it turns out to have.
    """

    def __init__(self, path: PurePosixPath, context: SourceContext, *, by_digest: bool) -> None:
        self._path = path
        self._context = context
        self._cache = BlobCache.of(context)
        self._by_digest = by_digest
        self._names: dict[bytes, tuple[Digest, int]] = {}

    def read(self) -> Found:
        """One pass. TreeRefused, NotAnImage, PullFailed, SourceNotAllowed, OutOfSpace."""
        found = Found()
        self._names = found.files
        with self._file() as file:
            reader = self._reader(file)
            total = 0
            for number, entry in enumerate(reader):
                if number >= _MAX_ENTRIES:
                    raise TreeRefused(
                        f"The archive has more than {_MAX_ENTRIES} entries.",
                        extra={"rule": "archive-entries", "limit": _MAX_ENTRIES},
                    )
                name = _plain_name(entry.name)
                if entry.kind is Kind.FILE:
                    total += entry.size
                    self._check_total(total)
                    self._take(name, entry, reader, found)
                elif entry.kind is Kind.SYMLINK and not self._by_digest:
                    found.links[name] = entry.target
                elif entry.kind is not Kind.DIRECTORY and (name in _LISTS or _BLOB.match(name)):
                    raise not_a_file(quote(name.decode("utf-8", "replace")))
        return found

    def _take(self, name: bytes, entry: Entry, reader: tar.Reader, found: Found) -> None:
        if name in found.files or name in found.lists:
            raise TreeRefused(
                f"The archive has {quote(name.decode('utf-8', 'replace'))} twice.",
                extra={
                    "path": name.decode("ascii", "backslashreplace"),
                    "rule": "archive-duplicate",
                },
            )
        if name in _LISTS:
            if entry.size > MAX_DOCUMENT:
                raise NotAnImage(f"The archive's {name.decode()} has {human_size(entry.size)}.")
            found.lists[name] = b"".join(_parts(reader))
        elif not self._by_digest:
            found.files[name] = (take(self._cache, entry.size, _parts(reader)), entry.size)
        elif blob := _BLOB.fullmatch(name):
            digest = Digest(b":".join(blob.groups()).decode())
            fetch(self._cache, digest, entry.size, lambda at: _parts(reader, at)).close()
            found.files[name] = (digest, entry.size)

    # --- its documents and blobs, after a pass ---------------------------------------------------

    def manifest(self, entry: Descriptor) -> bytes:
        return self.document(entry.digest)

    def config(self, entry: Descriptor) -> bytes:
        return self.document(entry.digest)

    def document(self, digest: Digest) -> bytes:
        data = self._cache.document(digest)
        if data is None:
            raise PullFailed(f"The archive does not have {digest}.", reason="not_found")
        return data

    def corrupt(self, private: str) -> CoppiceError:
        return PullFailed(
            "A document of the archive is not what its digest says.",
            reason="corrupt",
            private=private,
        )

    def check(self, digest: Digest, size: int) -> None:
        """The blob was there, and of that size. PullFailed."""
        sizes = {there for one, there in self._names.values() if one == digest}
        if not sizes:
            raise PullFailed(f"The archive does not have {digest}.", reason="not_found")
        if sizes != {size}:
            raise PullFailed(f"{digest} is not of {size} bytes in the archive.", reason="corrupt")

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        """A blob once more, after a pass, where the cache does not have it any more."""
        with self._file() as file:
            reader = self._reader(file)
            for entry in reader:
                known = self._names.get(_plain_name(entry.name))
                if known == (digest, size) and entry.kind is Kind.FILE and entry.size == size:
                    yield from _parts(reader, offset)
                    return
        raise PullFailed(f"The archive does not have {digest}.", reason="not_found")

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def _file(self) -> BinaryIO:
        roots = self._context.import_roots
        return os.fdopen(open_beneath(self._path, roots, directory=False), "rb")

    def _reader(self, file: BinaryIO) -> tar.Reader:
        limits = self._limits()
        codec = _sniff(file)
        if codec == "bzip2":
            raise NotAnImage("The archive is compressed with bzip2, which is not read.")
        source: codecs.Source = _Xz(file) if codec == "xz" else file
        kind = codec if codec in ("gzip", "zstd") else "plain"
        until = time.monotonic() + self._context.step_seconds
        stream = _Timed(codecs.Layer(source, f"archive+{kind}", limits), until)
        return tar.Reader(stream, limits)

    def _limits(self) -> Limits:
        """Of the archive itself. What is in its layers is the engine's to judge."""
        most = self._context.limit_image_bytes
        return Limits(
            entries=_MAX_ENTRIES,
            tree_bytes=most,
            file_bytes=2**62,  # one file is judged with all others, by _check_total
            ratio=_MAX_RATIO,
            seconds=self._context.step_seconds,
            memory_bytes=_XZ_MEMORY,
        )

    def _check_total(self, total: int) -> None:
        if total > (limit := self._context.limit_image_bytes):
            raise TreeRefused(
                f"The archive has more than {human_size(limit)}.",
                hint="Raise COPPICE_LIMIT_IMAGE_BYTES if this archive is meant to be imported.",
                extra={"rule": "image-size", "limit": limit},
            )


@dataclass(frozen=True, slots=True)
class _Timed:
    """The archive, for as long as a step may take."""

    layer: codecs.Layer
    until: float

    def chunk(self) -> bytes:
        if time.monotonic() > self.until:
            raise ImportTimeout("Reading the archive took too long.")
        return self.layer.chunk()


class _Xz:
    """A file behind xz (streams one after the other, padding between them), as a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = _xz_stream()
        self._data = b""

    def read(self, size: int, /) -> bytes:
        try:
            while True:
                if not self._data and (self._stream.needs_input or self._stream.eof):
                    self._data = self._file.read(_STEP)
                if self._stream.eof:
                    self._data = self._data.lstrip(b"\0")  # stream padding, xz's 2.2
                    if not self._data:
                        if not (more := self._file.read(_STEP)):
                            return b""
                        self._data = more
                        continue
                    self._stream = _xz_stream()
                elif not self._data and self._stream.needs_input:
                    raise _damaged("it ends early")
                out = self._stream.decompress(self._data, size)
                self._data = self._stream.unused_data if self._stream.eof else b""
                if out:
                    return out
        except lzma.LZMAError as error:
            raise _damaged(str(error)) from error


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _damaged(why: str) -> PullFailed:
    return PullFailed(
        "The archive's xz data is damaged, ends early or needs too much memory.",
        reason="corrupt",
        private=why,
    )


def _sniff(file: BinaryIO) -> str:
    first = file.read(8)
    file.seek(0)
    return next((codec for magic, codec in _MAGIC if first.startswith(magic)), "plain")


def _plain_name(name: bytes) -> bytes:
    return posixpath.normpath(name).lstrip(b"/")


def _parts(reader: tar.Reader, offset: int = 0) -> Iterator[bytes]:
    whole = reader.small()
    for part in reader.parts() if whole is None else (whole,):
        if offset < len(part):
            yield bytes(part[offset:])
        offset = max(0, offset - len(part))


# --- what an archive offers ----------------------------------------------------------------------


def layout_index(found: Found) -> Index:
    """The list of an ``oci-archive``. NotAnImage."""
    for name in (b"oci-layout", b"index.json"):
        if name not in found.lists:
            raise NotAnImage(f"The archive has no {name.decode()}: it is not an OCI layout.")
    check_version(found.lists[b"oci-layout"])
    return read_index(found.lists[b"index.json"])
