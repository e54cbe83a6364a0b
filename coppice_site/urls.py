"""Addresses: the API at the root, without trailing slashes; the auditors' house below /admin/."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("templates_app.api.urls")),
]
