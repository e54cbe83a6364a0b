"""For those who watch: alive, ready, figures. Alive needs no token and touches nothing."""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.http import HttpResponse
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app import store, triggers
from templates_app.api import serializers as shapes
from templates_app.api.errors import MEDIA_TYPE
from templates_app.api.openapi import problems
from templates_app.api.shared import View
from templates_app.errors import CoppiceError
from templates_app.services import common, ledger

#: For who asks for another format than JSON.
UNHEARD = {(406, MEDIA_TYPE): shapes.Problem}


class Alive(View):
    permission_classes = [AllowAny]
    authentication_classes = ()

    @extend_schema(operation_id="healthz", auth=[], responses={200: shapes.Health, **UNHEARD})
    def get(self, request: Request) -> Response:
        """The process answers."""
        return Response({"status": "ok"})


class Ready(View):
    """503 while something is missing that an import or a launch needs; says which."""

    permission_classes = [AllowAny]
    authentication_classes = ()

    @extend_schema(
        operation_id="readyz",
        auth=[],
        responses={200: shapes.Readiness, 503: shapes.Readiness, **UNHEARD},
    )
    def get(self, request: Request) -> Response:
        """Database, the log's triggers and the pool are usable, or which of them is not.

        Beside that how old the newest checkpoint of the log is: nothing waits for it.
        """
        checks = {"database": "ok", "log": "ok", "pool": "ok"}
        try:
            if gone := triggers.missing(connection):
                checks["log"] = f"{len(gone)} of the log's triggers are gone"
        except Exception as error:  # noqa: BLE001 - any failure here is the answer, with its kind
            checks["database"] = checks["log"] = type(error).__name__
        try:
            common.driver().check()
        except Exception as error:  # noqa: BLE001 - as above
            checks["pool"] = getattr(error, "code", type(error).__name__)
        ready = all(state == "ok" for state in checks.values())
        status = "ok" if ready else "not ready"
        answer = {"status": status, "checks": checks, "checkpoint": _checkpoint()}
        return Response(answer, status=200 if ready else 503)


def _checkpoint() -> dict[str, int] | None:
    try:
        standing = ledger.standing(events=store.size())
    except (CoppiceError, DatabaseError):  # what is wrong, the checks say: nobody waits for this
        return None
    if standing is None:
        return None
    age = max(round(standing.age.total_seconds()), 0)  # the file's time is another clock's
    return {"ageSeconds": age, "behind": standing.behind}


class Metrics(View):
    needs = {"GET": may.VIEW}

    @extend_schema(operation_id="metrics", responses={(200, "text/plain"): str, **problems()})
    def get(self, request: Request) -> HttpResponse:
        """Figures in Prometheus's text format; its scraper needs a token of an auditor."""
        answer: HttpResponse = ExportToDjangoView(request._request)
        return answer
