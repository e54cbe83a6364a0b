"""The uncompressed bytes of a layer: plain tar, gzip or zstd, read to their true end.

A layer may be several gzip members (eStargz, pigz) or zstd frames, some of them skippable
(zstd:chunked); a reader that stops after the first has another file tree than the one that the
diffID was made of (L20). The media type says which codec, and the first bytes must agree (L22).

Nothing here grows with what the bytes claim: a step gives 256 KiB at the most, gzip's header fields
are skipped while they come, a zstd frame that asks for a window over 128 MiB is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard
from isal import igzip_lib

from templates_app.errors import PullFailed, TreeRefused
from templates_app.sources.native.limits import Limits

#: Why a layer is refused before its archive is looked at; docs/reference/layers.md says more.
RULES = ("compression", "window", "ratio", "layer-bytes")

CHUNK = 256 * 1024  # bytes of one chunk, at the most
MAX_WINDOW = 128 * 1024 * 1024  # bytes; what `zstd --long=27` asks for
_INPUT = 64 * 1024  # bytes that are read at a time: isal copies what it did not use yet
#: Below this many bytes a layer is no bomb, whatever it was packed into: the ratio counts above.
_RATIO_FROM = 64 * 1024 * 1024
_PER_ENTRY = 4096  # bytes of header, extended header and padding that an entry may take on average

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f (RFC 8878 section 3.1.2)
_MAX_BLOCK = 128 * 1024  # bytes of a zstd block, packed or not (RFC 8878 section 3.1.1.2.4)


class Source(Protocol):
    """Where the blob comes from: a file, or one that is still being written and blocks."""

    def read(self, size: int, /) -> bytes: ...


class Layer:
    """One layer, uncompressed: :meth:`chunk` until it gives nothing, then :attr:`diff_id`.

    ``source`` is the blob as it is in the registry. Raises TreeRefused with the rules
    ``compression`` (not what the media type says, or bytes after the end), ``window``, ``ratio``
    and ``layer-bytes``; PullFailed with the reason ``corrupt`` for data that is damaged or ends
    early. What ``source`` raises comes through.
    """

    def __init__(self, source: Source, media_type: str, limits: Limits) -> None:
        self.compressed = 0  # bytes of the blob that were read so far
        self.uncompressed = 0  # bytes that were given so far
        self._source = source
        self._limits = limits
        self._most = limits.tree_bytes + limits.entries * _PER_ENTRY
        self._sha256 = hashlib.sha256()
        self._chunks = self._decoded(media_type)
        self._ended = False

    def chunk(self) -> bytes:
        """The next bytes, 256 KiB at the most; empty at the end of the blob, and only there."""
        data = next(self._chunks, b"")
        self._ended = not data
        self._sha256.update(data)
        self.uncompressed += len(data)
        if self.uncompressed > self._most:
            raise _refused("layer-bytes", f"has more than {self._most} bytes of archive")
        if self.uncompressed > max(self.compressed * self._limits.ratio, _RATIO_FROM):
            raise _refused(
                "ratio",
                f"unpacks to more than {self._limits.ratio} times the bytes that were sent",
            )
        return data

    @property
    def diff_id(self) -> str:
        """``sha256:<hex>`` of all that was given, once everything was."""
        if not self._ended:
            raise ValueError("the layer was not read to its end")
        return f"sha256:{self._sha256.hexdigest()}"

    def _read(self, size: int = _INPUT) -> bytes:
        data = self._source.read(size)
        self.compressed += len(data)
        return data

    def _decoded(self, media_type: str) -> Iterator[bytes]:
        first = self._read()
        while 0 < len(first) < len(_ZSTD) and (more := self._read()):
            first += more
        wanted = _codec(media_type)
        if (found := _sniffed(first)) != wanted:
            raise _refused("compression", f"is {found} data, but is said to be {wanted}")
        if wanted == "gzip":
            yield from self._gzip(first)
        elif wanted == "zstd":
            yield from self._zstd(_Input(self._read, first))
        else:
            yield from self._plain(first)

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._read(CHUNK)

    # --- gzip (RFC 1952) -----------------------------------------------------------------------

    def _gzip(self, data: bytes) -> Iterator[bytes]:
        while data:
            member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
            while True:
                try:
                    out = member.decompress(data, CHUNK)
                except igzip_lib.IsalError as error:  # type: ignore[misc]  # the stub has an instance
                    raise _damaged("gzip", str(error)) from error
                if out:
                    yield out
                if member.eof:
                    break
                data = self._read() if member.needs_input else b""
                if not data and member.needs_input:
                    raise _damaged("gzip", "it ends early")
            data = member.unused_data or self._read()
            if len(data) == 1:  # a magic number may lie across two reads
                data += self._read()
            if data[:1] == b"\0":  # padding of a tape's block, or of who made room for a file
                self._only_zeros(data)
                return
            if data and not data.startswith(_GZIP):
                raise _refused("compression", "has other bytes after its gzip data")

    def _only_zeros(self, data: bytes) -> None:
        while data:
            if data.count(0) != len(data):
                raise _refused("compression", "has other bytes after its gzip data")
            data = self._read()

    # --- zstd (RFC 8878) -----------------------------------------------------------------------

    def _zstd(self, source: _Input) -> Iterator[bytes]:
        """Block by block: so the end of each frame is known, and a call's output is bounded.

        The library's own readers end without a word in the middle of a frame, and its objects give
        all that an input makes at once, which may be 30,000 times as much.
        """
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        while magic := source.upto(4):
            if magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50:
                source.skip(int.from_bytes(source.take(4), "little"))
            elif magic == _ZSTD:
                yield from self._frame(decompressor.decompressobj(write_size=_MAX_BLOCK), source)
            else:
                raise _refused("compression", "has other bytes after its zstd data")

    def _frame(self, frame: zstandard.ZstdDecompressionObj, source: _Input) -> Iterator[bytes]:
        flags = source.take(1)
        single = flags[0] >> 5 & 1
        dictionary = (0, 1, 2, 4)[flags[0] & 3]
        size = (single, 2, 4, 8)[flags[0] >> 6]
        checksum = 4 if flags[0] & 4 else 0
        header = _ZSTD + flags + source.take(1 - single + dictionary + size)
        try:
            frame.decompress(header)
            while not frame.eof:
                head = source.take(3)
                number = int.from_bytes(head, "little")
                last, kind, length = number & 1, number >> 1 & 3, number >> 3
                # Kind 1 is one byte, repeated. The library refuses blocks over 128 KiB.
                block = source.take(1 if kind == 1 else length)
                if out := frame.decompress(head + block + source.take(checksum if last else 0)):
                    yield out
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):  # ZSTD_error_frameParameter_windowTooLarge
                raise _refused(
                    "window", f"needs a zstd window of more than {MAX_WINDOW} bytes"
                ) from error
            raise _damaged("zstd", str(error)) from error


class _Input:
    """Exact numbers of bytes from what ``read`` gives in pieces of any size."""

    def __init__(self, read: Callable[[], bytes], first: bytes) -> None:
        self._read = read
        self._data = first
        self._at = 0

    def upto(self, size: int) -> bytes:
        """``size`` bytes, or nothing where nothing is left."""
        while len(self._data) - self._at < size:
            more = self._read()
            if not more:
                if self._at == len(self._data):
                    return b""
                raise _damaged("zstd", "it ends early")
            self._data = self._data[self._at :] + more
            self._at = 0
        self._at += size
        return self._data[self._at - size : self._at]

    def take(self, size: int) -> bytes:
        data = self.upto(size) if size else b""
        if len(data) != size:
            raise _damaged("zstd", "it ends early")
        return data

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.take(min(size, _INPUT)))


def _codec(media_type: str) -> str:
    """The codec of a layer's media type, one of those that :mod:`documents` lets through (L19)."""
    for codec in ("gzip", "zstd"):
        if media_type.endswith(("+" + codec, "." + codec)):
            return codec
    return "plain"


def _sniffed(first: bytes) -> str:
    if first.startswith(_GZIP):
        return "gzip"
    skippable = first[1:4] == _SKIPPABLE and first[0] & 0xF0 == 0x50
    return "zstd" if skippable or first.startswith(_ZSTD) else "plain"


def _refused(rule: str, what: str) -> TreeRefused:
    return TreeRefused(f"A layer {what}.", extra={"rule": rule})


def _damaged(codec: str, why: str) -> PullFailed:
    return PullFailed(
        f"A layer's {codec} data is damaged or ends early.", reason="corrupt", private=why
    )
