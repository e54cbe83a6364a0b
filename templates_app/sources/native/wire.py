"""How the engine's processes speak: operations from the reader to the writer, and messages.

**Operations** go through a pipe in frames: four bytes with the frame's length, then whole records.
A small file has its contents in its record; those of a ``LARGE`` one follow in ``DATA`` records.
``STOP`` ends a layer. A fixed form, not pickle or marshal: the reader has seen
hostile bytes, and nothing that it may have become can make the writer do more than an operation.

**Messages** go through a socket to and from the server: one byte that says which, four with the
length, then JSON or bytes. A descriptor may come with one.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from templates_app.sources.native.operations import Do, Meta, Operation

FULL = 128 * 1024  # bytes of records after which a frame is sent
MAX_FRAME = 4 * 1024 * 1024
MAX_MESSAGE = 2 * 1024 * 1024 * 1024

DATA = 100
STOP = 101
SAME_TIME = 102  # a SETTLE without attributes
LARGE = 103  # a FILE without its contents

NO_TIME = -(2**63)  # an mtime of None

LENGTH = struct.Struct("<I")
#: MKDIR, KNOWN, REMOVE, SAME_TIME: what, parent, number, length of the name.
PLACE = struct.Struct("<BIIH")
#: FILE, LARGE, SYMLINK, NODE, SETTLE: what, number of the directory, uid, gid, mode, mtime, size,
#: lengths of the name and of the rest. The rest is a target, a device, or attributes and flags.
NODE = struct.Struct("<BIIIHqQHI")
#: LINK: what, parent, source's parent, lengths of the name and of the source's.
LINK = struct.Struct("<BIIHH")
BULK = struct.Struct("<BI")
DEVICE = struct.Struct("<BII")
_ATTRIBUTE = struct.Struct("<HI")
_COUNTS = struct.Struct("<HH")


class Broken(Exception):
    """The other side is gone, or speaks another language."""


class Say(IntEnum):
    """What a message is."""

    # from the server to the reader
    KEPT = 1  # the manifest of the layers that are there already
    LAYER = 2  # the next layer; its bytes come from the descriptor
    LAST = 3  # there is no layer any more
    # from the reader
    PROGRESS = 4
    READ = 5  # a layer was read to its end, and is what the config says
    TREE = 6  # figures of the tree as it is now
    MANIFEST = 7  # the manifest of the same
    # from and to the writer
    SETTLED = 8  # all of a layer is written
    GO = 9  # the next layer may come
    # from both
    FAILED = 10


# --- operations ----------------------------------------------------------------------------------


class Encoder:
    """Operations as frames, each handed to ``send``."""

    def __init__(self, send: Callable[[bytes | bytearray], None]) -> None:
        self._send = send
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def add(self, operation: Operation) -> None:
        """Any operation but FILE."""
        do = operation[0]
        if do in (Do.MKDIR, Do.KNOWN, Do.REMOVE):
            _, parent, name, number = operation
            self._put(PLACE.pack(do, parent, number, len(name)) + name)
        elif do == Do.SYMLINK:
            _, parent, name, target, uid, gid, mtime = operation
            self._node(do, parent, name, (0, uid, gid, mtime, (), ()), target)
        elif do == Do.LINK:
            _, parent, name, source_parent, source = operation
            self._put(LINK.pack(do, parent, source_parent, len(name), len(source)) + name + source)
        elif do == Do.NODE:
            _, parent, name, kind, meta, major, minor = operation
            self._node(do, parent, name, meta, DEVICE.pack(kind, major, minor) + _extras(meta))
        elif do == Do.SETTLE:
            _, number, meta = operation
            if meta is None:
                self._put(PLACE.pack(SAME_TIME, 0, number, 0))
            else:
                self._node(do, number, b"", meta, _extras(meta))
        else:
            raise ValueError(f"{do!r} is not an operation of its own")

    def _node(self, do: int, number: int, name: bytes, meta: Meta, rest: bytes) -> None:
        mode, uid, gid, mtime, _, _ = meta
        when = NO_TIME if mtime is None else mtime
        self._put(
            NODE.pack(do, number, uid, gid, mode, when, 0, len(name), len(rest)) + name + rest
        )

    def file(self, operation: Operation, contents: bytes | memoryview | None) -> None:
        """A FILE with its contents, or with None where :meth:`data` brings them."""
        _, parent, name, meta, size = operation
        mode, uid, gid, mtime, xattrs, flags = meta
        rest = _extras(meta) if xattrs or flags else b""
        when = NO_TIME if mtime is None else mtime
        do = LARGE if contents is None else Do.FILE
        header = NODE.pack(do, parent, uid, gid, mode, when, size, len(name), len(rest))
        self._parts.append(header + name + rest)
        self._size += len(header) + len(name) + len(rest)
        if contents is not None:
            self._parts.append(contents)
            self._size += size
        if self._size >= FULL:
            self.flush()

    def data(self, chunk: bytes | memoryview) -> None:
        self._parts.append(BULK.pack(DATA, len(chunk)))
        self._parts.append(chunk)
        self._size += BULK.size + len(chunk)
        self.flush()

    def stop(self, layer: int) -> None:
        """The layer is whole: the writer acknowledges it when all of it is written."""
        self._put(BULK.pack(STOP, layer))
        self.flush()

    def _put(self, record: bytes) -> None:
        self._parts.append(record)
        self._size += len(record)
        if self._size >= FULL:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            self._send(b"".join((LENGTH.pack(self._size), *self._parts)))
            self._parts.clear()
            self._size = 0


def _extras(meta: Meta) -> bytes:
    xattrs, flags = meta[4], meta[5]
    if not xattrs and not flags:
        return b""
    parts = [_COUNTS.pack(len(xattrs), len(flags))]
    for name, value in xattrs:
        parts += [_ATTRIBUTE.pack(len(name), len(value)), name, value]
    for word in flags:
        parts += [_ATTRIBUTE.pack(len(word), 0), word]
    return b"".join(parts)


def extras(rest: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, ...]]:
    """Attributes and flags of a record."""
    if not rest:
        return (), ()
    attributes, words = _COUNTS.unpack_from(rest)
    at = _COUNTS.size
    found = []
    for _ in range(attributes + words):
        name, value = _ATTRIBUTE.unpack_from(rest, at)
        at += _ATTRIBUTE.size
        if at + name + value > len(rest):
            raise Broken("a record is cut off")
        found.append((rest[at : at + name], rest[at + name : at + name + value]))
        at += name + value
    return tuple(found[:attributes]), tuple(word for word, _ in found[attributes:])


def sender(descriptor: int) -> Callable[[bytes | bytearray], None]:
    """What writes frames to a pipe; Broken where nobody reads them any more."""

    def send(frame: bytes | bytearray) -> None:
        try:
            done = os.write(descriptor, frame)
            while done < len(frame):
                done += os.write(descriptor, memoryview(frame)[done:])
        except BrokenPipeError:
            raise Broken("the writer is gone") from None

    return send


class Frames:
    """Frames from a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = open(descriptor, "rb", buffering=1024 * 1024)  # noqa: PTH123, SIM115

    def next(self) -> bytes:
        """The next frame's records. Broken at the end: the last frame is told by its STOP."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        if length > MAX_FRAME:
            raise Broken("a frame is too long")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = self._pipe.read(length)
        if len(data) != length:
            raise Broken("the reader is gone")
        return data


# --- messages ------------------------------------------------------------------------------------


def say(
    to: socket.socket, what: Say, said: dict[str, Any] | bytes | None = None, *, fd: int = -1
) -> None:
    """Send one message. Broken where the other side is gone."""
    body = said if isinstance(said, bytes) else json.dumps(said or {}).encode()
    header = bytes([what]) + LENGTH.pack(len(body))
    try:
        if fd >= 0:
            # The first byte carries the descriptor: a stream may take the others later.
            socket.send_fds(to, [header[:1]], [fd])
            to.sendall(header[1:] + body)
        else:
            to.sendall(header + body)
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        raise Broken("the other side is gone, or hears nothing") from None


def hear(of: socket.socket) -> tuple[Say, bytes, int]:
    """The next message: what it is, its body, and a descriptor or -1. Broken at the end."""
    try:
        first, descriptors, _, _ = socket.recv_fds(of, 1, 1)
        if not first:
            raise Broken("the other side is gone")
        (length,) = LENGTH.unpack(_receive(of, LENGTH.size))
        if length > MAX_MESSAGE:
            raise Broken("a message is too long")
        body = _receive(of, length)
    except (ConnectionResetError, TimeoutError):
        raise Broken("the other side is gone, or says half a message") from None
    try:
        what = Say(first[0])
    except ValueError:
        raise Broken("a message of an unknown kind") from None
    return what, body, descriptors[0] if descriptors else -1


def _receive(of: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    done = 0
    while done < length:
        count = of.recv_into(view[done:])
        if not count:
            raise Broken("the other side is gone")
        done += count
    return bytes(data)
