"""Findings as they are read: which are open, what they touch, what they stop."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import QuerySet

from templates_app import sql
from templates_app.events import Finding as Seen
from templates_app.findings import BLOCKING
from templates_app.gate import OpenFinding
from templates_app.models import Finding
from templates_app.names import TemplateName


def open_rows() -> QuerySet[Finding]:
    return Finding.objects.filter(cleared_position__isnull=True)


def blocking_rows() -> QuerySet[Finding]:
    """Those that stop launches of the generation that they touch."""
    return open_rows().filter(code__in=BLOCKING, generation__isnull=False)


def findings(*, template: str | None = None) -> list[Finding]:
    """The open ones, the newest first; with ``template`` those that touch it. MalformedName."""
    rows = open_rows()
    if template is not None:
        rows = rows.filter(template_name=TemplateName.parse(template).text)
    return list(rows)


def by_template(name: str | None = None) -> dict[str, list[Finding]]:
    """The open ones of each template that has some, or of the one called ``name``."""
    rows = open_rows()
    found: dict[str, list[Finding]] = {}
    for row in rows.exclude(template_name="") if name is None else rows.filter(template_name=name):
        found.setdefault(row.template_name, []).append(row)
    return found


def stops(rows: Iterable[Finding], generation: int) -> bool:
    """Whether one of these findings stops launches of the generation."""
    return any(row.generation == generation and row.code in BLOCKING for row in rows)


def again(row: Finding) -> Seen:
    """As an event says it that did not look there, so that it stays open."""
    return Seen(
        code=row.code,
        subject=row.subject,
        detail=row.detail,
        template=row.template_name or None,
        generation=row.generation,
    )


def touching(template: str, generation: int) -> list[OpenFinding]:
    """What the gate is told about a generation."""
    found = sql.rows(
        "SELECT code, subject, detail, position FROM templates_app_finding"
        " WHERE cleared_position IS NULL AND template_name = %s AND generation = %s"
        " ORDER BY position DESC, id",
        [template, generation],
    )
    return [
        OpenFinding(code=code, subject=subject, detail=detail, position=position)
        for code, subject, detail, position in found
    ]


def touching_all() -> dict[tuple[str, int | None], list[OpenFinding]]:
    """The same of each (template, generation) that there is one about."""
    found: dict[tuple[str, int | None], list[OpenFinding]] = {}
    for row in open_rows().exclude(template_name=""):
        found.setdefault((row.template_name, row.generation), []).append(_told(row))
    return found


def _told(row: Finding) -> OpenFinding:
    return OpenFinding(code=row.code, subject=row.subject, detail=row.detail, position=row.position)
