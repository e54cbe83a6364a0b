"""The gate: may this template be cloned? Every check has a name, a result, a reason, a next step.

The same decision is the body of a refusal (403), of ``GET /templates/{name}/gate``, and what the
log keeps. Nothing here is cached: a key that is withdrawn counts from the next call on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from templates_app.codec import camel
from templates_app.datasets.base import Snapshot
from templates_app.errors import GATE_CODES, CoppiceError
from templates_app.events import Check
from templates_app.lifecycle import GenerationState
from templates_app.trust import signify, statement


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignature:
    key_id: str
    key_label: str
    public_key: str  # base64 of signify's 42 bytes
    signature: str  # the .sig file


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    template: str
    generation: int
    mode: str  # on, warn, off
    allowed: bool
    signed: bool  # all checks of trust hold, whatever the mode
    key_id: str | None  # of the key whose signature counted
    key_label: str | None
    statement_digest: str
    tree_digest: str
    checks: tuple[Check, ...]

    @property
    def code(self) -> str | None:
        """The first failed check's code: what a refusal is called."""
        return next((check.code for check in self.checks if not check.passed), None)

    @property
    def failed_codes(self) -> tuple[str, ...]:
        return tuple(check.code for check in self.checks if not check.passed and check.code)

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            camel(name): getattr(self, name) for name in self.__slots__ if name != "checks"
        }
        shown["code"] = self.code
        shown["checks"] = [
            {camel(name): getattr(check, name) for name in check.__slots__} for check in self.checks
        ]
        return shown


def decide(
    *,
    name: str,
    generation: GenerationState,
    live: Snapshot | None,
    signatures: Sequence[StoredSignature],
    trusted: Sequence[signify.TrustedKey],
    mode: str,
) -> Decision:
    """Judge one generation as it is now. ``live`` is its @base on the pool, None if not there."""
    checks = [
        _present(generation, live),
        _unchanged(name, generation, live),
        _statement(name, generation),
    ]
    signature_checks, key = _signatures(name, generation, signatures, trusted)
    checks += signature_checks
    signed = all(check.passed for check in checks)
    return Decision(
        template=name,
        generation=generation.number,
        mode=mode,
        allowed=signed or (mode in ("off", "warn") and checks[0].passed),
        signed=signed,
        key_id=key.public_key.key_id if key else None,
        key_label=key.label if key else None,
        statement_digest=generation.statement_digest,
        tree_digest=generation.tree_digest,
        checks=tuple(checks),
    )


def _failed(name: str, code: str, reason: str, next_step: str) -> Check:
    if code not in GATE_CODES:
        raise ValueError(f"{code} is not a code of the gate")
    return Check(name=name, passed=False, reason=reason, code=code, next_step=next_step)


def _present(generation: GenerationState, live: Snapshot | None) -> Check:
    name = "dataset_present"
    if live is None:
        return _failed(
            name,
            "template_missing",
            f"{generation.origin} is not on the pool.",
            "Import the template again with --force, or restore it and run: coppice tpl reload",
        )
    return Check(name=name, passed=True, reason=f"{generation.origin} is on the pool.")


def _unchanged(template: str, generation: GenerationState, live: Snapshot | None) -> Check:
    name = "snapshot_unchanged"
    if live is None or live.guid != generation.snapshot_guid:
        found = "is not there" if live is None else f"has guid {live.guid}"
        return _failed(
            name,
            "statement_stale",
            f"The snapshot {found}; the statement was made for guid {generation.snapshot_guid}.",
            f"Find out who replaced it, then: coppice tpl import-oci {template} REF --force",
        )
    return Check(name=name, passed=True, reason=f"Its guid is {live.guid}, as recorded.")


def _statement(template: str, generation: GenerationState) -> Check:
    name = "statement_matches"
    text = generation.statement.encode()
    actual = "sha256:" + hashlib.sha256(text).hexdigest()
    wrong = ""
    if actual != generation.statement_digest:
        wrong = f"The stored statement has digest {actual}, not {generation.statement_digest}."
    else:
        try:
            subject = statement.subject(text)
        except CoppiceError as error:
            wrong = error.detail
        else:
            if subject != (template, generation.tree_digest):
                wrong = "The stored statement is about another template or tree."
    if wrong:
        return _failed(name, "statement_stale", wrong, "Run: manage.py rebuild_projections --check")
    return Check(
        name=name, passed=True, reason=f"It binds {template} to tree {generation.tree_digest}."
    )


def _signatures(
    template: str,
    generation: GenerationState,
    signatures: Sequence[StoredSignature],
    trusted: Sequence[signify.TrustedKey],
) -> tuple[list[Check], signify.TrustedKey | None]:
    """Is it signed, by a key that is trusted now, and does that signature verify?"""
    sign_it = f"Sign it: coppice tpl sign {template}"
    names = ("signed", "key_trusted", "signature_valid")
    if not signatures:
        unsigned = f"Generation {generation.number}'s statement has no signature."
        return [_failed(name, "template_unsigned", unsigned, sign_it) for name in names[:1]], None
    count = Check(name=names[0], passed=True, reason=f"{len(signatures)} signature(s) stored.")
    by_text = {key.public_key.text: key for key in trusted}
    known = [(one, by_text[one.public_key]) for one in signatures if one.public_key in by_text]
    if not known:
        labels = ", ".join(sorted({f"{one.key_label} ({one.key_id})" for one in signatures}))
        return [
            count,
            _failed(
                names[1],
                "key_untrusted",
                f"Signed by {labels}: not among the keys that are trusted now.",
                "Trust that key (COPPICE_TRUSTED_KEYS), or sign with a trusted one.",
            ),
        ], None
    reasons = []
    for one, key in known:
        by_key = Check(
            name=names[1], passed=True, reason=f"Key {key.label} ({one.key_id}) is trusted."
        )
        try:
            key.public_key.verify(generation.statement.encode(), one.signature)
        except CoppiceError as error:
            reasons.append(f"{key.label}: {error.detail}")
        else:
            valid = f"The signature by {key.label} verifies over the statement."
            return [count, by_key, Check(name=names[2], passed=True, reason=valid)], key
    bad = _failed(names[2], "signature_invalid", "; ".join(reasons), sign_it)
    return [count, by_key, bad], None
