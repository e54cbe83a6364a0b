"""Everything that only reads: lists, histories, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from templates_app import lookup, store
from templates_app.codec import PayloadInvalid
from templates_app.errors import DigestNotFound, SandboxNotFound, TemplateNotFound
from templates_app.events import (
    Attached,
    DomainEvent,
    EvidenceAttached,
    Imported,
    ImportFailed,
    Recorded,
)
from templates_app.models import Event, Finding, Generation, Lease, Sandbox, Signature, Template
from templates_app.names import Digest, Platform, TemplateName
from templates_app.services import audit, keyring, noticed

#: An event as feeds give it.
Told = Recorded | audit.Entry

#: What a digest of a generation can be one of.
KINDS = ("index", "manifest", "config", "tree", "statement")


def has_digest(text: str, *, through: str = "") -> Q:
    """Generations with this digest, of whatever kind; ``through`` leads to the generation."""
    where = Q()
    for kind in KINDS:
        where |= Q(**{f"{through}{kind}_digest": text})
    return where


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A template as lists show it. ``signed``: a key that is trusted now signed its statement.

    ``findings`` are open; ``stopped``: one of them stops launches of the current generation.
    """

    template: Template
    signed: bool
    findings: list[Finding]
    stopped: bool


def templates(
    *,
    name: str | None = None,
    digest: str | None = None,
    platform: str | None = None,
    signed: bool | None = None,
) -> list[TemplateRow]:
    """All templates in name order, filtered. One query for rows and one for findings.

    Raises MalformedName, MalformedReference (platform), MalformedDigest.
    """
    query = Template.objects.select_related("current").order_by("name")
    if name is not None:
        query = query.filter(name=TemplateName.parse(name).text)
    if platform is not None:
        query = query.filter(current__platform=str(Platform.parse(platform)))
    if digest is not None:
        text = Digest.parse(digest).text
        query = query.filter(
            Q(current__index_digest=text)
            | Q(current__manifest_digest=text)
            | Q(current__config_digest=text)
            | Q(current__tree_digest=text)
        )
    judged = keyring.with_signed(query, name="name", generation="current__")
    if signed is not None:
        judged = judged.filter(signed=signed)
    open_findings = noticed.by_template(name)
    return [
        _row(template, template.signed, open_findings.get(template.name, [])) for template in judged
    ]


def _row(template: Template, signed: bool, found: list[Finding]) -> TemplateRow:
    return TemplateRow(
        template=template,
        signed=signed,
        findings=found,
        stopped=noticed.stops(found, template.current.number),
    )


def template(*, name: str) -> TemplateRow:
    parsed = TemplateName.parse(name)
    rows = templates(name=parsed.text)
    if not rows:
        raise TemplateNotFound(f"There is no template {parsed}.")
    return rows[0]


def outcome(recorded: Recorded) -> TemplateRow:
    """The template as an import's event left it, whatever has become of it since."""
    event = recorded.event
    if not isinstance(event, Imported):
        raise TypeError(f"{recorded.type} has no outcome")
    generations = Generation.objects.filter(template_name=event.template, number=event.generation)
    made = keyring.with_signed(generations, name="template_name", generation="").get()
    row = Template(
        name=event.template,
        current=made,
        snapshot=event.snapshot,
        missing=False,
        position=recorded.position,
    )
    found = noticed.by_template(event.template).get(event.template, [])
    return _row(row, made.signed, found)


def feed(*, after: int, limit: int) -> list[Told]:
    """At most ``limit`` events after a position, in commit order."""
    try:
        return list(store.read(after=after, limit=limit))
    except PayloadInvalid:
        return _as_recorded(Event.objects.all(), after, limit)


def history(*, name: str, after: int, limit: int) -> list[Told]:
    """At most ``limit`` events about the name after a position, oldest first.

    Also of a name that is destroyed. TemplateNotFound where the log has none at all.
    """
    parsed = TemplateName.parse(name)
    about = lookup.events(["template"], [parsed.text])
    try:
        events: list[Told] = [*store.about("template", parsed.text, after=after, limit=limit)]
    except PayloadInvalid:
        events = _as_recorded(about, after, limit)
    if not events and not about.exists():
        raise TemplateNotFound(f"The log has no event about {parsed}.")
    return events


