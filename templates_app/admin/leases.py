"""Running imports: who imports what, and how far it is."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from templates_app.admin.rooms import Room, cell, long_text, moment
from templates_app.models import Lease
from templates_app.names import human_size


@admin.register(Lease)
class LeaseRoom(Room):
    list_title = "Running imports"
    page_template = "coppice/lease.html"
    list_display = ("template_name", "stage", "progress", "image", "started", "by", "node")
    ordering = ("started_at",)
    search_fields = ("template_name", "reference", "actor", "import_id")
    search_help_text = "Name, reference, actor, or import id"

    @cell("progress")
    def progress(self, row: Lease) -> str:
        return progress(row)

    @cell("reference")
    def image(self, row: Lease) -> SafeString | str:
        return long_text(row.reference)

    @cell("started", ordering="started_at")
    def started(self, row: Lease) -> str:
        return moment(row.started_at)

    @cell("by", ordering="actor")
    def by(self, row: Lease) -> SafeString | str:
        return long_text(row.actor)

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return {"title": f"Import of {row.template_name}", "lease": row, "progress": progress(row)}


def progress(row: Lease) -> str:
    """``12.0M of 48.0M``, or what of it is known."""
    size = human_size if row.unit == "bytes" else (lambda number: f"{number:,} {row.unit}")
    if not row.done and not row.total:
        return "–"
    return f"{size(row.done)} of {size(row.total)}" if row.total else size(row.done)
