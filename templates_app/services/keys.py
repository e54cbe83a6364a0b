"""Keys: trust one, revoke one, and what a revocation would change, before it does."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from templates_app import store
from templates_app.errors import (
    Conflict,
    KeyAlreadyRevoked,
    KeyExists,
    KeyNotFound,
    KeyUnfit,
    MalformedName,
    MalformedRequest,
    SignatureRejected,
)
from templates_app.events import KeyRevoked, KeyTrusted, Meta, Recorded
from templates_app.models import Key, Signature
from templates_app.names import NameGlob, quote
from templates_app.services import keyring, ledger, ledger_files, revocation
from templates_app.trust import signify, succession
from templates_app.trust.keyring import KnownKey, Revocation, stamp

TEMPLATES = "templates"  # the one purpose that a key is trusted for here
REASONS = ("superseded", "compromised")
STATES = ("trusted", "early", "expired", *REASONS)
MOST_PATTERNS = 20
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")  # that of a file without its .pub
_NUMBER = re.compile(r"[0-9a-f]{16}")
#: Text of people: no control characters, line ends, or halves of pairs, which nothing can write.
LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,500}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """A key as lists show it. ``row`` is None where the directory alone knows it."""

    key: KnownKey
    row: Key | None
    in_directory: bool
    signatures: int  # stored ones, whether they count or not
    state: str  # one of STATES

    @property
    def revoked(self) -> Key | None:
        """The row, where it has a revocation."""
        return self.row if self.row is not None and self.row.revoked_position is not None else None


def every() -> list[KeyFacts]:
    """All that are known, by label."""
    rows = Key.objects.in_bulk()
    files = {one.public_key.text for one in keyring.in_directory()}
    made: dict[str, int] = {}
    for text in Signature.objects.values_list("public_key", flat=True):
        made[text] = made.get(text, 0) + 1
    now = timezone.now()
    return [
        KeyFacts(
            key=key,
            row=rows.get(key.public_key.text),
            in_directory=key.public_key.text in files,
            signatures=made.get(key.public_key.text, 0),
            state=_state(key, now),
        )
        for key in keyring.every()
    ]


def _state(key: KnownKey, now: datetime.datetime) -> str:
    if key.revocation is not None:
        return key.revocation.reason
    if not key.outside_dates(now):
        return "trusted"
    return "early" if key.not_before is not None and now < key.not_before else "expired"


def find(*, key: str) -> KeyFacts:
    """The one of this number or label. KeyNotFound; Conflict where two have it."""
    found = [one for one in every() if key in (one.key.label, one.key.public_key.key_id)]
    if not found:
        raise KeyNotFound(f"No key has the number or label {quote(key)}.")
    if len(found) > 1:
        named = ", ".join(one.key.named for one in found)
        raise Conflict(
            f"{quote(key)} is {named}.",
            hint="Name it by the other of number and label; or rename its .pub file.",
        )
    return found[0]


# --- trust --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a key is to be trusted for. Moments are UTC; an empty scope is every name."""

    public_key: str  # the .pub file
    label: str
    owner: str
    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    scope: Sequence[str] = ()
    predecessor: str | None = None  # number or label
    announcement: str | None = None  # the predecessor's .sig file


def trust(*, wanted: Wanted, context: Meta) -> Recorded:
    """The key's signatures count; or, where it is trusted already, count within these limits.

    Idempotent. With ``predecessor`` the announcement must be that key's signature over the text of
    trust/succession.py, and it must be one that may sign now. Raises KeyMalformed, KeyUnfit,
    KeyExists, KeyAlreadyRevoked, KeyNotFound, SignatureMalformed, SignatureRejected, MalformedName.
    """
    public = signify.PublicKey.parse(wanted.public_key)
    scope = _fit(wanted, public)
    announced = _announced(wanted, public)
    event = KeyTrusted(
        key_id=public.key_id,
        label=wanted.label,
        public_key=public.text,
        owner=wanted.owner,
        purpose=TEMPLATES,
        not_before=stamp(wanted.not_before) if wanted.not_before else None,
        not_after=stamp(wanted.not_after) if wanted.not_after else None,
        scope=scope,
        predecessor=announced,
        announcement=wanted.announcement if announced else None,
    )
    with transaction.atomic():
        store.lock()  # of two keys with one label at once, the second must see the first
        _unlike_others(event)
        row = Key.objects.filter(pk=public.text).first()
        if row is not None and row.revoked_position is not None:
            raise KeyAlreadyRevoked(
                f"Key {row} was revoked ({row.revoked_reason}).",
                hint="A key that was revoked is never trusted again: make a new one.",
            )
        if row is not None and row.trusted_position is not None:
            recorded = store.at(row.trusted_position)
            if recorded.event == event:
                return recorded
        (recorded,) = store.append([event], meta=context)
    ledger.checkpoint_after("a key that was trusted")
    return recorded


