"""Digests: paste one, of whatever kind, and see where it came from and what became of it.

No table of its own: a digest is known by the generations and events that name it.
"""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from templates_app.admin.rooms import READING, may_see, render
from templates_app.errors import DigestNotFound, MalformedDigest
from templates_app.names import quote
from templates_app.services import provenance

ON_A_PAGE = 50


def urls() -> list[URLPattern]:
    return [
        path("digests/", admin.site.admin_view(every), name="digests"),
        path("digests/<str:digest>/", admin.site.admin_view(one), name="digest"),
    ]


def every(request: HttpRequest) -> HttpResponse:
    """The list of manifest digests; with ``?q=`` the way to the page of one."""
    _look(request)
    asked = request.GET.get("q", "").strip()
    if asked:
        try:
            digest = provenance.parse_digest(asked)
        except MalformedDigest:
            return _list(request, asked, "is not a sha256 digest")
        return HttpResponseRedirect(reverse("admin:digest", args=[digest.text]))
    return _list(request, "", "")


def one(request: HttpRequest, digest: str) -> HttpResponse:
    _look(request)
    try:
        found = provenance.provenance(digest=provenance.parse_digest(digest))
    except MalformedDigest:
        return _list(request, digest, "is not a sha256 digest", status=404)
    except DigestNotFound:
        return _list(request, digest, "is not known here", status=404)
    context = {"title": "Digest", "provenance": found}
    return render(request, "coppice/digest.html", context)


def _look(request: HttpRequest) -> None:
    if request.method not in READING or not may_see(request):
        raise PermissionDenied


def _list(request: HttpRequest, asked: str, problem: str, status: int = 200) -> HttpResponse:
    page = Paginator(provenance.manifest_digests(), ON_A_PAGE).get_page(request.GET.get("p"))
    shown = [row["manifest_digest"] for row in page]
    generations = provenance.generations_of(shown)
    return render(
        request,
        "coppice/digests.html",
        {
            "title": "Digests",
            "page": page,
            "rows": [(digest, generations[digest]) for digest in shown],
            "asked": asked[:200],
            "problem": f"{quote(asked)} {problem}." if problem else "",
        },
        status=status,
    )
