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

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from templates_app import lookup, store, triggers
from templates_app.errors import CoppiceError
from templates_app.events import (
    EVENTS,
    DomainEvent,
    ImportFailed,
    SandboxRefused,
    from_json,
)
from templates_app.models import Binding, Event, Lease, Mention, Template
from templates_app.services import common, keyring, ledger, noticed

#: How many of the newest events are searched by what no index knows: actor, source, request id.
WINDOW = 100_000
#: The most events that a search for a name, id, request or actor finds.
FOUND = 1_000
#: Events of the same request are looked for so many positions around the one that is shown.
NEAR = 5_000
SAME_REQUEST = 50
#: Looks into files that are searched for the last one at a generation.
LOOKS = 50
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
    def meta(self) -> dict[str, str]:
        """As feeds have it."""
        return {
            "actor": self.actor,
            "source": self.source,
            "requestId": self.request_id,
            "node": self.node,
        }

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


def last_verified(name: str, generation: int) -> Entry | None:
    """The newest look into the files of a generation, among the last ones of its template."""
    rows = Event.objects.filter(stream=f"verifications:{name}").order_by("-version")[:LOOKS]
    return next((one for one in map(entry, rows) if one.data.get("generation") == generation), None)


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


def of_type(*types: str) -> Q:
    """Events of these types: by the index, but those that most of a log are (events/base.py)."""
    if any(kind in EVENTS and EVENTS[kind].frequent for kind in types):
        return Q(type__in=types)
    positions = Mention.objects.filter(kind="type", key__in=types).values("position")
    return Q(position__in=positions)


def strange_types() -> list[str]:
    """Types in the log that this program does not know: from step to step through their index."""
    found, last = [], ""
    types = Mention.objects.filter(kind="type").order_by("key").values_list("key", flat=True)
    while (kind := types.filter(key__gt=last).first()) is not None:
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
    about = lookup.events(("template", "sandbox", "import", "key"), [term])
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
    about = lookup.events(["template"], [name])
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


def decoded(shown: Entry) -> DomainEvent | None:
    """The event itself, where this program can read it."""
    return None if shown.unreadable else from_json(shown.type, shown.schema, shown.data)


# --- templates ----------------------------------------------------------------------------------


def judged(query: QuerySet[Template]) -> QuerySet[Any]:
    """Each row with ``signed``, as keyring has it; with ``noticed``: a finding is open; with
    ``stopped``: one that stops launches."""
    stops = noticed.blocking_rows().filter(
        template_name=OuterRef("name"), generation=OuterRef("current__number")
    )
    signed = keyring.with_signed(query, name="name", generation="current__")
    rows: QuerySet[Any] = signed.annotate(
        noticed=Exists(noticed.open_rows().filter(template_name=OuterRef("name"))),
        stopped=Exists(stops),
    )
    return rows


def enforced() -> Q:
    """Templates for which the gate is on."""
    policy = common.gate_policy()
    if policy.mode != "on":
        return Q(pk__in=())
    where = Q()
    for glob in policy.exempt:
        where &= ~Q(name__regex=glob.regex)
    return where


def state_word(row: Any) -> str:
    """The one word of a template, as :func:`judged`, in lists. The gate's own decision is on the
    template's page."""
    if row.missing:
        return "missing"
    on = common.gate_policy().mode_for(row.name) == "on"
    if on and (row.stopped or not row.signed):
        return "blocked"
    return "signed" if row.signed else "unsigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The front page."""

    templates: int
    unsigned: int
    missing: int
    findings: int  # that are open
    stopping: int  # of these, that stop launches
    failed: int  # imports, in a week
    refused: int  # launches, in a week
    events: int
    last: Entry | None
    running: tuple[Lease, ...]
    gate: str
    exempt: str  # patterns of names for which a gate that is on only warns
    triggers_missing: tuple[str, ...]
    checkpoint: ledger.Standing | None
    checkpoint_problem: str  # why that cannot be said


def figures() -> Figures:
    policy = common.gate_policy()
    week = recorded(since=timezone.now() - WEEK)
    last = Event.objects.order_by("-position").first()
    templates = judged(Template.objects.all())
    events, standing, problem = store.size(), None, ""
    try:
        standing = ledger.standing(events=events)
    except CoppiceError as error:
        problem = error.detail
    return Figures(
        templates=templates.count(),
        unsigned=templates.filter(signed=False).count(),
        missing=Template.objects.filter(missing=True).count(),
        findings=noticed.open_rows().count(),
        stopping=noticed.blocking_rows().count(),
        failed=Event.objects.filter(week, of_type(ImportFailed.type)).count(),
        refused=Event.objects.filter(week, type=SandboxRefused.type).count(),
        events=events,
        last=entry(last) if last else None,
        running=tuple(Lease.objects.order_by("started_at")[:10]),
        gate=policy.mode,
        exempt=", ".join(map(str, policy.exempt)) if policy.mode == "on" else "",
        triggers_missing=tuple(triggers.missing(connection)),
        checkpoint=standing,
        checkpoint_problem=problem,
    )
