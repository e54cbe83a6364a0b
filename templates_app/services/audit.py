"""What the auditors' house reads of the log and of templates; the figures of the front page.

Elsewhere an event that this program cannot read is an error, for nobody may guess what it meant.
An auditor must see it all the same: here it is shown as it was recorded. All work is bounded: lists
are capped and say so, and what no index knows is looked for in the newest events only.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from templates_app import store, triggers
from templates_app.events import (
    EVENTS,
    Check,
    ImportFailed,
    SandboxRefused,
    from_json,
)
from templates_app.models import Binding, Event, Lease, Mention, Signature, Template
from templates_app.services import signing

#: How many of the newest events are searched by what no index knows: actor, source, request id.
WINDOW = 100_000
#: The most events that a search for a name, id, request or actor finds.
FOUND = 1_000
#: Events of the same request are looked for so many positions around the one that is shown.
NEAR = 5_000
SAME_REQUEST = 50
WEEK = datetime.timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event as the house shows it, also where this program cannot read it."""

    position: int
    event_id: uuid.UUID
    stream: str
    version: int
    type: str
    schema: int
    recorded_at: datetime.datetime
    leaf_hash: str
    sentence: str
    unreadable: str  # why it cannot be read; empty where it can
    data: dict[str, Any]  # empty where it is no JSON object
    data_text: str  # laid out for reading, or as it was recorded
    meta_text: str
    actor: str
    source: str
    request_id: str
    node: str

    @property
    def template(self) -> str:
        """The name that the event is about, if it is about one."""
        kind, _, key = self.stream.partition(":")
        name = key if kind in ("template", "launches") else self.data.get("template")
        return name if isinstance(name, str) else ""


def entry(row: Event) -> Entry:
    data, data_text = _laid_out(row.data)
    meta, meta_text = _laid_out(row.meta)
    unreadable = ""
    try:
        sentence = from_json(row.type, row.schema, data).sentence()
    except ValueError as error:
        unreadable = str(error)
        sentence = f"An event of type {row.type} that this program cannot read"
    said = {key: str(meta.get(key) or "") for key in ("actor", "source", "requestId", "node")}
    return Entry(
        position=row.position,
        event_id=row.event_id,
        stream=row.stream,
        version=row.version,
        type=row.type,
        schema=row.schema,
        recorded_at=row.recorded_at,
        leaf_hash=row.leaf_hash,
        sentence=sentence,
        unreadable=unreadable,
        data=data,
        data_text=data_text,
        meta_text=meta_text,
        actor=said["actor"],
        source=said["source"],
        request_id=said["requestId"],
        node=said["node"],
    )


def _laid_out(text: str) -> tuple[dict[str, Any], str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}, text
    pretty = json.dumps(value, indent=2, ensure_ascii=False)
    return (value if isinstance(value, dict) else {}), pretty


def pretty_statement(text: str) -> str:
    return _laid_out(text)[1]


# --- the log ------------------------------------------------------------------------------------


def floor() -> int:
    """The position after which the newest WINDOW events stand."""
    return max(store.size() - WINDOW, 0)


def recorded(*, since: datetime.datetime, until: datetime.datetime | None = None) -> Q:
    """Events recorded from ``since`` on and before ``until``, as a range of positions.

    Positions are given out in the order of recording. Where a clock was put back over a border,
    the events of the time that came twice may stand on either side of it; each shows its own time.
    """
    where = Q(position__gte=store.first_since(since))
    return where if until is None else where & Q(position__lt=store.first_since(until))


def strange_types() -> list[str]:
    """Types in the log that this program does not know: from step to step through their index."""
    found, last = [], ""
    types = Event.objects.order_by("type").values_list("type", flat=True)
    while (kind := types.filter(type__gt=last).first()) is not None:
        found.append(kind)
        last = kind
    return [kind for kind in found if kind not in EVENTS]


def said(key: str, value: str, *, whole: bool = True) -> Q:
    """Events whose meta says ``value``; among the newest WINDOW only. meta is canonical JSON."""
    needle = f'"{key}":{json.dumps(value, ensure_ascii=False)}'
    return Q(position__gt=floor(), meta__contains=needle if whole else needle[:-1])


def spoken_of(term: str) -> Q:
    """Events about a thing of this name or id, or of a request or actor; the newest FOUND of each.

    Positions are looked up first: an OR over the index of mentions and a search in texts would make
    PostgreSQL read the whole log.
    """
    about = Mention.objects.filter(kind__in=("template", "sandbox", "import", "key"), key=term)
    texts = said("requestId", term) | said("actor", term, whole=False)
    positions: set[int] = set()
    for rows in (about, Event.objects.filter(texts)):
        newest = rows.order_by("-position").values_list("position", flat=True)
        positions.update(newest[:FOUND])
    with contextlib.suppress(ValueError):  # it may be no event's id
        if (position := store.position_of(uuid.UUID(term))) is not None:
            positions.add(position)
    return Q(position__in=positions)


