"""Events -> rows of findings: opened by what sees them, cleared by what no longer does."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.db.models import QuerySet

from templates_app import findings
from templates_app.events import Finding as Seen
from templates_app.events import Recorded
from templates_app.models import Finding


def _open() -> QuerySet[Finding]:
    return Finding.objects.filter(cleared_position__isnull=True)


def compared(seen: Iterable[Seen], one: Recorded, *, deep: bool) -> None:
    """Pool and log were compared: ``seen`` are all that there are.

    Without ``deep`` no file was looked into: what only that finds is neither seen nor cleared.
    """
    seen = list(seen)
    looked_for = _open() if deep else _open().exclude(code__in=findings.DEEP)
    for found in seen:
        if found.code == "not_verified":  # what was wrong with its files may be wrong still
            looked_for = looked_for.exclude(
                code="tree_changed",
                template_name=found.template or "",
                generation=found.generation,
            )
    _replace(looked_for, seen, one)


def looked_into(template: str, generation: int, seen: Iterable[Seen], one: Recorded) -> None:
    """The files of one generation were looked into: ``seen`` is all that is wrong with them."""
    touched = _open().filter(template_name=template, generation=generation)
    _replace(touched.filter(code__in=findings.DEEP), seen, one)


def not_looked_into(template: str, generation: int, seen: Iterable[Seen], one: Recorded) -> None:
    """They could not be read: what was wrong with them may still be, and goes on to count."""
    touched = _open().filter(template_name=template, generation=generation)
    _replace(touched.filter(code__in=[found.code for found in seen]), seen, one)


def retired(template: str, generation: int, one: Recorded) -> None:
    """The generation is no more: what touched it is nobody's concern."""
    _open().filter(template_name=template, generation=generation).update(
        cleared_position=one.position
    )


def destroyed(template: str, kept: Collection[int], one: Recorded) -> None:
    """The template is no more, but for the generations that are ``kept``."""
    touched = _open().filter(template_name=template).exclude(generation__in=kept)
    touched.update(cleared_position=one.position)


def _replace(looked_for: QuerySet[Finding], seen: Iterable[Seen], one: Recorded) -> None:
    """Of the open rows ``looked_for``, those stay that are ``seen``; for the rest new ones open."""
    open_rows = {(row.code, row.subject): row for row in looked_for}
    stay: set[str] = set()
    new: dict[tuple[str, str], Finding] = {}
    for number, found in enumerate(seen, start=1):
        key = (found.code, _column(found.subject))
        row = open_rows.get(key)
        if row is None:
            row = new.setdefault(
                key,
                Finding(
                    id=f"{one.position}-{number}",
                    code=key[0],
                    subject=key[1],
                    position=one.position,
                    found_at=one.recorded_at,
                    cleared_position=None,
                ),
            )
        else:
            stay.add(row.pk)
        row.template_name, row.generation = found.template or "", found.generation
        row.detail, row.seen_position = _column(found.detail), one.position
    Finding.objects.bulk_create(new.values())
    again = [row for row in open_rows.values() if row.pk in stay]
    Finding.objects.bulk_update(
        again, ["template_name", "generation", "detail", "seen_position"], batch_size=500
    )
    cleared = [row.pk for row in open_rows.values() if row.pk not in stay]
    for start in range(0, len(cleared), 500):
        Finding.objects.filter(pk__in=cleared[start : start + 500]).update(
            cleared_position=one.position
        )


def _column(text: str) -> str:
    """``text`` as a column of PostgreSQL can have it, which the log itself can have otherwise."""
    return text.replace("\0", "\\0")
