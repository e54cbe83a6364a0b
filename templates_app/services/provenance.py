"""Where a digest came from and what became of it: everything that the log knows of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Max, QuerySet

from templates_app.errors import DigestNotFound
from templates_app.events import (
    Attached,
    EvidenceAttached,
    Imported,
    ImportFailed,
    Reloaded,
    SandboxCreated,
    SandboxRefused,
)
from templates_app.models import Event, Generation, Mention, Sandbox, Signature
from templates_app.names import Digest
from templates_app.services.audit import Entry, entry, statements_of
from templates_app.services.queries import KINDS, attached_to, has_digest, readable

#: The most rows of one kind on a page of provenance.
CAP = 200
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
    attached: tuple[Attached, ...]  # what registries hold about it
    events: tuple[Entry, ...]
    total: int  # events altogether
    cap: int = CAP


def provenance(*, digest: Digest) -> Provenance:
    """Everything that is known of a digest, also of one that only failed or is destroyed.

    Launches and refusals name the statement, not every digest that it binds: so what happened to a
    generation with this digest is found by the generation's statement.
    """
    text = digest.text
    generations = tuple(Generation.objects.filter(has_digest(text)).order_by("-position")[:CAP])
    statements = {generation.statement_digest for generation in generations}
    statements |= set(statements_of(text))  # of generations that others took the place of, too
    mentions = Mention.objects.filter(kind="digest", key__in=[text, *sorted(statements)])
    about = Event.objects.filter(position__in=mentions.values("position")).order_by("-position")
    events = tuple(entry(row) for row in about[:CAP])
    if not events and not generations:
        raise DigestNotFound(f"The log has no event about {text}.")
    imports = tuple(
        entry(row)
        for row in about.filter(type__in=(Imported.type, ImportFailed.type, Reloaded.type))[:CAP]
    )
    kinds = {k for k in KINDS if any(getattr(g, f"{k}_digest") == text for g in generations)}
    for one in (*events, *imports):
        kinds |= {kind for kind, found in digests_in(one.data) if found == text}
    names = {g.template_name for g in generations}
    names |= {one.template for one in (*events, *imports) if one.template}
    found = list(about.filter(type=EvidenceAttached.type)[:CAP])
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
        attached=attached_to(text, readable(reversed(found))),
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
