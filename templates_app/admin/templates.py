"""Templates: the list, one template with everything about it, its history."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from templates_app.admin import findings, problems
from templates_app.admin.generations import moved
from templates_app.admin.leases import live
from templates_app.admin.questions import Question
from templates_app.admin.rooms import Room, cell, digest_link, long_text, moment, render, who, word
from templates_app.codec import PayloadInvalid
from templates_app.errors import CoppiceError, MalformedDigest
from templates_app.models import Generation, Lease, Sandbox, Signature, Template
from templates_app.names import human_size
from templates_app.services import audit, drift, evidence, launches, noticed, provenance, queries

STATES = {"signed": "success", "unsigned": "warning", "blocked": "danger", "missing": "danger"}
DRIFTS = {drift.CURRENT: "success", drift.MOVED: "warning", drift.GONE: "danger"}
RECENT = 10
LIVE = 100


class IsSigned(Question):
    title = "Has a trusted key signed it?"
    parameter_name = "signed"
    yes = Q(signed=True)


class IsBlocked(Question):
    title = "Would a launch be refused?"
    parameter_name = "blocked"

    @property
    def yes(self) -> Q:  # type: ignore[override]
        stopped = Q(signed=False) | Q(stopped=True)
        return Q(missing=True) | (stopped & audit.enforced())


class IsMissing(Question):
    title = "Is its dataset missing?"
    parameter_name = "missing"
    yes = Q(missing=True)


class IsAdopted(Question):
    title = "Was it made by hand?"
    parameter_name = "adopted"
    yes = Q(current__adopted=True)


class IsFloating(Question):
    title = "Is it from a tag that may move?"
    parameter_name = "floating"
    yes = Q(current__floating=True)


class HasDrifted(Question):
    title = "Does its tag name something else now?"
    parameter_name = "drifted"
    yes = ~Q(current__drift="")


class HasFindings(Question):
    title = "Has it findings?"
    parameter_name = "findings"
    yes = ~Q(current__findings=[]) | Q(noticed=True)


@admin.register(Template)
class TemplateRoom(Room):
    list_title = "Templates"
    empty = "No template was imported yet."
    empty_next = "coppice tpl import-oci NAME REFERENCE"
    page_template = "coppice/template.html"
    list_display = (
        "name", "state", "generation", "size", "image", "drift", "manifest", "imported", "by",
    )  # fmt: skip
    list_filter = (IsSigned, IsBlocked, IsMissing, IsAdopted, IsFloating, HasDrifted, HasFindings)
    search_fields = ("name",)
    search_help_text = "Name, part of a reference, or any digest"
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Template]:
        rows = super().get_queryset(request).select_related("current")
        return audit.judged(rows).defer("current__statement")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        where = Q(name__icontains=term) | Q(current__reference__icontains=term)
        try:
            digest = provenance.parse_digest(term).text
        except MalformedDigest:
            pass  # then it is a name or a reference
        else:
            where |= queries.has_digest(digest, through="current__")
        return queryset.filter(where), False

    @cell("state")
    def state(self, row: Any) -> SafeString:
        return word(audit.state_word(row), STATES)

    @cell("generation", ordering="current__number")
    def generation(self, row: Template) -> str:
        return f"{row.current.number}{' (by hand)' if row.current.adopted else ''}"

    @cell("size", ordering="current__size_bytes")
    def size(self, row: Template) -> str:
        return human_size(row.current.size_bytes)

    @cell("reference", ordering="current__reference")
    def image(self, row: Template) -> SafeString | str:
        return long_text(row.current.reference)

    @cell("tag", ordering="current__drift")
    def drift(self, row: Template) -> SafeString:
        return word(drift.word(row.current), DRIFTS)

    @cell("manifest digest")
    def manifest(self, row: Template) -> SafeString | str:
        return digest_link(row.current.manifest_digest, "manifest")

    @cell("imported", ordering="current__imported_at")
    def imported(self, row: Template) -> str:
        return moment(row.current.imported_at)

    @cell("by", ordering="current__imported_by")
    def by(self, row: Template) -> SafeString | str:
        return long_text(row.current.imported_by)

    def facts(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        state = audit.state_word(row)
        gate, gate_problem = _gate(row.name)
        lease = Lease.objects.filter(pk=row.name).first()
        sandboxes = Sandbox.objects.filter(template_name=row.name, destroyed_at__isnull=True)
        return {
            "title": f"Template {row.name}",
            "word": state,
            "colour": STATES[state],
            "generation": row.current,
            "found": findings.told(noticed.findings(template=row.name)[:LIVE]),
            "size": human_size(row.current.size_bytes),
            "moved": moved(row.current),
            "statement": audit.pretty_statement(row.current.statement),
            "verified": audit.last_verified(row.name, row.current.number),
            "gate": gate,
            "gate_problem": gate_problem,
            "signatures": Signature.objects.filter(
                template_name=row.name, statement_digest=row.current.statement_digest
            ),
            "generations": Generation.objects.filter(template_name=row.name)
            .defer("statement")
            .order_by("-number")[:LIVE],
            "sandboxes": sandboxes.order_by("-created_at")[:LIVE],
            "sandboxes_live": sandboxes.count(),
            "recent": audit.timeline(name=row.name, oldest_first=False, start=None, limit=RECENT),
            **(live(lease) if lease else {}),
        }

    def get_urls(self) -> list[URLPattern]:
        evidence_of = path(
            "<path:object_id>/evidence/",
            self.admin_site.admin_view(self.evidence),
            name="templates_app_template_evidence",
        )
        return [evidence_of, *super().get_urls()]

    def evidence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The bundle that auditors check without us, as a file."""
        self.look(request)
        try:
            bundle = evidence.export(name=object_id, context=who(request))
        except CoppiceError as error:
            return problems.failed(request, error)
        return HttpResponse(bundle.tar(), content_type=evidence.TAR, headers=bundle.headers)

    def absent(self, request: HttpRequest, key: str) -> HttpResponse:
        """A name that is destroyed, or was never there: its history says which."""
        address = reverse("admin:templates_app_template_history", args=[key])
        return HttpResponseRedirect(address)

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Every event about the name, also of one that is destroyed."""
        self.look(request)
        oldest_first = request.GET.get("order") == "oldest"
        start = request.GET.get("from", "")
        timeline = audit.timeline(
            name=object_id[:100],
            oldest_first=oldest_first,
            start=int(start) if start.isascii() and start.isdigit() and len(start) < 17 else None,
        )
        if not timeline.total:
            raise Http404
        return render(
            request,
            "coppice/timeline.html",
            {
                "title": f"History of {object_id}",
                "name": object_id,
                "exists": Template.objects.filter(pk=object_id).exists(),
                "timeline": timeline,
                "oldest_first": oldest_first,
            },
        )


def _gate(name: str) -> tuple[Any, str]:
    """The gate's decision as it would be now, or why it cannot be asked."""
    try:
        return launches.gate_decision(name=name), ""
    except CoppiceError as error:
        return None, error.detail
    except (PayloadInvalid, RecursionError) as error:
        return None, f"An event about this template cannot be read: {error}"
