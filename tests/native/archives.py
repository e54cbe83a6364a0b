"""Archives made byte by byte, so that they can be what no archiver would write."""

from __future__ import annotations

import io

from templates_app.sources.native.limits import Limits

END = bytes(1024)

LIMITS = Limits(
    entries=1_000_000,
    tree_bytes=1 << 40,
    file_bytes=1 << 33,
    ratio=200,
    seconds=600,
    memory_bytes=1 << 30,
)


def header(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: bytes | int = 0,
    *,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: bytes = b"0000000\0",
    minor: bytes = b"0000000\0",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One block of 512 bytes. Numbers are fields as they stand there."""
    data = bytearray(512)
    if isinstance(size, int):
        size = b"%011o\0" % size
    for at, value in (
        (0, name),
        (100, mode),
        (108, uid),
        (116, gid),
        (124, size),
        (136, mtime),
        (148, b" " * 8),
        (156, kind),
        (157, link),
        (257, magic),
        (329, major),
        (337, minor),
        (345, prefix),
    ):
        data[at : at + len(value)] = value
    data[148:156] = b"%06o\0 " % sum(data) if checksum is None else checksum
    return bytes(data)


def padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % 512)


def file(name: bytes = b"f", body: bytes = b"", **fields: bytes) -> bytes:
    return header(name, b"0", len(body), **fields) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header (``g``: a global one) with these records."""
    return raw_pax(b"".join(record(key, value) for key, value in records), kind)


def raw_pax(body: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeaders/f", kind, len(body)) + padded(body)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name (``K``: a long link target); its NUL is the caller's."""
    return header(b"././@LongLink", kind, len(name), magic=b"ustar  \0") + padded(name)


class Plain:
    """What a reader reads from, in chunks of any size, without a codec."""

    def __init__(self, data: bytes, size: int = 256 * 1024) -> None:
        self._source = io.BytesIO(data)
        self._size = size

    def chunk(self) -> bytes:
        return self._source.read(self._size)
