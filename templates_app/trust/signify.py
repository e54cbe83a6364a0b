"""signify(1)'s keys and signatures: read, verify, sign, make. docs/reference/signatures.md.

All that is parsed here may come from an enemy: whatever the bytes, the answer is a value or one of
the errors that the functions name, never another exception. The key number chooses a key and proves
nothing; the comment is not signed.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import bcrypt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from templates_app.errors import (
    KeyMalformed,
    PassphraseWrong,
    SignatureMalformed,
    SignatureRejected,
    SigningKeyUntrusted,
)
from templates_app.trust import keyfiles
from templates_app.trust.keyfiles import ED25519, OddError

logger = logging.getLogger("coppice.trust")

ROUNDS = 42  # of bcrypt_pbkdf: what signify uses
MAX_ROUNDS = 1000  # about ten seconds: a damaged key must not keep its owner waiting for years
_BCRYPT = b"BK"
_PUBLIC_SIZE, _SIGNATURE_SIZE, _SECRET_SIZE = 42, 74, 104  # bytes of the three structures
# The seven encodings of points of small order, sign bit aside (the list of libsodium): by such a
# "key" anybody can make a signature that verifies.
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


# --- signatures and public keys ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    keynum: bytes  # 8
    ed25519: bytes  # 64
    comment: bytes = field(compare=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read a detached ``.sig`` file. SignatureMalformed."""
        signature, message = cls.parse_embedded(text)
        if message:
            raise _not_a_signature("something stands behind its base64")
        return signature

    @classmethod
    def parse_embedded(cls, text: str | bytes) -> tuple[Self, bytes]:
        """Read a file of ``signify -S -e``: the signature, and the message behind it."""
        try:
            comment, body, message = keyfiles.parse(text, _SIGNATURE_SIZE)
        except OddError as odd:
            raise _not_a_signature(str(odd)) from None
        return cls(body[2:10], body[10:], comment), message

    def to_bytes(self) -> bytes:
        return keyfiles.format_file(self.comment, ED25519 + self.keynum + self.ed25519)


@dataclass(frozen=True, slots=True)
class PublicKey:
    keynum: bytes  # 8
    ed25519: bytes  # 32
    comment: bytes = field(compare=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read a ``.pub`` file. KeyMalformed."""
        comment, body = _parse_key(text, _PUBLIC_SIZE)
        if body[10:-1] + bytes([body[-1] & 0x7F]) in _SMALL_ORDER:
            raise KeyMalformed("This is no key of anybody: its point on the curve has small order.")
        return cls(body[2:10], body[10:], comment)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key whose ``text`` it is. KeyMalformed."""
        return cls.parse(f"untrusted comment: public key\n{text}\n")

    @property
    def key_id(self) -> str:
        """The key number: 16 hex digits, in the order of the file's bytes."""
        return self.keynum.hex()

    @property
    def text(self) -> str:
        """base64 of the 42 bytes, the second line of the file: what tells keys apart."""
        return _text(self.keynum + self.ed25519)

    def to_bytes(self) -> bytes:
        return keyfiles.format_file(self.comment, ED25519 + self.keynum + self.ed25519)

    def verify(self, message: bytes, signature: Signature | str | bytes) -> None:
        """Return if ``signature`` is this key's over exactly ``message``.

        Raises SignatureMalformed; SigningKeyUntrusted if it names another key (no cryptography is
        tried then); SignatureRejected.
        """
        if not isinstance(signature, Signature):
            signature = Signature.parse(signature)
        if signature.keynum != self.keynum:
            other = signature.keynum.hex()
            raise SigningKeyUntrusted(f"It was signed with key {other}, not with {self.key_id}.")
        try:
            Ed25519PublicKey.from_public_bytes(self.ed25519).verify(signature.ed25519, message)
        except InvalidSignature:
            raise SignatureRejected(
                f"The signature by key {self.key_id} is not one over these bytes."
            ) from None


@functools.lru_cache(maxsize=1000)  # the gate asks it of each key in the directory, each time
def _text(key: bytes) -> str:
    return base64.b64encode(ED25519 + key).decode("ascii")


# --- the keys that are trusted -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrustedKey:
    label: str  # the file's name without .pub
    public_key: PublicKey


def verify_with_any(
    message: bytes, signature: str | bytes, trusted: Sequence[TrustedKey]
) -> TrustedKey:
    """The trusted key that made ``signature`` over exactly ``message``.

    Only keys with the signature's key number are tried, and all of them: two may share a number.
    Raises SignatureMalformed, SigningKeyUntrusted (no such key), SignatureRejected.
    """
    parsed = Signature.parse(signature)
    candidates = [key for key in trusted if key.public_key.keynum == parsed.keynum]
    for key in candidates:
        try:
            key.public_key.verify(message, parsed)
        except SignatureRejected:
            continue
        return key
    key_id = parsed.keynum.hex()
    if not candidates:
        raise SigningKeyUntrusted(f"It was signed with key {key_id}, which is not trusted here.")
    labels = ", ".join(key.label for key in candidates)
    raise SignatureRejected(
        f"The signature by key {key_id} ({labels}) is not one over these bytes."
    )


# --- secret keys: on the signer's side only ----------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)  # no repr: it would carry the seed into a log
class SecretKey:
    keynum: bytes  # 8
    seed: bytes  # 32
    comment: bytes  # of the signatures that it makes

    @classmethod
    def load(
        cls, text: str | bytes, passphrase: str | bytes | None = None, *, file_name: str = ""
    ) -> Self:
        """Open a secret key. KeyMalformed, PassphraseWrong (also where one is needed and missing).

        ``file_name`` is for the comment of signatures: signify writes ``verify with NAME.pub`` for
        a key from ``NAME.sec``, and ``signature from COMMENT`` for one from its standard input.
        """
        comment, rounds, salt, checksum, keynum, stored = _parse_secret(text)
        if rounds and not passphrase:
            raise PassphraseWrong("The secret key needs a passphrase.")
        plain = _xor(stored, _stream(passphrase or b"", salt, rounds))
        if not hmac.compare_digest(hashlib.sha512(plain).digest()[:8], checksum):
            if rounds:
                raise PassphraseWrong("The passphrase does not open the secret key.")
            raise KeyMalformed("The secret key is damaged: its checksum is wrong.")
        seed, public = plain[:32], plain[32:]
        if _public_half(seed) != public:
            raise KeyMalformed("The secret key is damaged: its halves are not of one pair.")
        return cls(keynum, seed, _signature_comment(comment, file_name))

    @property
    def public_key(self) -> PublicKey:
        return PublicKey(self.keynum, _public_half(self.seed), b"public key")

    def sign(self, message: bytes) -> str:
        """The ``.sig`` file, byte for byte what ``signify -S`` writes."""
        made = Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)
        return Signature(self.keynum, made, self.comment).to_bytes().decode("utf-8")

    def sign_embedded(self, message: bytes) -> bytes:
        """What ``signify -S -e`` writes: the signature with its message behind it."""
        return self.sign(message).encode("utf-8") + message


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    public: str  # the .pub file
    secret: str  # the .sec file: for mode 0600