def _fit(wanted: Wanted, public: signify.PublicKey) -> tuple[str, ...]:
    """The scope, sorted. KeyUnfit, MalformedName where something of it may not be."""
    if not LABEL.fullmatch(wanted.label) or _NUMBER.fullmatch(wanted.label):
        raise MalformedName(
            f"{quote(wanted.label)} is not a label of a key.",
            hint="1 to 64 of A-Z a-z 0-9 . _ @ + -, and not 16 hexadecimal digits.",
        )
    if not wanted.owner.strip() or not LINE.fullmatch(wanted.owner) or len(wanted.owner) > 150:
        raise MalformedRequest("The owner must be one line of 1 to 150 characters.")
    first, last = wanted.not_before, wanted.not_after
    if first and last and last <= first:
        raise KeyUnfit("The key would be trusted never: its last moment is not after its first.")
    if last and last <= timezone.now():
        raise KeyUnfit(f"The key would be trusted never: {stamp(last)} is past.")
    if len(wanted.scope) > MOST_PATTERNS:
        raise KeyUnfit(f"A key's scope has at most {MOST_PATTERNS} patterns.")
    # By the key itself: its number is a hint that no signature covers (trust.md section 2).
    if public.ed25519 in {key.ed25519 for key in ledger_files.public_keys()}:
        raise KeyUnfit(
            "This is the key of the log.",
            hint="Make another one for templates: a key that signs both could be made to"
            " sign the one as the other.",
        )
    return tuple(sorted({NameGlob.parse(one).text for one in wanted.scope})) or ("*",)


def _announced(wanted: Wanted, public: signify.PublicKey) -> str | None:
    """The predecessor's public key, after a look at what it has signed."""
    if wanted.predecessor is None and wanted.announcement is None:
        return None
    if wanted.predecessor is None or wanted.announcement is None:
        raise MalformedRequest("A predecessor and its announcement go together.")
    before = find(key=wanted.predecessor)
    if before.state != "trusted" or not before.key.trusted:
        raise KeyUnfit(f"{before.key.named} may announce no key: it is not trusted now.")
    text = succession.text(predecessor=before.key.public_key, successor=public)
    try:
        before.key.public_key.verify(text, wanted.announcement)
    except SignatureRejected as rejected:
        hint = "Sign the exact bytes of: coppice key announcement NEW.pub --predecessor OLD.pub"
        raise type(rejected)(f"The announcement: {rejected.detail}", hint=hint) from rejected
    return before.key.public_key.text


def _unlike_others(event: KeyTrusted) -> None:
    for other in keyring.every():
        if other.public_key.text == event.public_key:
            continue
        if other.public_key.ed25519 == signify.PublicKey.from_text(event.public_key).ed25519:
            raise KeyExists(
                f"{other.named} is the same key under another number.",
                hint="What one of them signed or is revoked for, the other would be, too: make a"
                " new key.",
            )
        if event.label == other.label or event.key_id == other.public_key.key_id:
            raise KeyExists(f"{other.named} is another key.", hint="Take another label.")


# --- revoke -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """``recorded`` is None for a dry run."""

    key: KnownKey
    reason: str
    since: int
    radius: revocation.Radius
    recorded: Recorded | None


def revoke(
    *,
    key: str,
    reason: str,
    since: int | None = None,
    note: str = "",
    dry_run: bool = False,
    context: Meta,
) -> Revoked:
    """No signature by this key counts that was recorded at ``since`` or later, in any process.

    ``superseded`` counts from now; ``compromised`` from ``since``, or for all where nothing is
    said. A key that is revoked can be revoked once more, from an earlier position. The event has
    what it changed; ``dry_run`` finds the same, and changes nothing.

    Raises KeyNotFound, KeyAlreadyRevoked, MalformedRequest, Conflict.
    """
    if reason not in REASONS:
        raise MalformedRequest(f"The reason must be one of {', '.join(REASONS)}.")
    if not LINE.fullmatch(note):
        raise MalformedRequest("The note must be one line of at most 500 characters.")
    if reason == "superseded" and since is not None:
        raise MalformedRequest("A superseded key counts for all that it has signed until now.")
    with transaction.atomic():
        store.lock()  # what is told is what is done: nothing is signed or launched between
        found = find(key=key).key
        position = store.size() + 1
        first = position if reason == "superseded" else max(since or 1, 1)
        if first > position:
            raise MalformedRequest(f"The log has no position {first}: the next one is {position}.")
        if found.revocation is not None and first >= found.revocation.since:
            raise KeyAlreadyRevoked(
                f"{found.named} is revoked ({found.revocation.reason}) for what was signed at"
                f" position {found.revocation.since} or later."
            )
        revoked = Revocation(reason=reason, since=first)
        radius = revocation.of_revocation(found, revoked)
        recorded = None
        if not dry_run:
            event = KeyRevoked(
                key_id=found.public_key.key_id,
                label=found.label,
                public_key=found.public_key.text,
                reason=reason,
                since=None if reason == "superseded" else first,
                note=note,
                templates=tuple(one.template for one in radius.templates),
                sandboxes=tuple(one.id for one in radius.sandboxes),
            )
            (recorded,) = store.append([event], meta=context)
    if recorded is not None:
        ledger.checkpoint_after("a revocation")
    return Revoked(key=found, reason=reason, since=first, radius=radius, recorded=recorded)
