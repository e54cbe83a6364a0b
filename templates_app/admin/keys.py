"""Keys: of the log and of the directory of trusted keys, and what each has signed.

No table of its own: a key that is in the directory alone has no row.
"""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path

from templates_app.admin.rooms import READING, may_see, render
from templates_app.errors import Conflict, KeyNotFound
from templates_app.models import Event, Signature
from templates_app.services import audit, keys

STATES = {"trusted": "success", "compromised": "danger"}  # others warn
RECENT = 100


def urls() -> list[URLPattern]:
    return [
        path("keys/", admin.site.admin_view(every), name="keys"),
        path("keys/<str:key>/", admin.site.admin_view(one), name="key"),
    ]


def every(request: HttpRequest) -> HttpResponse:
    _look(request)
    rows = [(facts, _colour(facts)) for facts in keys.every()]
    return render(request, "coppice/keys.html", {"title": "Keys", "rows": rows})


def one(request: HttpRequest, key: str) -> HttpResponse:
    _look(request)
    try:
        facts = keys.find(key=key)
    except (KeyNotFound, Conflict) as error:
        raise Http404 from error
    known = facts.key.public_key
    signatures = Signature.objects.filter(public_key=known.text).order_by("-position")
    about = Event.objects.filter(stream=f"key:{known.key_id}").order_by("-position")
    return render(
        request,
        "coppice/key.html",
        {
            "title": f"Key {facts.key.label}",
            "facts": facts,
            "word": facts.state,
            "colour": _colour(facts),
            "signatures": signatures[:RECENT],
            "events": [audit.entry(row) for row in about[:RECENT]],
        },
    )


def _colour(facts: keys.KeyFacts) -> str:
    return STATES.get(facts.state, "warning")


def _look(request: HttpRequest) -> None:
    if request.method not in READING or not may_see(request):
        raise PermissionDenied
