"""Addresses: the API at the root, without trailing slashes; the auditors' house below /admin/."""

from django.contrib import admin
from django.urls import include, path

handler400 = "templates_app.api.errors.bad_request"
handler404 = "templates_app.api.errors.not_found"
handler500 = "templates_app.api.errors.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("templates_app.api.urls")),
]
