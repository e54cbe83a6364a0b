"""Statements and signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from templates_app import lifecycle, store
from templates_app.errors import (
    Conflict,
    MalformedRequest,
    SignatureIsWithdrawn,
    SignatureNotFound,
    SigningKeyOutsideDates,
    SigningKeyOutsideScope,
    SigningKeyRevoked,
)
from templates_app.events import Meta, Recorded, SignatureWithdrawn, Signed
from templates_app.models import Signature
from templates_app.names import TemplateName, quote
from templates_app.services import common, keyring, keys, ledger, policy, revocation
from templates_app.trust import signify
from templates_app.trust.keyring import KnownKey


def statement(*, name: str) -> bytes:
    """The exact bytes that sign the current generation of ``name``."""
    template = TemplateName.parse(name)
    return lifecycle.current(common.state_of(template.text)).statement.encode()


def sign(
    *,
    name: str,
    signature: str,
    context: Meta,
    unless: Callable[[], None] = lambda: None,
) -> Recorded:
    """Accept a signature over the current statement. Idempotent for a key and a statement.

    ``unless`` raises where the template is not what the caller has seen; nothing can change between
    its look and the event.

    Raises TemplateNotFound, SignatureMalformed, SignatureRejected and its kinds.
    """
    policy.look()
    return _sign(TemplateName.parse(name), signature, context, unless)


@common.decided_anew
def _sign(
    template: TemplateName, signature: str, context: Meta, unless: Callable[[], None]
) -> Recorded:
    version = store.stream_version(f"template:{template}")
    generation = lifecycle.current(common.state_of(template.text))
    unless()
    text = generation.statement.encode()
    key = _signer(template, text, signature, position=store.size() + 1)
    known = Signature.objects.filter(
        statement_digest=generation.statement_digest, public_key=key.public_key.text
    ).first()
    if known is not None and known.withdrawn_position is not None:
        raise SignatureIsWithdrawn(
            f"The signature by {known.key_label} was withdrawn by {known.withdrawn_by}"
            f" (event {known.withdrawn_position})."
        )
    if known is not None:
        return store.at(known.position)
    event = Signed(
        template=template.text,
        generation=generation.number,
        statement_digest="sha256:" + hashlib.sha256(text).hexdigest(),
        tree_digest=generation.tree_digest,
        manifest_digest=generation.manifest_digest,
        key_id=key.public_key.key_id,
        key_label=key.label,
        public_key=key.public_key.text,
        signature=signature,
    )
    (recorded,) = store.append([event], meta=context, expected={f"template:{template}": version})
    ledger.checkpoint_after("a signature")
    return recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """``recorded`` is None for a dry run."""

    signature: Signature
    radius: revocation.Radius
    recorded: Recorded | None


def withdraw(
    *, name: str, key: str, note: str = "", dry_run: bool = False, context: Meta
) -> Withdrawn:
    """A key's signature over the current statement does not count any more, for ever.

    The same signature, which stands in the log for everybody, is not accepted again. ``key`` is the
    number or label under which it was stored. The event has what it changed; ``dry_run`` finds the
    same, and changes nothing. Raises TemplateNotFound, SignatureNotFound, MalformedRequest,
    Conflict.
    """
    template = TemplateName.parse(name)
    if not keys.LINE.fullmatch(note):
        raise MalformedRequest("The note must be one line of at most 500 characters.")
    with transaction.atomic():
        store.lock()  # what is told is what is done: nothing is signed or launched between
        generation = lifecycle.current(common.state_of(template.text))
        row = _standing(template, generation.statement_digest, key)
        radius = revocation.of_withdrawal(row, store.size() + 1)
        recorded = None
        if not dry_run:
            event = SignatureWithdrawn(
                template=template.text,
                generation=generation.number,
                statement_digest=generation.statement_digest,
                tree_digest=generation.tree_digest,
                manifest_digest=generation.manifest_digest,
                key_id=row.key_id,
                key_label=row.key_label,
                public_key=row.public_key,
                signed_position=row.position,
                note=note,
                templates=tuple(one.template for one in radius.templates),
                sandboxes=tuple(one.id for one in radius.sandboxes),
            )
            (recorded,) = store.append([event], meta=context)
    if recorded is not None:
        ledger.checkpoint_after("a signature that was withdrawn")
    return Withdrawn(signature=row, radius=radius, recorded=recorded)


def _standing(template: TemplateName, statement_digest: str, key: str) -> Signature:
    rows = (
        Signature.objects.none()
        if not keys.LABEL.fullmatch(key)
        else Signature.objects.filter(
            Q(key_id=key) | Q(key_label=key),
            template_name=template.text,
            statement_digest=statement_digest,
            withdrawn_position__isnull=True,
        )
    )
    found = list(rows)
    if not found:
        raise SignatureNotFound(
            f"The current statement of {template} has no signature by {quote(key)} that stands."
        )
    if len(found) > 1:
        raise Conflict(
            f"{quote(key)} is more than one key.",
            hint="Name it by the other of number and label.",
        )
    return found[0]


def _signer(template: TemplateName, text: bytes, signature: str, *, position: int) -> KnownKey:
    """The known key that made it, if what it signs now counts for this template.

    Whoever is revoked between this look and the event has signed at a later position than that of
    the revocation, which the gate does not let count.
    """
    known = {key.public_key.text: key for key in keyring.every()}
    candidates = [
        signify.TrustedKey(key.label, key.public_key)
        for key in known.values()
        if key.trusted or key.revocation
    ]
    key = known[signify.verify_with_any(text, signature, candidates).public_key.text]
    if why := key.revoked_for(position):
        raise SigningKeyRevoked(f"{why}.")
    if why := key.outside_dates(timezone.now()):
        raise SigningKeyOutsideDates(f"{why}.")
    if why := key.outside_scope(template.text):
        raise SigningKeyOutsideScope(f"{why}.")
    return key