def read_secret(path: Path) -> bytes:
    """The bytes of a secret key's file, which may be no link nor over 4 KiB. KeyMalformed."""
    try:
        with keyfiles.opened(path) as (fd, _):
            return os.read(fd, keyfiles.MAX_KEY_FILE)
    except OddError as odd:
        raise KeyMalformed(f"The secret key's file cannot be used: {odd}.") from None


def needs_passphrase(text: str | bytes) -> bool:
    """Whether this secret key has to be opened with a passphrase. KeyMalformed."""
    return _parse_secret(text)[1] > 0


def generate(
    comment: str = "signify", passphrase: str | bytes | None = None, *, rounds: int = ROUNDS
) -> KeyPair:
    """A new pair, as ``signify -G`` makes it. KeyMalformed (comment), PassphraseWrong (empty)."""
    if passphrase is not None and not passphrase:
        raise PassphraseWrong("The passphrase is empty.")
    keynum, salt, seed = secrets.token_bytes(8), secrets.token_bytes(16), secrets.token_bytes(32)
    plain = seed + _public_half(seed)
    used = 0 if passphrase is None else rounds
    stored = _xor(plain, _stream(passphrase or b"", salt, used))
    head = ED25519 + _BCRYPT + used.to_bytes(4, "big") + salt
    secret = head + hashlib.sha512(plain).digest()[:8] + keynum + stored
    try:
        text = comment.encode("utf-8")
        return KeyPair(
            keyfiles.format_file(text + b" public key", ED25519 + keynum + plain[32:]).decode(),
            keyfiles.format_file(text + b" secret key", secret).decode(),
        )
    except (OddError, UnicodeEncodeError):
        raise KeyMalformed("The comment is too long, or has characters it may not have.") from None


def _not_a_signature(why: str) -> SignatureMalformed:
    return SignatureMalformed(f"This is not a signify signature: {why}.")


def _parse_key(text: str | bytes, size: int) -> tuple[bytes, bytes]:
    try:
        comment, body, rest = keyfiles.parse(text, size)
        if rest:
            raise OddError("something stands behind its base64")
    except OddError as odd:
        raise KeyMalformed(f"This is not a signify key: {odd}.") from None
    return comment, body


def _parse_secret(text: str | bytes) -> tuple[bytes, int, bytes, bytes, bytes, bytes]:
    """(comment, rounds, salt, checksum, keynum, stored key)."""
    comment, body = _parse_key(text, _SECRET_SIZE)
    if body[2:4] != _BCRYPT:
        raise KeyMalformed("This is not a signify key: its passphrase is hashed in an unknown way.")
    rounds = int.from_bytes(body[4:8], "big")
    if rounds > MAX_ROUNDS:
        raise KeyMalformed(f"The secret key asks for {rounds} rounds, more than {MAX_ROUNDS}.")
    return comment, rounds, body[8:24], body[24:32], body[32:40], body[40:]


def _stream(passphrase: str | bytes, salt: bytes, rounds: int) -> bytes:
    """The 64 bytes that a secret key is XORed with: zeros where it has no passphrase."""
    if rounds == 0:
        return bytes(64)
    try:
        secret = passphrase.encode("utf-8") if isinstance(passphrase, str) else passphrase
    except UnicodeEncodeError:
        raise PassphraseWrong("The passphrase has characters that cannot be written.") from None
    # The warning is about bcrypt_pbkdf with fewer than 50 rounds; signify's format has 42.
    return bcrypt.kdf(secret, salt, 64, rounds, ignore_few_rounds=True)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _public_half(seed: bytes) -> bytes:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _signature_comment(key_comment: bytes, file_name: str) -> bytes:
    name = Path(file_name).name
    if name.endswith(".sec") and name != ".sec":
        comment = b"verify with " + os.fsencode(name[: -len(".sec")]) + b".pub"
    else:
        comment = b"signature from " + key_comment
    # A signature travels as JSON, so its comment has to be text.
    comment = comment.decode("utf-8", "replace").encode("utf-8")
    if len(comment) > keyfiles.MAX_COMMENT:
        raise KeyMalformed("The key's comment or file name is too long for a signature's comment.")
    return comment