def naming(digest: str) -> Q:
    """Events that name the digest, or (launches) a statement that binds it."""
    keys = [digest, *statements_of(digest)]
    about = Mention.objects.filter(kind="digest", key__in=keys)
    return Q(position__in=about.values("position"))


def statements_of(digest: str) -> list[str]:
    """Digests of the statements that bind this digest of a tree or of a manifest."""
    bindings = Binding.objects.filter(digest=digest)
    return list(bindings.values_list("statement_digest", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    entries: tuple[Entry, ...]
    total: int
    further: int | None  # the position to go on from, if there are more


def timeline(*, name: str, oldest_first: bool, start: int | None, limit: int = 100) -> Timeline:
    """Every event about a name, in pages; also of a name that is destroyed."""
    about = Mention.objects.filter(kind="template", key=name)
    page = about
    if start is not None:
        page = about.filter(**{"position__gte" if oldest_first else "position__lte": start})
    order = "position" if oldest_first else "-position"
    positions = list(page.order_by(order).values_list("position", flat=True)[: limit + 1])
    rows = Event.objects.filter(position__in=positions[:limit]).order_by(order)
    return Timeline(
        entries=tuple(entry(row) for row in rows),
        total=about.count(),
        further=positions[limit] if len(positions) > limit else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    entry: Entry
    previous: int | None
    next: int | None
    same_request: tuple[Entry, ...]


def event_page(row: Event) -> EventPage:
    shown = entry(row)
    around: tuple[Entry, ...] = ()
    if shown.request_id:
        needle = f'"requestId":{json.dumps(shown.request_id, ensure_ascii=False)}'
        near = (row.position - NEAR, row.position + NEAR)
        same = Event.objects.filter(position__range=near, meta__contains=needle)
        same = same.exclude(pk=row.pk).order_by("position")[: SAME_REQUEST + 1]
        around = tuple(entry(one) for one in same)
    return EventPage(
        entry=shown,
        previous=row.position - 1 if row.position > 1 else None,
        next=row.position + 1 if row.position < store.size() else None,
        same_request=around,
    )


def checks(shown: Entry) -> tuple[Check, ...]:
    """What the gate checked, where the event is a refusal that this program can read."""
    if shown.unreadable or shown.type != SandboxRefused.type:
        return ()
    refusal = from_json(shown.type, shown.schema, shown.data)
    return refusal.checks if isinstance(refusal, SandboxRefused) else ()


# --- templates ----------------------------------------------------------------------------------


def with_signed(query: QuerySet[Template]) -> QuerySet[Any]:
    """Each row with ``signed``: a key that is trusted now signed the current statement."""
    keys = [key.public_key.text for key in signing.trusted_keys()]
    by_us = Signature.objects.filter(
        template_name=OuterRef("name"),
        statement_digest=OuterRef("current__statement_digest"),
        public_key__in=keys,
    )
    return query.annotate(signed=Exists(by_us))


def gate_is_on() -> bool:
    return bool(settings.COPPICE_REQUIRE_SIGNED_TEMPLATES == "on")


def state_word(*, missing: bool, signed: bool) -> str:
    """The one word of a template in lists. The gate's own decision is on the template's page."""
    if missing:
        return "missing"
    if signed:
        return "signed"
    return "blocked" if gate_is_on() else "unsigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The front page."""

    templates: int
    unsigned: int
    missing: int
    failed: int  # imports, in a week
    refused: int  # launches, in a week
    events: int
    last: Entry | None
    running: tuple[Lease, ...]
    gate: str
    triggers_missing: tuple[str, ...]


def figures() -> Figures:
    week = recorded(since=timezone.now() - WEEK)
    last = Event.objects.order_by("-position").first()
    judged = with_signed(Template.objects.all())
    return Figures(
        templates=judged.count(),
        unsigned=judged.filter(signed=False).count(),
        missing=Template.objects.filter(missing=True).count(),
        failed=Event.objects.filter(week, type=ImportFailed.type).count(),
        refused=Event.objects.filter(week, type=SandboxRefused.type).count(),
        events=store.size(),
        last=entry(last) if last else None,
        running=tuple(Lease.objects.order_by("started_at")[:10]),
        gate=settings.COPPICE_REQUIRE_SIGNED_TEMPLATES,
        triggers_missing=tuple(triggers.missing(connection)),
    )
