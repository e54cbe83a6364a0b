"""The log as a Merkle tree, for auditors who do not trust this server: docs/reference/log.md."""

from __future__ import annotations

import base64

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api import serializers as shapes
from templates_app.api.openapi import MAX_PAGE, MAX_POSITION, problems, query, whole
from templates_app.api.shared import View, number
from templates_app.services import proofs

_LINES = "application/x-ndjson"


def _text(body: bytes) -> HttpResponse:
    return HttpResponse(body, content_type="text/plain; charset=utf-8")


class Checkpoint(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="log_checkpoint",
        responses={(200, "text/plain"): OpenApiTypes.STR, **problems(409)},
    )
    def get(self, request: Request) -> HttpResponse:
        """The newest signed checkpoint, a note of C2SP tlog-checkpoint."""
        return _text(proofs.newest()[1])


class Inclusion(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="log_inclusion",
        parameters=[query("position", whole(MAX_POSITION), "The event's position.")],
        responses={(200, "text/plain"): OpenApiTypes.STR, **problems(409)},
    )
    def get(self, request: Request) -> HttpResponse:
        """A proof that the event is in the log, with the newest checkpoint (C2SP tlog-proof)."""
        position = number(request, "position", 0, MAX_POSITION)
        return _text(proofs.inclusion(position=position).text())


class Consistency(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="log_consistency",
        parameters=[
            query("first", whole(MAX_POSITION), "The number of events of an earlier checkpoint."),
            query("second", whole(MAX_POSITION), "That of a later one."),
        ],
        responses={200: shapes.Consistency, **problems(409)},
    )
    def get(self, request: Request) -> Response:
        """A proof that the log only grew between two sizes (RFC 9162 section 2.1.4)."""
        found = proofs.consistency(
            first=number(request, "first", 0, MAX_POSITION),
            second=number(request, "second", 0, MAX_POSITION),
        )
        return Response(
            {
                "first": found.first,
                "second": found.second,
                "firstRoot": _base64(found.first_root),
                "secondRoot": _base64(found.second_root),
                "hashes": [_base64(one) for one in found.hashes],
            }
        )


class Entries(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="log_entries",
        parameters=[
            query("start", whole(MAX_POSITION), "The first position; 1 where nothing is said."),
            query("end", whole(MAX_POSITION), "The last position that is wanted."),
            query("limit", whole(MAX_PAGE), "At most this many; 100 where nothing is said."),
        ],
        responses={(200, _LINES): OpenApiTypes.STR, **problems()},
    )
    def get(self, request: Request) -> HttpResponse:
        """Events as they were recorded and hashed, one JSON object a line, as `export_events`."""
        start = max(number(request, "start", 1, MAX_POSITION), 1)
        limit = number(request, "limit", 100, MAX_PAGE)
        last = number(request, "end", MAX_POSITION, MAX_POSITION)
        lines = proofs.entries(start=start, end=min(last, start + limit - 1))
        return HttpResponse("".join(f"{line}\n" for line in lines), content_type=_LINES)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
