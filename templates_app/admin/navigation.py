"""The list of rooms beside every page: what a user may not see is not in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from templates_app.admin.rooms import may_see

_LOG = (
    ("Templates", "inventory_2", "admin:templates_app_template_changelist"),
    ("Events", "receipt_long", "admin:templates_app_event_changelist"),
    ("Digests", "fingerprint", "admin:digests"),
    ("Generations", "layers", "admin:templates_app_generation_changelist"),
    ("Findings", "troubleshoot", "admin:templates_app_finding_changelist"),
    ("Signatures", "verified", "admin:templates_app_signature_changelist"),
    ("Keys", "vpn_key", "admin:keys"),
    ("Sandboxes", "rocket_launch", "admin:templates_app_sandbox_changelist"),
    ("Running imports", "downloading", "admin:templates_app_lease_changelist"),
)
_ACCOUNTS = (
    ("Users", "person", "admin:auth_user_changelist", "auth.view_user"),
    ("Roles", "group", "admin:auth_group_changelist", "auth.view_group"),
    ("API tokens", "key", "admin:knox_authtoken_changelist", "knox.view_authtoken"),
)


def rooms(request: HttpRequest) -> list[dict[str, Any]]:
    log = _LOG if may_see(request) else ()
    accounts = [one[:3] for one in _ACCOUNTS if request.user.has_perm(one[3])]
    groups: list[dict[str, Any]] = [
        {"title": "", "items": _items([("Overview", "home", "admin:index")])},
        {"title": "What happened", "separator": True, "items": _items(log)},
        {"title": "Accounts", "separator": True, "items": _items(accounts)},
    ]
    return [group for group in groups if group["items"]]


def _items(rooms: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [
        {"title": title, "icon": icon, "link": reverse(address)} for title, icon, address in rooms
    ]
