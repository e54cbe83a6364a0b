"""Space: what generations take of the pool's disk, and what they share."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as s
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api.openapi import problems, query
from templates_app.api.serializers import NAME
from templates_app.api.shared import View
from templates_app.services import space


class GenerationSpace(s.Serializer[space.GenerationSpace]):
    template = s.CharField()
    generation = s.IntegerField()
    current = s.BooleanField()
    dataset = s.CharField()
    referencedBytes = s.IntegerField(source="referenced_bytes")
    uniqueBytes = s.IntegerField(
        source="unique_bytes", help_text="Free without it and whatever is cloned from it."
    )
    sharedBytes = s.IntegerField(source="shared_bytes", help_text="The rest, which `origin` has.")
    origin = s.CharField(allow_null=True)
    clones = s.ListField(
        child=s.CharField(), help_text="Aliases, sandboxes, and what is ready to be one."
    )
    clonesBytes = s.IntegerField(source="clones_bytes", help_text="What these have of their own.")


class SpaceReport(s.Serializer[space.Report]):
    pool = s.CharField()
    availableBytes = s.IntegerField(source="available_bytes")
    usedBytes = s.IntegerField(source="used_bytes")
    marginBytes = s.IntegerField(source="margin_bytes", help_text="What an import leaves free.")
    layersBytes = s.IntegerField(
        source="layers_bytes", allow_null=True, help_text="Of layer states; null on `dir:`."
    )
    cacheBytes = s.IntegerField(source="cache_bytes", help_text="Of blobs, in the state directory.")
    cacheAvailableBytes = s.IntegerField(source="cache_available_bytes")
    generations = GenerationSpace(many=True)


class Space(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="space",
        parameters=[query("template", NAME, "Only this template's generations.")],
        responses={200: SpaceReport, **problems()},
    )
    def get(self, request: Request) -> Response:
        """What each generation takes, asked of the pool now; on `dir:` every file is looked at."""
        found: Any = space.report(name=request.query_params.get("template"))
        return Response(SpaceReport(found).data)
