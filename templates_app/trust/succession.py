"""How a key announces the next one: the text that it signs. docs/reference/signatures.md."""

from __future__ import annotations

import rfc8785

from templates_app.trust.signify import PublicKey

SUCCESSION = "urn:coppice:key-succession:v1"


def text(*, predecessor: PublicKey, successor: PublicKey) -> bytes:
    """The exact bytes, canonical JSON (RFC 8785).

    No statement can be read as one, nor the other way round: their ``_type`` differs.
    """
    return rfc8785.dumps(
        {"_type": SUCCESSION, "predecessor": predecessor.text, "successor": successor.text}
    )
