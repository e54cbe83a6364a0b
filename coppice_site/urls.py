"""Addresses: the API at the root, without trailing slashes; the auditors' house below /admin/."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.generic import RedirectView

from coppice_site.middleware import ADMIN
from templates_app.admin import problems as pages
from templates_app.api import errors as documents

handler400 = "templates_app.api.errors.bad_request"
handler403 = "coppice_site.urls.forbidden"
handler404 = "coppice_site.urls.not_found"
handler500 = "coppice_site.urls.server_error"

urlpatterns = [
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("", include("templates_app.api.urls")),
]


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return pages.forbidden(request, exception)  # the API's own never get here


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if request.path.startswith(ADMIN):
        return pages.not_found(request, exception)
    return documents.not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if request.path.startswith(ADMIN):
        return pages.server_error(request)
    return documents.server_error(request)
