"""What the log was at a moment, signed: C2SP tlog-checkpoint, signed-note and tlog-proof.

A checkpoint is three lines: whose log, how many events, the tree's root. A note is the text, an
empty line, and signatures ``— NAME base64(keyid ‖ signature)``. The 64 bytes of an Ed25519
signature are the same in a note and in a signify file over the same text, so one key serves both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from templates_app.errors import SignatureMalformed, SignatureRejected
from templates_app.trust import signify
from templates_app.trust.log import HASH_BYTES

_ED25519 = b"\x01"  # signature type, in key ids
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+]{1,200}")
_PROOF = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    origin: str  # the log's name: no space and no plus sign
    size: int  # events
    root: bytes  # 32

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the three lines, nothing else. SignatureMalformed."""
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise _odd("it is not UTF-8") from None
        if len(lines) != 4 or lines[3]:
            raise _odd("it is not of three lines")
        origin, size, root, _ = lines
        if not _NAME.fullmatch(origin):
            raise _odd("its first line is no name of a log")
        if not _SIZE.fullmatch(size):
            raise _odd("its second line is no number of events")
        return cls(origin, int(size), _base64(root, HASH_BYTES, "its third line is no root"))

    def text(self) -> bytes:
        root = base64.b64encode(self.root).decode("ascii")
        return f"{self.origin}\n{self.size}\n{root}\n".encode()


def key_id(name: str, public: bytes) -> bytes:
    """4 bytes that choose a key among those of a note; like a key number they prove nothing."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def sign(checkpoint: Checkpoint, key: signify.SecretKey) -> tuple[bytes, bytes]:
    """(the note, the signify file over the checkpoint's text); the log signs under its origin."""
    text = checkpoint.text()
    detached = key.sign(text).encode()
    made = signify.Signature.parse(detached).ed25519
    signed = key_id(checkpoint.origin, key.public_key.ed25519) + made
    line = f"\n— {checkpoint.origin} {base64.b64encode(signed).decode('ascii')}\n"
    return text + line.encode(), detached


def verify(note: bytes, key: signify.PublicKey) -> Checkpoint:
    """The checkpoint in a note that ``key`` signed under the note's origin.

    Signatures of others are passed over: witnesses may add theirs. Raises SignatureMalformed,
    SignatureRejected.
    """
    body, blank, rest = note.partition(b"\n\n")
    checkpoint = Checkpoint.parse(body + b"\n")
    if not blank or not rest.endswith(b"\n"):
        raise _odd("it has no signatures")
    wanted = key_id(checkpoint.origin, key.ed25519)
    for line in rest[:-1].split(b"\n"):
        name, signed = _signature_line(line)
        if name == checkpoint.origin and signed[:4] == wanted:
            key.verify(checkpoint.text(), signify.Signature(key.keynum, signed[4:], b"note"))
            return checkpoint
    raise SignatureRejected(f"The checkpoint is not signed by the log's key {key.key_id}.")


def _signature_line(line: bytes) -> tuple[str, bytes]:
    try:
        dash, name, text = line.decode("utf-8").split(" ")
        signed = base64.b64decode(text, validate=True)
    except ValueError:  # of any of the three
        raise _odd("a line behind its text is no signature") from None
    if dash != "—" or not name or len(signed) < 5:
        raise _odd("a line behind its text is no signature")
    return name, signed


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf is in a log, checked without it: C2SP tlog-proof."""

    index: int  # from 0
    hashes: tuple[bytes, ...]
    note: bytes

    def text(self) -> bytes:
        hashes = [base64.b64encode(one).decode("ascii") for one in self.hashes]
        return "\n".join([_PROOF, f"index {self.index}", *hashes, "", ""]).encode() + self.note

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """SignatureMalformed, also for "extra" lines: we write none, and they may mean anything."""
        head, blank, note = text.partition(b"\n\n")
        lines = head.decode("utf-8", "replace").split("\n")
        if not blank or lines[0] != _PROOF or len(lines) < 2:
            raise _odd(f"it does not begin with {_PROOF}")
        word, _, number = lines[1].partition(" ")
        if word != "index" or not _SIZE.fullmatch(number):
            raise _odd("its second line is no index")
        return cls(int(number), _root_hashes(lines[2:]), note)


def _root_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(_base64(line, HASH_BYTES, "a line of it is no hash") for line in lines)


def _base64(text: str, size: int, why: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _odd(why) from None
    # Unused bits of the last character could be anything: one hash, one spelling.
    if len(found) != size or base64.b64encode(found).decode("ascii") != text:
        raise _odd(why)
    return found


def _odd(why: str) -> SignatureMalformed:
    return SignatureMalformed(f"This is not a signed checkpoint: {why}.")
