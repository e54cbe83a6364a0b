"""Everything that only reads: lists, histories, provenance."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from templates_app import store
from templates_app.errors import DigestNotFound, SandboxNotFound, TemplateNotFound
from templates_app.events import Imported, ImportFailed, Recorded
from templates_app.models import Generation, Lease, Sandbox, Signature, Template
from templates_app.names import Digest, Platform, TemplateName
from templates_app.services import signing

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
    """A template as lists show it. ``signed``: a key that is trusted now signed its statement."""

    template: Template
    signed: bool


def templates(
    *,
    name: str | None = None,
    digest: str | None = None,
    platform: str | None = None,
    signed: bool | None = None,
) -> list[TemplateRow]:
    """All templates in name order, filtered. One query for rows and one for signatures.

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
    good = signed_statements()
    rows = [
        TemplateRow(template, (template.name, template.current.statement_digest) in good)
        for template in query
    ]
    return rows if signed is None else [row for row in rows if row.signed is signed]


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
    made = Generation.objects.get(template_name=event.template, number=event.generation)
    row = Template(
        name=event.template,
        current=made,
        snapshot=event.snapshot,
        missing=False,
        position=recorded.position,
    )
    return TemplateRow(row, (event.template, event.statement_digest) in signed_statements())


def signed_statements() -> set[tuple[str, str]]:
    """(template, statement digest) of what a key that is trusted now has signed."""
    keys = [key.public_key.text for key in signing.trusted_keys()]
    rows = Signature.objects.filter(public_key__in=keys)
    return set(rows.values_list("template_name", "statement_digest"))


def history(*, name: str, after: int, limit: int) -> list[Recorded]:
    """At most ``limit`` events about the name after a position, oldest first.

    Also of a name that is destroyed. TemplateNotFound where the log has none at all.
    """
    parsed = TemplateName.parse(name)
    events = store.about("template", parsed.text, after=after, limit=limit)
    if not events and not store.about("template", parsed.text, limit=1):
        raise TemplateNotFound(f"The log has no event about {parsed}.")
    return events


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
    events: tuple[Recorded, ...]


def digest_facts(*, digest: str) -> DigestFacts:
    text = Digest.parse(digest).text
    generations = tuple(Generation.objects.filter(has_digest(text)).order_by("position"))
    events = tuple(store.about("digest", text))
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
        events=events,
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
