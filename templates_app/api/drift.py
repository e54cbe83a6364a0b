"""Drift: whether tags still name what was imported from them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as s
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api.openapi import ETAG, problems
from templates_app.api.serializers import Name
from templates_app.api.shared import View, checked, tagged, who
from templates_app.services import drift


class DriftRequest(s.Serializer[Any]):
    templates = s.ListField(
        child=Name(), required=False, help_text="Only these; all where nothing is said."
    )


class Standing(s.Serializer[drift.Standing]):
    template = s.CharField()
    generation = s.IntegerField()
    reference = s.CharField(allow_blank=True)
    state = s.ChoiceField(
        choices=[drift.CURRENT, drift.MOVED, drift.GONE, drift.UNREACHABLE, drift.PINNED]
    )
    importedDigest = s.CharField(
        source="imported_digest",
        allow_blank=True,
        help_text="What the reference named at the import: an index, or a manifest.",
    )
    foundDigest = s.CharField(
        source="found_digest", allow_null=True, help_text="What it moved to, where it did."
    )
    since = s.DateTimeField(
        allow_null=True, help_text="When it was first found moved or gone, where it is."
    )
    detail = s.CharField(allow_blank=True, help_text="Why the registry could not be asked.")
    changed = s.BooleanField(help_text="Whether this look found another state: it has an event.")


class Drift(View):
    needs = {"GET": may.VIEW, "POST": may.OPERATE}

    @extend_schema(
        operation_id="drift_show",
        parameters=[*ETAG],
        responses={200: Standing(many=True), 304: None, **problems()},
    )
    def get(self, request: Request) -> Response:
        """What the last looks found, of each template; no registry is asked."""
        rows: Any = drift.known()
        return tagged(request, Standing(rows, many=True).data)

    @extend_schema(
        operation_id="drift_check",
        request=DriftRequest,
        responses={200: Standing(many=True), **problems(409, 415, 507)},
    )
    def post(self, request: Request) -> Response:
        """Ask the registries what the tags name now; `unreachable` where one does not answer."""
        wanted = checked(DriftRequest, request.data)
        found: Any = drift.check(names=wanted.get("templates", ()), context=who(request))
        return Response(Standing(found, many=True).data)
