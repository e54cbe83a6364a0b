"""Findings: what looks at the pool noticed, which are open, what to do about each."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.safestring import SafeString

from templates_app import findings
from templates_app.admin.questions import Question
from templates_app.admin.rooms import (
    Room,
    cell,
    event_link,
    long_text,
    moment,
    template_link,
    word,
)
from templates_app.models import Finding

STATES = {"open": "warning", "stops launches": "danger", "cleared": "success"}


class IsOpen(Question):
    title = "Is it open?"
    parameter_name = "open"
    yes = Q(cleared_position__isnull=True)


class Stops(Question):
    title = "Does it stop launches?"
    parameter_name = "stops"
    yes = Q(cleared_position__isnull=True, code__in=findings.BLOCKING, generation__isnull=False)


@admin.register(Finding)
class FindingRoom(Room):
    list_title = "Findings"
    empty = "No look at the pool or into files has found anything. This is the command that looks:"
    empty_next = "coppice tpl reload --verify"
    page_template = "coppice/finding.html"
    list_display = ("code", "state", "template", "number", "thing", "found", "seen", "cleared")
    list_filter = (IsOpen, Stops)
    ordering = ("-position",)
    search_fields = ("template_name", "subject", "=code")
    search_help_text = "Template, part of a dataset's name, or a code"

    @cell("state")
    def state(self, row: Finding) -> SafeString:
        return word(state_word(row), STATES)

    @cell("template", ordering="template_name")
    def template(self, row: Finding) -> SafeString | str:
        return template_link(row.template_name)

    @cell("generation")
    def number(self, row: Finding) -> str:
        return "–" if row.generation is None else str(row.generation)

    @cell("what it is about")
    def thing(self, row: Finding) -> SafeString | str:
        return long_text(row.subject)

    @cell("found", ordering="position")
    def found(self, row: Finding) -> str:
        return moment(row.found_at)

    @cell("seen last", ordering="seen_position")
    def seen(self, row: Finding) -> SafeString | str:
        return event_link(row.seen_position, "event ")

    @cell("cleared", ordering="cleared_position")
    def cleared(self, row: Finding) -> SafeString | str:
        return event_link(row.cleared_position, "event ")

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        state = state_word(row)
        return {
            "title": f"Finding {row.code}",
            "word": state,
            "colour": STATES[state],
            "kind": findings.kind(row.code),
            "next_step": next_step(row),
            "found": event_link(row.position),
            "seen": event_link(row.seen_position),
            "cleared": event_link(row.cleared_position),
        }


def state_word(row: Finding) -> str:
    if row.cleared_position is not None:
        return "cleared"
    stops = findings.stops(row.code, generation=row.generation)
    return "stops launches" if stops else "open"


def next_step(row: Finding) -> str:
    return findings.next_step(row.code, template=row.template_name, subject=row.subject)


def told(rows: list[Finding]) -> list[dict[str, Any]]:
    """What the pages say of open ones."""
    return [
        {
            "row": row,
            "word": state_word(row),
            "colour": STATES[state_word(row)],
            "next_step": next_step(row),
        }
        for row in rows
    ]
