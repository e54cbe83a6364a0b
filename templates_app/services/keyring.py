"""Which keys there are, and which signatures count now: from the log and the directory together.

An event that trusts a key decides for it, whatever the directory says of the same key. A key that
is in the directory alone is trusted without limits. A revocation beats both. Nothing is cached but
what an unchanged file says, so a revocation counts in every process from its commit on.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThanOrEqual
from django.utils import timezone

from templates_app import gate, sql
from templates_app.models import Key, Signature
from templates_app.names import NameGlob
from templates_app.services import common
from templates_app.trust import signify, trusted
from templates_app.trust.keyring import EVERY, KnownKey, Revocation


def in_directory() -> list[signify.TrustedKey]:
    """Read at each use, so that a file that is taken away is gone at once."""
    return trusted.load_trusted(settings.COPPICE_TRUSTED_KEYS)


def every() -> list[KnownKey]:
    """All keys that are known here, trusted or revoked, by label."""
    return known(None)


def known(public_keys: Iterable[str] | None) -> list[KnownKey]:
    """Those of these keys that are known here (None: of all), by label."""
    wanted = None if public_keys is None else set(public_keys)
    rows: Iterable[Key] = Key.objects.all() if wanted is None else _rows(wanted)
    read = list(rows)
    by_text = {row.public_key: row for row in read if wanted is None or row.public_key in wanted}
    settled = {text for text, row in by_text.items() if row.trusted_position is not None}
    files = {}
    if wanted is None or wanted - settled:
        files = {one.public_key.text: one for one in in_directory()}
    found = [of_row(row, in_directory=text in files) for text, row in by_text.items()]
    found += [
        KnownKey(label=one.label, public_key=one.public_key, trusted=True)
        for text, one in files.items()
        if text not in by_text and (wanted is None or text in wanted)
    ]
    revoked = _revoked(read)
    found = [
        replace(key, revocation=key.revocation or revoked.get(key.public_key.ed25519))
        for key in found
    ]
    return sorted(found, key=lambda key: (key.label, key.public_key.text))


def _revoked(rows: Iterable[Key]) -> dict[bytes, Revocation]:
    """By the key itself, since its number is a hint that no signature covers: under another one,
    in the directory or in an old log, it is the same key."""
    known = [of_row(row, in_directory=False) for row in rows if row.revoked_since is not None]
    return {key.public_key.ed25519: key.revocation for key in known if key.revocation}


def _rows(public_keys: set[str]) -> list[Key]:
    """Those with these public keys, and all that are revoked: what :func:`of_row` looks at."""
    marks = ", ".join(["%s"] * len(public_keys)) or "NULL"
    found = sql.rows(
        f"SELECT {', '.join(_LOOKED_AT)} FROM templates_app_key"  # noqa: S608
        f" WHERE public_key IN ({marks}) OR revoked_since IS NOT NULL",
        list(public_keys),
    )
    keys = [Key(**dict(zip(_LOOKED_AT, row, strict=True))) for row in found]
    for key in keys:
        key.scope = json.loads(str(key.scope))
        key.not_before, key.not_after = _moment(key.not_before), _moment(key.not_after)
    return keys


_LOOKED_AT = (
    "public_key",
    "label",
    "not_before",
    "not_after",
    "scope",
    "trusted_position",
    "revoked_since",
    "revoked_reason",
)


def _moment(stored: datetime.datetime | None) -> datetime.datetime | None:
    """SQLite's are in UTC without saying so."""
    if stored is None or stored.tzinfo is not None:
        return stored
    return stored.replace(tzinfo=datetime.UTC)


def of_row(row: Key, *, in_directory: bool) -> KnownKey:
    revoked = row.revoked_since
    return KnownKey(
        label=row.label,
        public_key=signify.PublicKey.from_text(row.public_key),
        trusted=row.trusted_position is not None or in_directory,
        not_before=row.not_before,
        not_after=row.not_after,
        scope=tuple(NameGlob(text) for text in row.scope) if row.scope != ["*"] else EVERY,
        revocation=None
        if revoked is None
        else Revocation(reason=row.revoked_reason, since=revoked),
    )


def signatures(template: str, statement_digest: str) -> list[gate.StoredSignature]:
    """Those over a statement, in the order in which they were handed in."""
    found = sql.rows(
        f"SELECT {', '.join(_SIGNED.values())} FROM templates_app_signature"  # noqa: S608
        " WHERE template_name = %s AND statement_digest = %s ORDER BY position",
        [template, statement_digest],
    )
    return [gate.StoredSignature(**dict(zip(_SIGNED, row, strict=True))) for row in found]


def stored(row: Signature) -> gate.StoredSignature:
    """As the gate looks at it."""
    return gate.StoredSignature(**{name: getattr(row, of) for name, of in _SIGNED.items()})


#: What the gate looks at -> its column.
_SIGNED = {
    "key_id": "key_id",
    "key_label": "key_label",
    "public_key": "public_key",
    "signature": "signature",
    "position": "position",
    "signed_by": "signed_by",
    "withdrawn": "withdrawn_position",
}


# --- for lists: which statements are signed, without looking at each signature ------------------


def counting() -> Q:
    """Signatures that stand, and count now by their keys. Whether they verify, the gate asks."""
    now = timezone.now()
    where = Q(pk__in=())
    plain = []
    for key in every():
        text = key.public_key.text
        if not key.trusted or key.outside_dates(now):
            continue
        if key.revocation is None and key.scope == EVERY:
            plain.append(text)
            continue
        one = Q(public_key=text)
        if key.revocation is not None:
            one &= Q(position__lt=key.revocation.since)
        if key.scope != EVERY:
            names = Q()
            for glob in key.scope:
                names |= Q(template_name__regex=glob.regex)
            one &= names
        where |= one
    if plain:
        where |= Q(public_key__in=plain)
    return where & Q(withdrawn_position__isnull=True)


def with_signed(rows: QuerySet[Any], *, name: str, generation: str) -> QuerySet[Any]:
    """Each row with ``signed``: signatures that count now are over its generation's statement.

    ``name`` is the column of the template's name, ``generation`` the way to the generation.
    """
    policy = common.gate_policy()
    good = Signature.objects.filter(
        counting(),
        template_name=OuterRef(name),
        statement_digest=OuterRef(f"{generation}statement_digest"),
    )
    if policy.two_persons:
        good = good.exclude(signed_by=OuterRef(f"{generation}imported_by"))
    signed: Any = Exists(good)
    if policy.signatures > 1:
        count = good.order_by().values("statement_digest").annotate(keys=Count("public_key"))
        found = Coalesce(Subquery(count.values("keys")), 0)
        signed = GreaterThanOrEqual(found, policy.signatures)
    judged: QuerySet[Any] = rows.annotate(signed=signed)
    return judged
