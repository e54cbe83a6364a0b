"""What a layer's stream and archive must be: the rules' names, numbers, extended headers.

Tar is a family of formats that grew apart, and readers differ in what they make of the seams: of
20 archives written for it, four readers made the same tree of ten. Whoever checks an image with one
reader and runs what another one unpacked has checked nothing. So what is not plain is refused, and
each refusal has a name: :data:`RULES`, described in docs/reference/layers.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from templates_app.errors import CoppiceError
from templates_app.sources.native.entry import Entry
from templates_app.sources.native.limits import (
    MAX_NAME,
    MAX_PAX_RECORDS,
    MAX_XATTR,
    MAX_XATTRS,
    refused,
)
from templates_app.trust.attributes import CAPABILITY

#: What goes on after the entry's name.
RULES = {
    "checksum": "has a header whose checksum is wrong",
    "device": "has device numbers in an extended header, where not every reader sees them",
    "extension-orphan": "is an extended header without an entry after it",
    "extension-record": "has a malformed extended header",
    "extension-size": "has too large an extended header",
    "extension-twice": "has two extended headers for the same thing",
    "file-bytes": "has more bytes than COPPICE_LIMIT_FILE_BYTES allows",
    "global-field": "is in an archive whose global header sets a field that each file has",
    "magic": "has a header of an unknown format",
    "name-empty": "has an empty name",
    "name-length": f"has a name or a link target of more than {MAX_NAME} bytes",
    "nul": "has a NUL byte in its name or link target",
    "number": "has a number in its header that is none, or out of range",
    "prefix": "has a name prefix in a header of a format that has none",
    "size": "is no regular file, but has a size",
    "sparse": "is a sparse file; an image must have the files as they are",
    "target-empty": "is a link without a target",
    "trailing-slash": "is no directory, but its name ends with a slash",
    "truncated": "is the last that there is of an archive that is cut off",
    "type": "is of a type that images may not have",
    "xattr": "has a malformed or too large extended attribute",
    "zero-block": "is followed by a block of zeros, where an archive ends, and by something else",
}

MAX_ID = 2**32 - 2  # the number above is chown(2)'s "leave it as it is"
MAX_SECONDS = 2**63 // 10**9 - 1  # of a time on either side of 1970: nanoseconds fit into 64 bits

_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")

_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
#: SCHILY.fflags: what archivers write for FreeBSD's file flags, and chflags(1)'s word. Others are a
#: file system's own, or another system's.
_FLAGS = {
    b"nodump": b"nodump",
    b"opaque": b"opaque",
    b"sappnd": b"sappnd",
    b"sappend": b"sappnd",
    b"schg": b"schg",
    b"schange": b"schg",
    b"simmutable": b"schg",
    b"sunlnk": b"sunlnk",
    b"sunlink": b"sunlnk",
    b"uappnd": b"uappnd",
    b"uappend": b"uappnd",
    b"uchg": b"uchg",
    b"uchange": b"uchg",
    b"uimmutable": b"uchg",
    b"uunlnk": b"uunlnk",
    b"uunlink": b"uunlnk",
}


def broken(rule: str, name: bytes) -> CoppiceError:
    """The refusal of the entry ``name`` by one of :data:`RULES`."""
    return refused(rule, name, RULES[rule])


def number(field: bytes, name: bytes, rule: str = "number") -> int:
    """A header's number: octal digits, or base-256 with the first byte 0x80 or, below zero, 0xff.

    An empty field is 0, and so all readers have it; one of blanks is refused, as GNU tar does.
    """
    if field[0] & 0x80:
        if field[0] not in (0x80, 0xFF):
            raise broken(rule, name)
        return int.from_bytes(field[1:]) - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:  # 8 and 9 are digits too
            raise broken(rule, name) from None
    if field.strip(b"\0"):
        raise broken(rule, name)
    return 0


@dataclass(slots=True)
class Extended:
    """What extended headers say of the next entry; None where they say nothing."""

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    flags: tuple[bytes, ...] = ()
    pax: bool = False  # there was a pax header

    def applied_to(self, entry: Entry, size: int) -> int:
        """All but the target, into ``entry``, whose header says ``size``; what its size is."""
        entry.name = entry.name if self.path is None else self.path
        entry.uid = entry.uid if self.uid is None else self.uid
        entry.gid = entry.gid if self.gid is None else self.gid
        entry.mtime_ns = entry.mtime_ns if self.mtime_ns is None else self.mtime_ns
        entry.xattrs, entry.flags = self.xattrs, self.flags
        return size if self.size is None else self.size

    def set_path(self, value: bytes, name: bytes) -> None:
        if self.path is not None:
            raise broken("extension-twice", name)
        if not value:
            raise broken("name-empty", name)
        self.path = _checked_name(value, name)

    def set_target(self, value: bytes, name: bytes) -> None:
        if self.target is not None:
            raise broken("extension-twice", name)
        if not value:
            raise broken("target-empty", name)
        self.target = _checked_name(value, name)


def records(body: bytes, name: bytes) -> dict[bytes, bytes]:
    """A pax header's records, ``LENGTH KEY=VALUE\\n``; of a key that stands twice, the last."""
    found = {}
    at = count = 0
    while at < len(body):
        blank = body.find(b" ", at, at + 8)
        digits = body[at:blank]
        count += 1
        if count > MAX_PAX_RECORDS:
            raise broken("extension-size", name)
        if blank < 0 or not digits.isdigit() or digits[0] == 0x30:
            raise broken("extension-record", name)
        end = at + int(digits)
        key, equals, value = body[blank + 1 : end - 1].partition(b"=")
        if end > len(body) or body[end - 1] != 0x0A or not (key and equals) or b"\0" in key:
            raise broken("extension-record", name)
        found[key] = value
        at = end
    return found


