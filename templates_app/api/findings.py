"""Findings: the open ones, and the reload that looks for them."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api import serializers, shapes_findings
from templates_app.api.openapi import ETAG, problems, query
from templates_app.api.shared import View, checked, tagged, who
from templates_app.api.views import Template
from templates_app.services import noticed, reload


class Findings(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="findings_list",
        parameters=[
            query("template", serializers.NAME, "Only those that touch this template."),
            *ETAG,
        ],
        responses={200: shapes_findings.OpenFinding(many=True), 304: None, **problems()},
    )
    def get(self, request: Request) -> Response:
        """What the last looks at the pool noticed and nothing has cleared, the newest first."""
        rows = noticed.findings(template=request.query_params.get("template"))
        return tagged(request, shapes_findings.OpenFinding(rows, many=True).data)


class Reload(Template):
    """A template may be called "reload" too: its address still answers GET and DELETE."""

    needs = {**Template.needs, "POST": may.OPERATE}

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:  # type: ignore[override]
        return super().get(request, "reload")

    @extend_schema(exclude=True)
    def delete(self, request: Request) -> Response:  # type: ignore[override]
        return super().delete(request, "reload")

    @extend_schema(
        operation_id="templates_reload",
        request=shapes_findings.ReloadRequest,
        responses={200: shapes_findings.Reloaded, **problems(409, 415, 422, 507)},
    )
    def post(self, request: Request) -> Response:
        """Compare pool and log; answers what was added, changed, missing, returned, found, fixed.

        With `dryRun` nothing changes, and no event says so.
        """
        wanted = checked(shapes_findings.ReloadRequest, request.data)
        how = {"fix": wanted["fix"], "verify": wanted["verify"]}
        if wanted["dryRun"]:
            return Response(reload.explained(reload.preview(**how)))
        recorded = reload.reload(context=who(request), **how)
        return Response(reload.explained(recorded.event, recorded.position))
