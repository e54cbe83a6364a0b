"""The list of rooms beside every page: what a user may not see is not in it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

#: Title, icon, address, permission.
_LOG = (
    ("Templates", "inventory_2", "admin:templates_app_template_changelist", "view_template"),
    ("Events", "receipt_long", "admin:templates_app_event_changelist", "view_event"),
    ("Digests", "fingerprint", "admin:digests", "view_generation"),
    ("Generations", "layers", "admin:templates_app_generation_changelist", "view_generation"),
    ("Signatures", "verified", "admin:templates_app_signature_changelist", "view_signature"),
    ("Sandboxes", "rocket_launch", "admin:templates_app_sandbox_changelist", "view_sandbox"),
    ("Running imports", "downloading", "admin:templates_app_lease_changelist", "view_lease"),
)
_ACCOUNTS = (
    ("Users", "person", "admin:auth_user_changelist", "auth.view_user"),
    ("Roles", "group", "admin:auth_group_changelist", "auth.view_group"),
    ("API tokens", "key", "admin:knox_authtoken_changelist", "knox.view_authtoken"),
)


def rooms(request: HttpRequest) -> list[dict[str, Any]]:
    overview = {"title": "Overview", "icon": "home", "link": reverse("admin:index")}
    log = _items(request, _LOG, "templates_app.")
    groups: list[dict[str, Any]] = [
        {"title": "", "items": [overview]},
        {"title": "What happened", "separator": True, "items": log},
        {"title": "Accounts", "separator": True, "items": _items(request, _ACCOUNTS, "")},
    ]
    return [group for group in groups if group["items"]]


def _items(
    request: HttpRequest, known: tuple[tuple[str, str, str, str], ...], prefix: str
) -> list[dict[str, Any]]:
    return [
        {"title": title, "icon": icon, "link": reverse(address)}
        for title, icon, address, permission in known
        if request.user.has_perm(f"{prefix}{permission}")
    ]
