"""All about a template in one file, for auditors: templates_app/evidence/VERIFY.md says how."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from templates_app import roles as may
from templates_app.api.openapi import NAME, problems
from templates_app.api.shared import View, who
from templates_app.api.trees import GENERATION, generation_of
from templates_app.services import evidence


class Evidence(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_evidence",
        parameters=[NAME, GENERATION],
        responses={(200, evidence.TAR): OpenApiTypes.BINARY, **problems(409)},
    )
    def get(self, request: Request, name: str) -> HttpResponse:
        """Statement, signatures, manifest, image, events with proofs: checked without Coppice."""
        bundle = evidence.export(
            name=name, number=generation_of(request, "generation"), context=who(request)
        )
        return HttpResponse(bundle.tar(), content_type=evidence.TAR, headers=bundle.headers)
