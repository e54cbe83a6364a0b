"""The words within two errors: why a pull failed, why the gate refuses."""

from __future__ import annotations

#: Codes that a gate's refusal can have, each with the sentence that the documentation gives it.
GATE_CODES = {
    "template_unsigned": "The current generation's statement has no signature.",
    "signature_invalid": "A stored signature does not verify over the statement.",
    "key_untrusted": "The statement is signed, but by no key that is trusted now.",
    "key_revoked": "The only keys that signed the statement are revoked.",
    "statement_stale": "The snapshot on the pool is not the one that the statement was made for.",
    "template_missing": "The snapshot is not on the pool.",
}

#: Reasons that a ``pull_failed`` can have.
PULL_REASONS = {
    "not_found": "The registry does not have this name or tag.",
    "unauthorized": "The registry asks for credentials.",
    "denied": "The registry does not allow it (403).",
    "rate_limited": "The registry limits the rate of requests (429).",
    "unreachable": "The registry cannot be reached, or does not answer.",
    "tls": "The registry's TLS certificate or protocol is not acceptable.",
    "corrupt": "The bytes received do not have the digest or size that was promised.",
}
