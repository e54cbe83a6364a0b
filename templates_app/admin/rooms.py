"""What all rooms share: rows are looked at, never touched, by nobody; and how cells are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.views import ChangeList

from templates_app import roles
from templates_app.events import Meta
from templates_app.services import common

F = TypeVar("F", bound=Callable[..., Any])

#: How many characters of a digest are shown where it stands in a table; its title has them all.
SHORT = 19
READING = ("GET", "HEAD")


class Rows(ChangeList):  # type: ignore[misc] # unfold has no types
    """A list that says "N results" only where something narrowed it."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class Room(ModelAdmin):  # type: ignore[misc] # unfold has no types
    """A table whose rows are read. Not even a superuser adds, changes or deletes one here."""

    actions = None
    list_per_page = 50
    show_full_result_count = False
    list_fullwidth = True
    list_disable_select_all = True
    show_facets = admin.ShowFacets.NEVER  # they would count the whole table for each choice
    page_template = ""  # of one row
    list_title = ""
    empty = ""  # what it means that there is no row
    empty_next = ""  # the command that makes one

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return Rows

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may_see(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_see(request)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self.look(request)
        title = {"title": self.list_title or self.opts.verbose_name_plural, "subtitle": None}
        context = {**title, **(extra_context or {})}
        return cast(HttpResponse, super().changelist_view(request, context))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        self.look(request)
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self.absent(request, unquote(object_id))
        context = self.facts(request, row)
        return render(request, self.page_template, {**context, "row": row})

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Django's own history lists changes made in its admin; there are none."""
        raise Http404

    def look(self, request: HttpRequest) -> None:
        """Go on only for who may see this room and only looks."""
        if request.method not in READING or not self.has_view_permission(request):
            raise PermissionDenied

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the page of one row shows."""
        return {"title": str(row)}

    def absent(self, request: HttpRequest, key: str) -> HttpResponse:
        raise Http404


def who(request: HttpRequest) -> Meta:
    return common.context(
        actor=str(request.user),
        source="admin",
        request_id=getattr(request, "request_id", ""),
    )


def may_see(request: HttpRequest) -> bool:
    """One key to all rooms: each tells something of the others' tables."""
    return request.user.has_perms(roles.SEE)


def render(
    request: HttpRequest, template: str, context: dict[str, Any], status: int = 200
) -> TemplateResponse:
    """A page of the house, with its frame."""
    request.current_app = admin.site.name
    return TemplateResponse(
        request, template, {**admin.site.each_context(request), **context}, status=status
    )


def cell(title: str, *, ordering: str | None = None) -> Callable[[F], F]:
    """A column of a list."""
    return cast(Callable[[F], F], display(description=title, ordering=ordering))


def word(text: str, colours: dict[str, str]) -> SafeString:
    """A state: always in a word, with a colour beside it."""
    return format_html('<span class="cp-word cp-{}">{}</span>', colours.get(text, "info"), text)


def digest_link(digest: str, kind: str = "") -> SafeString | str:
    """A digest, short, with all of it in its title, leading to its provenance."""
    if not digest:
        return "–"
    title = f"{kind} {digest}".strip()
    address = reverse("admin:digest", args=[digest])
    shown = digest[:SHORT] + "…"
    return format_html('<a class="cp-digest" href="{}" title="{}">{}</a>', address, title, shown)


def template_link(name: str) -> SafeString | str:
    if not name:
        return "–"
    return format_html(
        '<a class="cp-link" href="{}">{}</a>',
        reverse("admin:templates_app_template_change", args=[name]),
        name,
    )


def event_link(position: int | None, word: str = "") -> SafeString | str:
    if position is None:
        return "–"
    return format_html(
        '<a class="cp-link" href="{}">{}{}</a>',
        reverse("admin:templates_app_event_change", args=[position]),
        word,
        position,
    )


def long_text(text: str) -> SafeString | str:
    """Text of any length in a cell: it breaks where it must."""
    return format_html('<span class="cp-long" title="{}">{}</span>', text, text) if text else "–"


def moment(at: Any) -> str:
    """A time in a cell, as the whole house writes it."""
    if not at:
        return "–"
    parts = f"{at:%Y-%m-%d}", f"{at:%H:%M:%S} UTC"
    return format_html('<span class="cp-when"><span>{}</span> <span>{}</span></span>', *parts)
