"""Statements and signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from django.conf import settings

from templates_app import lifecycle, store
from templates_app.errors import EventConflict
from templates_app.events import Meta, Recorded, Signed
from templates_app.models import Signature
from templates_app.names import TemplateName
from templates_app.services import common, ledger
from templates_app.trust import signify


def trusted_keys() -> list[signify.TrustedKey]:
    """The keys that count now: read from the directory at each use, so that removal is at once."""
    return signify.load_trusted(settings.COPPICE_TRUSTED_KEYS)


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

    Raises TemplateNotFound, SignatureMalformed, SigningKeyUntrusted, SignatureRejected.
    """
    template = TemplateName.parse(name)
    for attempt in range(common.ATTEMPTS):
        version = store.stream_version(f"template:{template}")
        generation = lifecycle.current(common.state_of(template.text))
        unless()
        text = generation.statement.encode()
        key = signify.verify_with_any(text, signature, trusted_keys())
        known = Signature.objects.filter(
            statement_digest=generation.statement_digest, public_key=key.public_key.text
        ).first()
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
        try:
            (recorded,) = store.append(
                [event], meta=context, expected={f"template:{template}": version}
            )
        except EventConflict:
            if attempt == common.ATTEMPTS - 1:
                raise
        else:
            ledger.checkpoint_after("a signature")
            return recorded
    raise AssertionError("unreachable")
