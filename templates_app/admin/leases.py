"""Running imports: who imports what, and how far it is."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from templates_app.admin.rooms import Room, cell, long_text, moment, render
from templates_app.errors import MalformedName, TemplateNotFound
from templates_app.models import Lease
from templates_app.names import human_size
from templates_app.services import queries


@admin.register(Lease)
class LeaseRoom(Room):
    list_title = "Running imports"
    empty = "No import runs now."
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
        return {"title": f"Import of {row.template_name}", "name": row.template_name, **live(row)}

    def absent(self, request: HttpRequest, key: str) -> HttpResponse:
        """How it ended: also what somebody's page that watches a running import gets in the end."""
        try:
            ended = queries.import_status(name=key)
        except (MalformedName, TemplateNotFound):
            raise Http404 from None
        context = {"title": f"Import of {key}", "name": key, "lease": None, "ended": ended}
        return render(request, self.page_template, context)


def live(row: Lease) -> dict[str, Any]:
    """What the pages say of a running import."""
    return {"lease": row, "progress": progress(row), "layers": [_layer(one) for one in row.layers]}


def _layer(one: dict[str, Any]) -> dict[str, Any]:
    state, done, total = one["state"], one["bytes"], one["totalBytes"]
    if state == "kept":
        moved = "was here"
    elif total is None:
        moved = human_size(done) if done else "–"
    else:
        moved = f"{human_size(done)} of {human_size(total)}"
    return {
        "number": one["layer"],
        "state": state,
        "colour": "success" if state in ("done", "kept") else "info",
        "done": done,
        "total": total if state != "kept" else None,
        "moved": moved,
        "entries": f"{one['entries']:,}" if one["entries"] else "–",
    }


def progress(row: Lease) -> str:
    """``12.0M of 48.0M``, or what of it is known."""
    size = human_size if row.unit == "bytes" else (lambda number: f"{number:,} {row.unit}")
    if not row.done and not row.total:
        return "–"
    return f"{size(row.done)} of {size(row.total)}" if row.total else size(row.done)
