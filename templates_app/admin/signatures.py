"""Signatures that were accepted, and whether each counts now."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, Case, Q, QuerySet, Value, When
from django.http import HttpRequest
from django.utils.safestring import SafeString

from templates_app.admin.questions import Question
from templates_app.admin.rooms import (
    Room,
    cell,
    digest_link,
    event_link,
    long_text,
    moment,
    template_link,
    word,
)
from templates_app.models import Signature
from templates_app.services import keyring

STATES = {"counts": "success", "withdrawn": "warning", "does not count": "danger"}


class IsTrusted(Question):
    title = "Does it count now?"
    parameter_name = "trusted"
    yes = Q(trusted=True)


@admin.register(Signature)
class SignatureRoom(Room):
    list_title = "Signatures"
    empty = "Nobody has signed a template yet."
    empty_next = "coppice tpl sign NAME"
    page_template = "coppice/signature.html"
    list_display = ("position", "template", "key", "trust", "statement", "signed", "by")
    list_filter = (IsTrusted,)
    ordering = ("-position",)
    search_fields = ("template_name", "key_id", "key_label", "signed_by", "=statement_digest")
    search_help_text = "Template, key, signer, or statement digest"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Signature]:
        trusted = Case(
            When(keyring.counting(), then=Value(True)),
            default=Value(False),
            output_field=BooleanField(),
        )
        rows: QuerySet[Signature] = super().get_queryset(request)
        return rows.annotate(trusted=trusted)

    @cell("template", ordering="template_name")
    def template(self, row: Signature) -> SafeString | str:
        return template_link(row.template_name)

    @cell("key", ordering="key_label")
    def key(self, row: Signature) -> SafeString | str:
        return long_text(f"{row.key_label} ({row.key_id})")

    @cell("state")
    def trust(self, row: Any) -> SafeString:
        return word(state_word(row), STATES)

    @cell("statement")
    def statement(self, row: Signature) -> SafeString | str:
        return digest_link(row.statement_digest, "statement")

    @cell("signed", ordering="position")
    def signed(self, row: Signature) -> str:
        return moment(row.signed_at)

    @cell("by", ordering="signed_by")
    def by(self, row: Signature) -> SafeString | str:
        return long_text(row.signed_by)

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        state = state_word(row)
        return {
            "title": f"Signature {row.position}",
            "word": state,
            "colour": STATES[state],
            "event": event_link(row.position),
        }


def state_word(row: Any) -> str:
    """By its key, as lists judge: the page of the template asks the gate itself."""
    if row.withdrawn_position is not None:
        return "withdrawn"
    return "counts" if row.trusted else "does not count"
