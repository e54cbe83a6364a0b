"""The front page: how many, how many of them need a look, what happened last."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from templates_app.admin.rooms import may_see
from templates_app.services import audit

GATE = {
    "on": "Nothing is launched that no trusted key has signed.",
    "warn": "What is not signed is launched, and recorded as unsigned.",
    "off": "Signatures are not asked for; launches are recorded as signed or unsigned.",
}


def show(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """unfold's DASHBOARD_CALLBACK. Who has no part in the log gets the frame alone."""
    if not may_see(request):
        return {**context, "figures": None}
    figures = audit.figures()
    events = reverse("admin:templates_app_event_changelist")
    templates = reverse("admin:templates_app_template_changelist")
    return {
        **context,
        "figures": figures,
        "blocked": figures.gate == "on" and not figures.exempt,
        "gate_says": GATE[figures.gate]
        + (f" Except {figures.exempt}: launched and recorded." if figures.exempt else ""),
        "links": {
            "templates": templates,
            "unsigned": f"{templates}?signed=no",
            "missing": f"{templates}?missing=yes",
            "findings": f"{reverse('admin:templates_app_finding_changelist')}?open=yes",
            "failed": f"{events}?type=import-failed&when=week",
            "refused": f"{events}?type=sandbox-refused&when=week",
        },
    }
