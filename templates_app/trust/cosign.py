"""Signatures as cosign makes them, checked with configured public keys.

A signature is over a **payload**, JSON of the form "simple signing" (containers/image,
docs/containers-signature.5.md), which names the digest of the image's manifest; cosign's
specs/SIGNATURE_SPEC.md has the rest. Certificates, transparency logs and identities are not looked
at: a key is trusted because its file is in the directory.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from templates_app.errors import Unavailable

#: The media type of a payload; and the annotation beside it that has the signature, base64.
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_MAX_KEY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Key:
    """ECDSA over P-256 with SHA-256, or Ed25519."""

    label: str  # the file's name without .pub
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    def holds(self, signature: bytes, payload: bytes) -> bool:
        try:
            if isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, payload)
            else:
                self.public.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def read_keys(place: Path) -> list[Key]:
    """The keys of a directory, by name. Unavailable for one that cannot be read or used."""
    keys = []
    try:
        for path in sorted(place.glob("*.pub")):
            with path.open("rb") as file:
                public = serialization.load_pem_public_key(file.read(_MAX_KEY))
            if not isinstance(public, ed25519.Ed25519PublicKey) and not (
                isinstance(public, ec.EllipticCurvePublicKey)
                and isinstance(public.curve, ec.SECP256R1)
            ):
                raise ValueError(f"{path.name}: neither ECDSA over P-256 nor Ed25519")
            keys.append(Key(path.name.removesuffix(".pub"), public))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise Unavailable(
            "A key in COPPICE_COSIGN_KEYS cannot be used.",
            hint="It holds PEM files NAME.pub of ECDSA keys over P-256, or of Ed25519 keys.",
            private=str(error),
        ) from error
    return keys


def check(
    keys: Sequence[Key], payload: bytes, signature: str, subjects: Collection[str]
) -> tuple[tuple[str, ...], str]:
    """(labels of the keys whose signature this is, why there are none).

    Of an image that is one of ``subjects``: a signature of another image, moved to this one's tag,
    says nothing here.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return (), "The signature is not base64."
    # The signature first: nothing is read of a payload that nobody answers for.
    by = tuple(key.label for key in keys if key.holds(raw, payload))
    if not by:
        return (), "No key in COPPICE_COSIGN_KEYS has made the signature."
    try:
        critical = json.loads(payload)["critical"]
        of, kind = critical["image"]["docker-manifest-digest"], critical["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return (), "What is signed is not a payload of simple signing."
    if kind != _TYPE:
        return (), "What is signed is a payload of another type."
    if of not in subjects:
        return (), "What is signed is another image."
    return by, ""
