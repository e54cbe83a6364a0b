"""What the auditors' house reads: the log, a digest's provenance, the figures of the front page.

Elsewhere an event that this program cannot read is an error, for nobody may guess what it meant.
An auditor must see it all the same: here it is shown as it was recorded. All work is bounded: lists
are capped and say so, and what no index knows is looked for in the newest events only.
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from templates_app import store, triggers
from templates_app.errors import DigestNotFound
from templates_app.events import Imported, ImportFailed, SandboxCreated, SandboxRefused, from_json
from templates_app.models import Event, Generation, Lease, Mention, Sandbox, Signature, Template
from templates_app.names import Digest
from templates_app.services import signing

#: How many of the newest events are searched by what no index knows: actor, source, request id.
WINDOW = 100_000
#: Events of the same request are looked for so many positions around the one that is shown.
NEAR = 5_000
SAME_REQUEST = 50
#: The most rows of one kind on a page of provenance.
CAP = 200
WEEK = datetime.timedelta(days=7)

_KINDS = {
    "index": "index",
    "manifest": "manifest",
    "config": "config",
    "manifestDigest": "manifest",
    "treeDigest": "tree",
    "statementDigest": "statement",
    "digest": "manifest",
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
KINDS = ("index", "manifest", "config", "tree", "statement")


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


def since(at: datetime.datetime) -> Q:
    """Events recorded from ``at`` on, found by two indexes instead of a scan."""
    first = (
        Event.objects.filter(recorded_at__gte=at)
        .order_by("recorded_at")
        .values_list("position", flat=True)
        .first()
    )
    return Q(pk__in=[]) if first is None else Q(position__gte=first, recorded_at__gte=at)


def said(key: str, value: str, *, whole: bool = True) -> Q:
    """Events whose meta says ``value``; among the newest WINDOW only. meta is canonical JSON."""
    needle = f'"{key}":{json.dumps(value, ensure_ascii=False)}'
    return Q(position__gt=floor(), meta__contains=needle if whole else needle[:-1])


def mentioned(key: str, *kinds: str) -> Q:
    """Events about the thing, by the index of mentions."""
    found = Mention.objects.filter(kind__in=kinds, key=key).values("position")
    return Q(position__in=found)


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
    week = since(timezone.now() - WEEK)
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


# --- digests ------------------------------------------------------------------------------------


def parse_digest(text: str) -> Digest:
    """A digest as people paste it: with or without ``sha256:``. MalformedDigest for all else."""
    plain = text.strip().lower()
    return Digest.parse(plain if plain.startswith("sha256:") else f"sha256:{plain}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A sandbox and the event that launched it. An id may be used again once it is destroyed."""

    entry: Entry
    sandbox: str
    generation: int
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a digest came from and what became of it."""

    digest: str
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    generations: tuple[Generation, ...]
    imports: tuple[Entry, ...]  # also adoptions, and those that failed
    signatures: tuple[Signature, ...]
    launches: tuple[Launch, ...]
    refusals: tuple[Entry, ...]
    events: tuple[Entry, ...]
    total: int  # events altogether
    cap: int = CAP


def provenance(*, digest: Digest) -> Provenance:
    """Everything that is known of a digest, also of one that only failed or is destroyed.

    Launches and refusals name the statement, not every digest that it binds: so what happened to a
    generation with this digest is found by the generation's statement.
    """
    text = digest.text
    where = Q()
    for kind in KINDS:
        where |= Q(**{f"{kind}_digest": text})
    generations = tuple(Generation.objects.filter(where).order_by("-position")[:CAP])
    statements = {generation.statement_digest for generation in generations}
    mentions = Mention.objects.filter(kind="digest", key__in=[text, *sorted(statements)])
    about = Event.objects.filter(position__in=mentions.values("position")).order_by("-position")
    events = tuple(entry(row) for row in about[:CAP])
    if not events and not generations:
        raise DigestNotFound(f"The log has no event about {text}.")
    imports = tuple(
        entry(row)
        for row in about.filter(type__in=(Imported.type, ImportFailed.type, "reloaded"))[:CAP]
    )
    kinds = {k for k in KINDS if any(getattr(g, f"{k}_digest") == text for g in generations)}
    for one in (*events, *imports):
        kinds |= {kind for kind, found in digests_in(one.data) if found == text}
    names = {g.template_name for g in generations}
    names |= {one.template for one in (*events, *imports) if one.template}
    launched = [entry(row) for row in about.filter(type=SandboxCreated.type)[:CAP]]
    return Provenance(
        digest=text,
        kinds=tuple(kind for kind in KINDS if kind in kinds),
        names=tuple(sorted(names)),
        generations=generations,
        imports=imports,
        signatures=tuple(
            Signature.objects.filter(statement_digest__in={*statements, text}).order_by(
                "-position"
            )[:CAP]
        ),
        launches=tuple(_launches(launched)),
        refusals=tuple(entry(row) for row in about.filter(type=SandboxRefused.type)[:CAP]),
        events=events,
        total=mentions.values("position").distinct().count(),
    )


def digests_in(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(kind, digest) of what a payload names, by the keys that they stand under."""
    if depth > 8:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if key in _KINDS and isinstance(item, str) and _DIGEST.fullmatch(item):
            yield _KINDS[key], item
        elif isinstance(item, (dict, list)):
            yield from digests_in(item, depth + 1)


def _launches(created: Iterable[Entry]) -> Iterator[Launch]:
    listed = list(created)
    rows = Sandbox.objects.in_bulk([str(one.data.get("sandbox")) for one in listed])
    for one in listed:
        sandbox, generation = str(one.data.get("sandbox")), one.data.get("generation")
        row = rows.get(sandbox)
        live = row is not None and row.destroyed_at is None and row.position == one.position
        number = generation if isinstance(generation, int) else 0
        yield Launch(entry=one, sandbox=sandbox, generation=number, live=live)


def manifest_digests() -> QuerySet[Any, Any]:
    """Each manifest digest with when it was last imported, newest first."""
    return (
        Generation.objects.exclude(manifest_digest="")
        .values("manifest_digest")
        .annotate(last=Max("imported_at"))
        .order_by("-last", "manifest_digest")
    )


def generations_of(manifests: Iterable[str]) -> dict[str, list[Generation]]:
    """The generations that have each of these manifest digests."""
    found: dict[str, list[Generation]] = {digest: [] for digest in manifests}
    rows = Generation.objects.filter(manifest_digest__in=list(found)).defer("statement")
    for row in rows.order_by("template_name", "number"):
        found[row.manifest_digest].append(row)
    return found
