"""Checks of who vouches for it: is it signed, by keys that may vouch for it now, and by enough?"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

from templates_app.errors import CoppiceError
from templates_app.events import Check
from templates_app.gate.base import Policy, StoredSignature, failed
from templates_app.lifecycle import GenerationState
from templates_app.trust.keyring import KnownKey


class Voucher(NamedTuple):
    """A stored signature, and its key where that is known here."""

    stored: StoredSignature
    key: KnownKey | None

    @property
    def named(self) -> str:
        """Its key, in words."""
        return self.key.named if self.key else f"{self.stored.key_label} ({self.stored.key_id})"


class _Stage(NamedTuple):
    """A question that each signature is asked; those that pass are asked the next one."""

    name: str
    code: str
    refuses: Callable[[Voucher], str]  # why not; empty where it does not
    good: str  # what is said of those that pass
    next_step: str


def signatures_hold(
    template: str,
    generation: GenerationState,
    signatures: Sequence[StoredSignature],
    keys: Sequence[KnownKey],
    *,
    importer: str,
    policy: Policy,
    now: datetime.datetime,
) -> tuple[list[Check], list[Voucher]]:
    """The checks up to the first that no signature passes; the signatures that passed all."""
    if not signatures:
        unsigned = f"Generation {generation.number}'s statement has no signature."
        sign_it = f"Sign it: coppice tpl sign {template}"
        return [failed("signed", "template_unsigned", unsigned, sign_it)], []
    by_text = {key.public_key.text: key for key in keys}
    left = [Voucher(one, by_text.get(one.public_key)) for one in signatures]
    checks = [Check(name="signed", passed=True, reason=f"{len(left)} signature(s) stored.")]
    for stage in _stages(template, generation, left, importer, policy, now):
        check, left = _ask(stage, left)
        checks.append(check)
        if not left:
            return checks, []
    if policy.signatures > 1:
        checks.append(_enough(template, left, policy.signatures))
    return checks, left if checks[-1].passed else []


def _stages(
    template: str,
    generation: GenerationState,
    asked: list[Voucher],
    importer: str,
    policy: Policy,
    now: datetime.datetime,
) -> list[_Stage]:
    """The questions in their order. The key of those that pass the second one is known."""
    sign_it = f"Sign it: coppice tpl sign {template}"
    stages = [
        _Stage(
            "signature_stands",
            "signature_withdrawn",
            _withdrawn,
            "not withdrawn",
            "Find out why it was withdrawn; then sign with another key.",
        ),
        _trusted(asked),
        _Stage(
            "key_not_revoked",
            "key_revoked",
            lambda one: one.key.revoked_for(one.stored.position) if one.key else "",
            "not revoked for what it signed",
            f"Sign it with another key: coppice tpl sign {template}",
        ),
        _Stage(
            "key_in_dates",
            "key_outside_dates",
            lambda one: one.key.outside_dates(now) if one.key else "",
            "within its dates",
            f"Sign it with a key that is within its dates: coppice tpl sign {template}",
        ),
        _Stage(
            "key_in_scope",
            "key_outside_scope",
            lambda one: one.key.outside_scope(template) if one.key else "",
            f"trusted for {template}",
            f"Sign it with a key that is trusted for {template}: coppice key list",
        ),
        _Stage(
            "signature_valid",
            "signature_invalid",
            _verifier(generation),
            "verifies over the statement",
            sign_it,
        ),
    ]
    if policy.two_persons:
        stages.append(
            _Stage(
                "second_person",
                "second_person_missing",
                lambda one: (
                    f"{one.named}: handed in by {importer}, who has imported it"
                    if one.stored.signed_by == importer
                    else ""
                ),
                f"handed in by another than {importer}, who has imported it",
                f"Let somebody else sign it: coppice tpl sign {template}",
            )
        )
    return stages


def _ask(stage: _Stage, asked: list[Voucher]) -> tuple[Check, list[Voucher]]:
    why = [stage.refuses(one) for one in asked]
    left = [one for one, reason in zip(asked, why, strict=True) if not reason]
    reasons = "; ".join(dict.fromkeys(reason for reason in why if reason))
    if not left:
        return failed(stage.name, stage.code, f"{reasons}.", stage.next_step), []
    said = f"{', '.join(one.named for one in left)}: {stage.good}."
    if reasons:
        said += f" {reasons}."
    return Check(name=stage.name, passed=True, reason=said), left


def _withdrawn(one: Voucher) -> str:
    gone = one.stored.withdrawn
    return "" if gone is None else f"{one.named}: withdrawn by event {gone}"


def _trusted(asked: list[Voucher]) -> _Stage:
    # Of a key that is revoked, and whose file was taken away besides, the former is to be known.
    if any(one.key is not None and one.key.revocation for one in asked):
        code, next_step = "key_revoked", "Sign with another key."
    else:
        code = "key_untrusted"
        next_step = "Trust that key: coppice key trust FILE.pub, or sign with one that is trusted."
    return _Stage("key_trusted", code, _untrusted, "trusted", next_step)


def _untrusted(one: Voucher) -> str:
    if one.key is not None and one.key.trusted:
        return ""
    if one.key is not None and one.key.revocation is not None:
        return f"{one.named} is revoked"
    return f"{one.named} is not among the keys that are trusted now"


def _enough(template: str, left: list[Voucher], least: int) -> Check:
    """Of keys, not of signatures: one key's second signature says nothing new."""
    found = len({one.key.public_key.ed25519 for one in left if one.key})
    said = f"{found} of {least} keys that the policy asks for have signed."
    if found < least:
        more = f"Let another key's owner sign it: coppice tpl sign {template}"
        return failed("enough_signatures", "too_few_signatures", said, more)
    return Check(name="enough_signatures", passed=True, reason=said)


def _verifier(generation: GenerationState) -> Callable[[Voucher], str]:
    statement = generation.statement.encode()

    def refuses(one: Voucher) -> str:
        if one.key is None:
            return f"{one.named}: there is nothing to verify it with"
        try:
            one.key.public_key.verify(statement, one.stored.signature)
        except CoppiceError as error:
            return f"{one.key.label}: {error.detail.rstrip('.')}"
        return ""

    return refuses
