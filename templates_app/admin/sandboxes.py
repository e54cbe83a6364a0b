"""Sandboxes: what was launched through the gate, live or destroyed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from templates_app import lookup
from templates_app.admin.questions import Choice, Question
from templates_app.admin.rooms import Room, cell, long_text, moment, template_link, word
from templates_app.models import Generation, Sandbox
from templates_app.services import audit, provenance

LIVE = {"live": "success", "destroyed": "warning"}
SIGNED = {"signed": "success", "unsigned": "warning"}


class IsLive(Question):
    title = "Is it live?"
    parameter_name = "live"
    yes = Q(destroyed_at__isnull=True)


class WasSigned(Question):
    title = "Was it launched signed?"
    parameter_name = "signed"
    yes = Q(signed=True)


class UnderGate(Choice):
    title = "The gate was"
    parameter_name = "gate"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(mode, mode) for mode in ("on", "warn", "off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(gate=self.value()) if self.value() else queryset


@admin.register(Sandbox)
class SandboxRoom(Room):
    list_title = "Sandboxes"
    empty = "Nothing was launched yet."
    empty_next = "coppice sandbox create --template NAME"
    page_template = "coppice/sandbox.html"
    list_display = ("id", "state", "template", "generation", "trust", "gate", "launched", "by")
    list_filter = (IsLive, WasSigned, UnderGate)
    ordering = ("-created_at", "id")
    search_fields = ("id", "template_name", "created_by", "dataset")
    search_help_text = "Id, template, dataset, or who launched it"

    @cell("state")
    def state(self, row: Sandbox) -> SafeString:
        return word("destroyed" if row.destroyed_at else "live", LIVE)

    @cell("template", ordering="template_name")
    def template(self, row: Sandbox) -> SafeString | str:
        return template_link(row.template_name)

    @cell("launched as")
    def trust(self, row: Sandbox) -> SafeString:
        return word("signed" if row.signed else "unsigned", SIGNED)

    @cell("launched", ordering="created_at")
    def launched(self, row: Sandbox) -> str:
        return moment(row.created_at)

    @cell("by", ordering="created_by")
    def by(self, row: Sandbox) -> SafeString | str:
        return long_text(row.created_by)

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        state = "destroyed" if row.destroyed_at else "live"
        about = lookup.events(["sandbox"], [row.pk])
        events = about.order_by("-position")[: provenance.CAP]
        return {
            "title": f"Sandbox {row.pk}",
            "word": state,
            "colour": LIVE[state],
            "generation": Generation.objects.filter(
                template_name=row.template_name, number=row.generation
            )
            .defer("statement")
            .first(),
            "events": [audit.entry(one) for one in events],
        }
