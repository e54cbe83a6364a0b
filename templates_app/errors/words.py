"""The words within two errors: why a pull failed, why the gate refuses."""

from __future__ import annotations

#: Codes that a gate's refusal can have, each with the sentence that the documentation gives it.
GATE_CODES = {
    "template_unsigned": "The current generation's statement has no signature.",
    "signature_invalid": "A stored signature does not verify over the statement.",
    "key_untrusted": "The statement is signed, but by no key that is trusted now.",
    "key_revoked": "All keys that signed the statement are revoked, from before they signed it.",
    "key_outside_dates": "The keys that signed are not to be trusted now, by their dates.",
    "key_outside_scope": "The keys that signed are not trusted for templates of this name.",
    "signature_withdrawn": "The signatures over the statement were withdrawn.",
    "second_person_missing": "Nobody but the one who imported it has signed the statement.",
    "too_few_signatures": "Fewer keys than the policy asks for have signed the statement.",
    "statement_stale": "The snapshot on the pool is not the one that the statement was made for.",
    "template_missing": "The snapshot is not on the pool.",
    "finding_open": "A finding that stops launches is open against the generation.",
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
