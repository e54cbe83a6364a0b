"""The outer form of signify(1)'s files: what keys and signatures have in common.

``untrusted comment: `` and a comment, a newline, base64, a newline. Stricter than signify where
signify takes two spellings for one thing: whoever compares files may trust that there is one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_COMMENT = 1023  # bytes: COMMENTMAXLEN of signify.c without its NUL
MAX_KEY_FILE = 4096  # bytes
ED25519 = b"Ed"  # what each structure begins with
_HEADER = b"untrusted comment: "


class OddError(ValueError):
    """Why something is not a file of signify: the second half of a sentence."""


def parse(text: str | bytes, size: int) -> tuple[bytes, bytes, bytes]:
    """(comment, decoded structure of ``size`` bytes, what is behind it)."""
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise OddError("it has characters that cannot be written") from None
    if not data.startswith(_HEADER):
        raise OddError("it does not begin with 'untrusted comment: '")
    comment, newline, rest = data[len(_HEADER) :].partition(b"\n")
    if not newline:
        raise OddError("there is no line after its comment")
    _check_comment(comment)
    encoded, newline, rest = rest.partition(b"\n")
    if not newline:
        raise OddError("there is no newline after its base64")
    # The length first: the line may be as long as the sender liked.
    if len(encoded) != (size + 2) // 3 * 4:
        raise OddError("its second line is not of the right length")
    try:
        body = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        raise OddError("its second line is not base64") from None
    # Unused bits of the last character could be anything: one signature, one spelling.
    if len(body) != size or base64.b64encode(body) != encoded:
        raise OddError("its second line is not base64 of the right length")
    if not body.startswith(ED25519):
        raise OddError("it is not of Ed25519")
    return comment, body, rest


def format_file(comment: bytes, body: bytes) -> bytes:
    """The file's bytes. OddError if the comment cannot be one."""
    _check_comment(comment)
    return _HEADER + comment + b"\n" + base64.b64encode(body) + b"\n"


def _check_comment(comment: bytes) -> None:
    if not 1 <= len(comment) <= MAX_COMMENT:
        raise OddError(f"its comment is not of 1 to {MAX_COMMENT} bytes")
    if b"\0" in comment or b"\n" in comment:  # C's strings end at the one, lines at the other
        raise OddError("its comment has a NUL or a newline")


@contextlib.contextmanager
def opened(path: Path | str, parent: int | None = None) -> Iterator[tuple[int, os.stat_result]]:
    """(descriptor, fstat) of a key file, a regular file and no link. OddError.

    ``path`` may be relative to the open directory ``parent``.
    """
    # O_NONBLOCK: a fifo of that name must not hold us up. Links are refused as signify does.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise OddError(f"it cannot be opened ({_reason(error)})") from None
    try:
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode):
            raise OddError("it is not a regular file")
        if there.st_size > MAX_KEY_FILE:
            raise OddError(f"it is longer than {MAX_KEY_FILE} bytes")
        yield fd, there
    finally:
        os.close(fd)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "it is a symbolic link"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
