"""What the OpenAPI document says beside the shapes: parameters, headers, errors, tokens."""

from __future__ import annotations

from typing import Any

from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from drf_spectacular.utils import OpenApiParameter
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app.api import serializers as shapes
from templates_app.api.errors import MEDIA_TYPE

MAX_PAGE = 500  # events
MAX_POSITION = 2**53 - 1  # what every JSON reader gets right

#: The pages of /docs: files of this server, and the style attributes that Swagger UI sets.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


class TokenScheme(KnoxTokenScheme):  # type: ignore[no-untyped-call]
    """Our tokens are knox's."""

    target_class = "templates_app.api.permissions.Token"


class Docs(SpectacularSwaggerSplitView):
    metadata_class = None  # it has no template for an answer to OPTIONS

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        response["Content-Security-Policy"] = POLICY
        return super().finalize_response(request, response, *args, **kwargs)


def problems(*statuses: int) -> dict[Any, Any]:
    """The problem documents that an operation may answer, beside those that every one may."""
    return {
        (status, MEDIA_TYPE): shapes.Problem for status in (400, 401, 403, 404, 406, 503, *statuses)
    }


def query(name: str, kind: Any = str, help_text: str = "") -> OpenApiParameter:
    return OpenApiParameter(name, kind, OpenApiParameter.QUERY, description=help_text)


def whole(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": most}


def _path(name: str, schema: dict[str, str]) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.PATH)


def _header(name: str, help_text: str, *statuses: int | str) -> OpenApiParameter:
    """A header of the answers with these statuses."""
    return OpenApiParameter(
        name, str, OpenApiParameter.HEADER, response=list(statuses), description=help_text
    )


NAME = _path("name", shapes.NAME)
SANDBOX_ID = _path("sandbox_id", shapes.NAME)
DIGEST = _path("digest", shapes.DIGEST)
ETAG = (
    _header("ETag", "Of these very bytes; send it as If-None-Match.", 200, 304),
    OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="An ETag."),
)
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="The ETag of what is meant: else 412."
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    OpenApiParameter.HEADER,
    description="Of the caller's choice: the same request with the same key is done once.",
)
LOCATION = _header("Location", "The new thing's address.", 201)
