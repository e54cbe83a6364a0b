"""What events hold in lists, as tables: settings that changed, files that differ, findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from templates_app.events import (
    DomainEvent,
    EvidenceAttached,
    KeyRevoked,
    PolicyChanged,
    Reloaded,
    SignatureWithdrawn,
    Verified,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]  # each cell with its heading


def of(event: DomainEvent | None) -> list[Table]:
    """The event's lists that are not empty; none of an event that cannot be read (None)."""
    match event:
        case PolicyChanged():
            changed = ((one.name, one.before or "–", one.after or "–") for one in event.changes)
            found = [_table("What changed", ("Setting", "Before", "After"), changed)]
        case Verified():
            differing = (
                (
                    one.path,
                    one.change,
                    "; ".join(f"{f.name} {f.before or '–'} → {f.after or '–'}" for f in one.fields),
                    ", ".join(one.grave),
                )
                for one in event.differences
            )
            words = ("Path", "Change", "What", "Grave for")
            found = [_table("Files that differ, the grave ones first", words, differing)]
        case Reloaded():
            noticed = ((one.code, one.subject, one.detail) for one in event.findings)
            fixed = ((one.code, one.subject, one.done) for one in event.fixed)
            found = [
                _table("What it found", ("Finding", "About", "What was seen"), noticed),
                _table("What it repaired", ("Finding", "About", "What was done"), fixed),
            ]
        case EvidenceAttached():
            held = (
                (one.kind, one.digest, ", ".join(one.verified_by) or "nobody", one.detail)
                for one in event.items
            )
            named = ("Kind", "Digest", "Verified by", "Remark")
            found = [_table("What the registry holds", named, held)]
        case KeyRevoked() | SignatureWithdrawn():
            names = (("template", name) for name in event.templates)
            ids = (("live sandbox", name) for name in event.sandboxes)
            found = [_table("What is not signed any more", ("Kind", "Name"), (*names, *ids))]
        case _:
            found = []
    return [one for one in found if one.rows]


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    cells = [
        [(heading, cell or "–") for heading, cell in zip(headings, row, strict=True)]
        for row in rows
    ]
    return Table(title=title, headings=headings, rows=cells)
