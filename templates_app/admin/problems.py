"""Pages that say what went wrong below /admin/; everywhere else the API's documents do."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from templates_app.admin.rooms import render as in_the_house
from templates_app.errors import CoppiceError


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, 403, "Not for you", "Your account has no role that allows this.")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page(request, 404, "Nothing here", "There is nothing at this address.")


def failed(request: HttpRequest, error: CoppiceError) -> HttpResponse:
    """An error of ours, as the API says it."""
    return _page(request, error.status, error.title, f"{error.detail} {error.next_step}".strip())


def server_error(request: HttpRequest) -> HttpResponse:
    """Without the frame: what failed may be what the frame is made of."""
    context = {"request_id": getattr(request, "request_id", "")}
    return render(request, "coppice/broken.html", context, status=500)


def _page(request: HttpRequest, status: int, title: str, detail: str) -> HttpResponse:
    """In the frame: whoever is no staff was led to the login and never gets here."""
    context = {
        "title": title,
        "detail": detail,
        "request_id": getattr(request, "request_id", ""),
    }
    return in_the_house(request, "coppice/problem.html", context, status=status).render()
