"""What the registry holds about a template's image."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api import serializers as shapes
from templates_app.api.openapi import NAME, problems
from templates_app.api.shared import View, who
from templates_app.services import attached, queries


class Evidence(View):
    needs = {"GET": may.VIEW, "POST": may.OPERATE}

    @extend_schema(
        operation_id="templates_attached",
        parameters=[NAME],
        responses={200: shapes.Attached(many=True), **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """What the last look at the registry found about the current generation's image."""
        row = queries.template(name=name).template
        found: Any = attached.of(row.name, row.current.number)
        return Response(shapes.Attached(found, many=True).data)

    @extend_schema(
        operation_id="templates_attached_fetch",
        parameters=[NAME],
        request=None,
        responses={200: shapes.Attached(many=True), **problems(409, 415, 507)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Ask the registry now, keep what is small, hold signatures against the cosign keys."""
        found: Any = attached.fetch(name=name, context=who(request))
        return Response(shapes.Attached(found, many=True).data)