def refuse_global(body: bytes, name: bytes) -> None:
    """A global header says nothing that readers would heed, or is refused.

    Others of its fields (comments, owners, times) are left alone, as the other engine does.
    """
    for key in records(body, name):
        if key in (b"path", b"linkpath", b"size") or _is_sparse(key):
            raise broken("global-field", name)


def extend(extended: Extended, body: bytes, name: bytes) -> None:
    """Take over what a pax header says; records without a meaning for a file tree are skipped."""
    xattrs: dict[bytes, bytes] = {}
    for key, value in records(body, name).items():
        if key == b"mtime":
            extended.mtime_ns = _nanoseconds(value, name)
        elif key == b"path":
            extended.set_path(value, name)
        elif key == b"linkpath":
            extended.set_target(value, name)
        elif key == b"size":
            extended.size = _decimal(value, name, 2**63 - 1)
        elif key == b"uid":
            extended.uid = _decimal(value, name, MAX_ID)
        elif key == b"gid":
            extended.gid = _decimal(value, name, MAX_ID)
        elif key.startswith((_SCHILY, _LIBARCHIVE)):
            _add_xattr(xattrs, key, value, name)
        elif key == b"SCHILY.fflags":
            words = {_FLAGS.get(word) for word in value.split(b",")}
            extended.flags = tuple(sorted(word for word in words if word is not None))
        elif _is_sparse(key):
            raise broken("sparse", name)
        elif key in (b"SCHILY.devmajor", b"SCHILY.devminor"):
            raise broken("device", name)
    if xattrs:
        if sum(len(key) + len(value) for key, value in xattrs.items()) > MAX_XATTRS:
            raise broken("xattr", name)
        extended.xattrs = tuple(sorted(xattrs.items()))


def _checked_name(value: bytes, name: bytes) -> bytes:
    """A name or a target out of an extended header: no reader may see less of it than another."""
    if b"\0" in value:
        raise broken("nul", name)
    if len(value) > MAX_NAME:
        raise broken("name-length", name)
    return value


def _is_sparse(key: bytes) -> bool:
    return key.startswith(b"GNU.sparse.") or key in (b"SCHILY.realsize", b"SUN.holesdata")


def _decimal(value: bytes, name: bytes, most: int) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) > most:
        raise broken("number", name)
    return int(value)


def _nanoseconds(value: bytes, name: bytes) -> int:
    found = _TIME.fullmatch(value)
    if found is None or int(found[2]) > MAX_SECONDS:
        raise broken("number", name)
    fraction = int((found[3] or b"")[:9].ljust(9, b"0"))
    nanoseconds = int(found[2]) * 10**9 + fraction
    return -nanoseconds if found[1] else nanoseconds


def _add_xattr(xattrs: dict[bytes, bytes], key: bytes, value: bytes, name: bytes) -> None:
    """Of those that count (L15). libarchive writes each one twice, in its own way and in star's."""
    if key.startswith(_SCHILY):
        attribute = key[len(_SCHILY) :]
    else:
        attribute = _ESCAPED.sub(lambda code: bytes([int(code[1], 16)]), key[len(_LIBARCHIVE) :])
    if attribute != CAPABILITY and not attribute.startswith(b"user."):
        return
    if key.startswith(_LIBARCHIVE):
        try:
            value = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            raise broken("xattr", name) from None
    # 255: XATTR_NAME_MAX. NUL: it would end the name for the kernel.
    odd_name = len(attribute) > 255 or b"\0" in attribute or attribute == b"user."
    odd_capability = attribute == CAPABILITY and not _is_capability(value)
    if odd_name or odd_capability or len(value) > MAX_XATTR:
        raise broken("xattr", name)
    if xattrs.setdefault(attribute, value) != value:
        raise broken("xattr", name)


def _is_capability(value: bytes) -> bool:
    """What Linux takes (capability.h: revisions 2 and 3, with the flag "effective" or without);
    anything else is EINVAL at the end."""
    revision = {20: b"\x02", 24: b"\x03"}.get(len(value))
    return value[:3] in (b"\0\0\0", b"\1\0\0") and value[3:4] == revision