def _as_recorded(rows: QuerySet[Event], after: int, limit: int | None) -> list[Told]:
    """Where one of them cannot be read (a newer program wrote it), all as the auditors see them."""
    found = rows.filter(position__gt=after).order_by("position")[:limit]
    return [audit.entry(row) for row in found]


def signatures(*, statement_digest: str) -> list[Signature]:
    return list(Signature.objects.filter(statement_digest=statement_digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestFacts:
    """Everything that the log knows of one digest."""

    digest: str
    kinds: tuple[str, ...]  # index, manifest, config, tree, statement
    generations: tuple[Generation, ...]
    signatures: tuple[Signature, ...]
    sandboxes: tuple[Sandbox, ...]
    attached: tuple[Attached, ...]  # what registries were last found to hold about it
    events: tuple[Told, ...]


def readable(rows: Iterable[Event]) -> Iterator[DomainEvent]:
    """One that this program cannot read is passed over; feeds have it as it was recorded."""
    for row in rows:
        try:
            yield store.at(row.position).event
        except PayloadInvalid:
            continue


def attached_to(digest: str, events: Iterable[DomainEvent]) -> tuple[Attached, ...]:
    """Of what these events found, oldest first, the last of each generation, about the digest."""
    last = {
        (one.template, one.generation): one.items
        for one in events
        if isinstance(one, EvidenceAttached)
    }
    items = {one.digest: one for found in last.values() for one in found}
    of_it = [one for one in items.values() if digest in (one.subject, one.digest)]
    return tuple(sorted(of_it, key=lambda one: (one.kind, one.digest)))


def digest_facts(*, digest: str) -> DigestFacts:
    text = Digest.parse(digest).text
    generations = tuple(Generation.objects.filter(has_digest(text)).order_by("position"))
    events: list[Told]
    said: Iterable[DomainEvent]
    try:
        known = store.about("digest", text)
        events, said = [*known], (one.event for one in known)
    except PayloadInvalid:
        about = lookup.events(["digest"], [text, *audit.statements_of(text)])
        events = _as_recorded(about, 0, None)
        said = readable(about.filter(type=EvidenceAttached.type).order_by("position"))
    if not events:
        raise DigestNotFound(f"The log has no event about {text}.")
    statements = {generation.statement_digest for generation in generations}
    launched = Q()
    for generation in generations:
        launched |= Q(template_name=generation.template_name, generation=generation.number)
    return DigestFacts(
        digest=text,
        kinds=tuple(
            kind for kind in KINDS if any(getattr(g, f"{kind}_digest") == text for g in generations)
        ),
        generations=generations,
        signatures=tuple(Signature.objects.filter(statement_digest__in=statements)),
        sandboxes=tuple(Sandbox.objects.filter(launched)) if generations else (),
        attached=attached_to(text, said),
        events=tuple(events),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStatus:
    """A running import from its lease, or else the last one that ended from the log."""

    state: str  # running, imported, failed
    lease: Lease | None
    ended: Recorded | None


def import_status(*, name: str) -> ImportStatus:
    parsed = TemplateName.parse(name)
    lease = Lease.objects.filter(pk=parsed.text).first()
    if lease is not None:
        return ImportStatus(state="running", lease=lease, ended=None)
    types = (Imported.type, ImportFailed.type)
    ended = store.about("template", parsed.text, types=types, newest_first=True, limit=1)
    if not ended:
        raise TemplateNotFound(f"Nothing was ever imported as {parsed}.")
    state = "imported" if ended[0].type == Imported.type else "failed"
    return ImportStatus(state=state, lease=None, ended=ended[0])


def sandboxes(*, template: str | None = None) -> list[Sandbox]:
    """The live ones, oldest first. MalformedName."""
    rows = Sandbox.objects.filter(destroyed_at__isnull=True)
    if template is not None:
        rows = rows.filter(template_name=TemplateName.parse(template).text)
    return list(rows)


def sandbox(*, sandbox_id: str) -> Sandbox:
    """A live one. MalformedName (its id is written like one), SandboxNotFound."""
    parsed = TemplateName.parse(sandbox_id)
    row = Sandbox.objects.filter(pk=parsed.text, destroyed_at__isnull=True).first()
    if row is None:
        raise SandboxNotFound(f"There is no live sandbox {parsed}.")
    return row
