"""Generations: what was imported or adopted, also of templates that are destroyed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from templates_app.admin.questions import Question
from templates_app.admin.rooms import (
    Room,
    cell,
    digest_link,
    long_text,
    moment,
    template_link,
    word,
)
from templates_app.errors import MalformedDigest
from templates_app.models import Generation, Signature, Template
from templates_app.names import human_size
from templates_app.services import audit, provenance, queries

STATES = {
    "current": "success", "earlier": "info", "kept": "warning", "retired": "warning",
    "destroyed": "warning",
}  # fmt: skip


class IsCurrent(Question):
    title = "Is it current?"
    parameter_name = "current"
    yes = Q(is_current=True)


class IsKept(Question):
    title = "Is it kept for its clones alone?"
    parameter_name = "kept"
    yes = Q(kept_position__isnull=False, destroyed_position__isnull=True)


class IsDestroyed(Question):
    title = "Is it gone?"
    parameter_name = "destroyed"
    yes = Q(destroyed_position__isnull=False)


@admin.register(Generation)
class GenerationRoom(Room):
    list_title = "Generations"
    empty = "Nothing was imported or adopted yet."
    empty_next = "coppice tpl import-oci NAME REFERENCE"
    page_template = "coppice/generation.html"
    list_display = (
        "number", "name", "state", "manifest", "tree", "image", "imported", "by",
    )  # fmt: skip
    list_filter = (IsCurrent, IsKept, IsDestroyed)
    ordering = ("-position",)
    search_fields = ("template_name",)
    search_help_text = "Name, part of a reference, or any digest"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Generation]:
        current = Template.objects.filter(current_id=OuterRef("pk"))
        rows: QuerySet[Generation] = super().get_queryset(request)
        return rows.annotate(is_current=Exists(current))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            digest = provenance.parse_digest(term).text
        except MalformedDigest:
            named = Q(template_name__icontains=term) | Q(reference__icontains=term)
            return queryset.filter(named), False
        return queryset.filter(queries.has_digest(digest)), False

    @cell("template", ordering="template_name")
    def name(self, row: Generation) -> SafeString | str:
        return template_link(row.template_name)

    @cell("state")
    def state(self, row: Any) -> SafeString:
        return word(state_word(row), STATES)

    @cell("manifest digest")
    def manifest(self, row: Generation) -> SafeString | str:
        return digest_link(row.manifest_digest, "manifest")

    @cell("tree digest")
    def tree(self, row: Generation) -> SafeString | str:
        return digest_link(row.tree_digest, "tree")

    @cell("reference")
    def image(self, row: Generation) -> SafeString | str:
        return long_text(row.reference or "made by hand")

    @cell("imported", ordering="position")
    def imported(self, row: Generation) -> str:
        return moment(row.imported_at)

    @cell("by", ordering="imported_by")
    def by(self, row: Generation) -> SafeString | str:
        return long_text(row.imported_by)

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        state = state_word(row)
        return {
            "title": str(row),
            "word": state,
            "colour": STATES[state],
            "generation": row,
            "size": human_size(row.size_bytes),
            "moved": moved(row),
            "statement": audit.pretty_statement(row.statement),
            "signatures": Signature.objects.filter(
                template_name=row.template_name, statement_digest=row.statement_digest
            ),
        }


def moved(row: Generation) -> str:
    """What the import moved, as far as its engine said."""
    figures = (
        ("fetched", row.fetched_bytes),
        ("from the cache", row.cached_bytes),
        ("written", row.written_bytes),
    )
    return ", ".join(f"{human_size(size)} {how}" for how, size in figures if size is not None)


def state_word(row: Any) -> str:
    if row.destroyed_position is not None:
        return "retired" if row.retired else "destroyed"
    if row.kept_position is not None:
        return "kept"
    return "current" if row.is_current else "earlier"
