"""What the views share: who asks, bodies and queries in their shapes, tags."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from django.utils.http import parse_etags
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from templates_app.api import serializers as shapes
from templates_app.api.permissions import Needs
from templates_app.errors import PreconditionFailed, TemplateNotFound
from templates_app.events import Meta
from templates_app.services import common, queries

_KEY = re.compile(r"[!-~]{1,255}")


def who(request: Request) -> Meta:
    return common.context(
        actor=request.user.get_username(),
        source="api",
        request_id=getattr(request._request, "request_id", ""),
    )


class View(APIView):
    """A view whose ``needs`` names the permission for each method; others are 405."""

    permission_classes = [Needs]
    needs: dict[str, str] = {}


def checked(shape: type[Any], data: Any) -> dict[str, Any]:
    """The request's body in its shape; an unknown key is an error, not a silent typing slip."""
    if not isinstance(data, dict):
        raise ValidationError({"body": ["It must be a JSON object."]})
    serializer = shape(data=data)
    unknown = sorted(set(data) - set(serializer.fields))
    if unknown:
        # Escaped: JSON may name a key with half a surrogate pair, which no answer could carry.
        raise ValidationError({ascii(key)[1:-1][:80]: ["There is no such key."] for key in unknown})
    serializer.is_valid(raise_exception=True)
    for key, value in data.items():
        # DRF turns numbers and "yes" into text and truth; what was sent must be what is meant.
        found = serializer.validated_data[key]
        wanted = type(found) if isinstance(found, bool | int | list) else str
        texts = wanted is not list or all(type(one) is str for one in value)
        if type(value) is not wanted or not texts:
            raise ValidationError({key: [f"It must be a {wanted.__name__}."]})
    return dict(serializer.validated_data)


def flag(request: Request, name: str) -> bool | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise ValidationError({name: ["It must be true or false."]})
    return text == "true"


def number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise ValidationError({name: [f"It must be a whole number from 0 to {most}."]})
    return int(text)


def _etag(data: Any) -> str:
    return f'"{hashlib.sha256(JSONRenderer().render(data)).hexdigest()[:32]}"'


def unless_changed(request: Request, name: str) -> None:
    """PreconditionFailed unless ``If-Match`` is absent, ``*``, or has the template's tag."""
    wanted = request.headers.get("If-Match")
    if wanted is None:
        return
    try:
        data = shapes.Template(queries.template(name=name)).data
    except TemplateNotFound as gone:
        raise PreconditionFailed(f"There is no template {name}.") from gone
    if not {_etag(data), "*"} & set(parse_etags(wanted)):
        raise PreconditionFailed("It has changed since the tag in If-Match was given out.")


def tagged(request: Request, data: Any) -> Response:
    """200 with an ETag over the very bytes, or 304 where the caller has them already."""
    etag = _etag(data)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    # Compared weakly (RFC 9110 section 13.1.2): a proxy that compresses makes the tag a weak one.
    wanted = parse_etags(request.headers.get("If-None-Match", ""))
    if etag in {tag.removeprefix("W/") for tag in wanted} or "*" in wanted:
        return Response(status=304, headers=headers)
    return Response(data, headers=headers)


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise ValidationError({"Idempotency-Key": ["It must be 1 to 255 visible ASCII letters."]})
    return key
