"""Events: the log itself, newest first, and one event with all that was recorded of it."""

from __future__ import annotations

import datetime
import re
from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.safestring import SafeString

from templates_app import store
from templates_app.admin import lists
from templates_app.admin.questions import Choice
from templates_app.admin.rooms import Room, cell, long_text, moment, template_link, who, word
from templates_app.errors import MalformedDigest
from templates_app.events import EVENTS, SandboxRefused
from templates_app.models import Event
from templates_app.services import access, audit, provenance

#: The most events that a filtered list pages through; who wants older ones narrows the question.
COUNTED = 10_000
SOURCES = ("api", "cli", "admin", "command", "task", "recovery", "server")
TYPES = {
    "imported": "success",
    "import-failed": "danger",
    "signed": "success",
    "destroyed": "warning",
    "rolled-back": "warning",
    "retired": "info",
    "signature-withdrawn": "warning",
    "key-trusted": "success",
    "key-revoked": "danger",
    "policy-changed": "warning",
    "login-failed": "warning",
    "sandbox-refused": "danger",
    "sandbox-created": "info",
}


class LogPaginator(Paginator):  # type: ignore[type-arg] # Django's takes none at run time
    """Counts without walking the log: all of it is the log's size, a part is counted to a cap."""

    @cached_property
    def count(self) -> int:
        query: Any = self.object_list
        if not query.query.where:
            return store.size()
        return int(query.order_by()[:COUNTED].count())


class OfType(Choice):
    title = "Type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(one, one) for one in EVENTS] + [("other", "unknown to this program")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case None:
                return queryset
            case "other":
                return queryset.filter(audit.of_type(*audit.strange_types()))
        return queryset.filter(audit.of_type(str(self.value())))


class FromSource(Choice):
    title = f"Source (newest {audit.WINDOW:,} events)"
    parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(one, one) for one in SOURCES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(audit.said("source", value)) if value else queryset


class When(Choice):
    """Instead of date_hierarchy, which asks the whole table for its dates at each page."""

    title = "When"
    parameter_name = "when"
    spans = {
        "hour": ("Past hour", datetime.timedelta(hours=1)),
        "day": ("Past 24 hours", datetime.timedelta(days=1)),
        "week": ("Past 7 days", audit.WEEK),
        "month": ("Past 30 days", datetime.timedelta(days=30)),
        "year": ("Past 365 days", datetime.timedelta(days=365)),
    }

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(key, words) for key, (words, _) in self.spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        span = self.spans.get(self.value() or "")
        if span is None:
            return queryset
        return queryset.filter(audit.recorded(since=timezone.now() - span[1]))


@admin.register(Event)
class EventRoom(Room):
    list_title = "Events"
    empty = "The log is empty: nothing has happened yet."
    page_template = "coppice/event.html"
    list_display = ("position", "when", "sentence", "template", "kind", "actor", "source")
    list_filter = (OfType, FromSource, When)
    list_per_page = 50
    list_before_template = "coppice/export.html"
    paginator = LogPaginator
    ordering = ("-position",)
    sortable_by = ()
    search_fields = ("position",)
    search_help_text = "Position, name, digest, actor, request, or 2026-01-31"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        where = asked(search_term.strip())
        return (queryset if where is None else queryset.filter(where)), False

    def get_urls(self) -> list[URLPattern]:
        export = path(
            "export/", self.admin_site.admin_view(self.export), name="templates_app_event_export"
        )
        return [export, *super().get_urls()]

    def export(self, request: HttpRequest) -> StreamingHttpResponse:
        """The filtered list as the lines of ``manage.py export_events``, oldest first."""
        self.look(request)
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            raise Http404 from None
        newest = rows.order_by("-position").values_list("position", flat=True)
        positions = list(newest[:COUNTED])
        if positions and request.method == "GET":
            access.exported(
                what="events",
                first=positions[-1],
                last=positions[0],
                events=len(positions),
                question=request.GET.urlencode(),
                context=who(request),
            )
        lines = (f"{line}\n" for line in store.export_at(positions))
        return StreamingHttpResponse(
            lines,
            content_type="application/jsonl; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="events.jsonl"'},
        )

    @cell("time")
    def when(self, row: Event) -> str:
        return moment(row.recorded_at)

    @cell("what happened")
    def sentence(self, row: Event) -> SafeString | str:
        return long_text(read(row).sentence)

    @cell("template")
    def template(self, row: Event) -> SafeString | str:
        return template_link(read(row).template)

    @cell("type")
    def kind(self, row: Event) -> SafeString:
        return word(row.type, TYPES)

    @cell("actor")
    def actor(self, row: Event) -> SafeString | str:
        return long_text(read(row).actor)

    @cell("source")
    def source(self, row: Event) -> str:
        return read(row).source or "–"

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        page = audit.event_page(row)
        digests = list(dict.fromkeys(provenance.digests_in(page.entry.data)))
        event = audit.decoded(page.entry)
        return {
            "title": f"Event {row.position}",
            "page": page,
            "entry": page.entry,
            "checks": event.checks if isinstance(event, SandboxRefused) else (),
            "lists": lists.of(event),
            "colour": TYPES.get(row.type, ""),
            "digests": digests[: provenance.CAP],
            "same_request_cap": audit.SAME_REQUEST,
            "near": audit.NEAR,
        }


def read(row: Any) -> audit.Entry:
    """The row's entry, read once however many cells are made of it."""
    if "audit_entry" not in row.__dict__:
        row.audit_entry = audit.entry(row)
    entry: audit.Entry = row.audit_entry
    return entry


def asked(term: str) -> Q | None:
    """What the words in the search box mean. None for none."""
    if not term:
        return None
    if term.isascii() and term.isdigit() and len(term) <= 15:
        return Q(position=int(term))
    if (span := _span(term)) is not None:
        return audit.recorded(since=span[0], until=span[1])
    try:
        return audit.naming(provenance.parse_digest(term).text)
    except MalformedDigest:
        return audit.spoken_of(term)


def _span(term: str) -> tuple[datetime.datetime, datetime.datetime] | None:
    """A day or a month, as ``2026-01-31`` or ``2026-01``."""
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?", term)
    if match is None:
        return None
    year, month, day = (int(part) if part else 0 for part in match.groups())
    try:
        start = datetime.datetime(year, month, day or 1, tzinfo=datetime.UTC)
        if day:
            return start, start + datetime.timedelta(days=1)
        return start, datetime.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return None
