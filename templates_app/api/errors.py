"""Errors as RFC 9457 problem details: one shape, a stable ``code``, never a trace or a stderr."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoDenied
from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, JsonResponse, UnreadablePostError
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from templates_app import errors

logger = logging.getLogger("coppice.api")

MEDIA_TYPE = "application/problem+json"


def body(error: errors.CoppiceError, request_id: str) -> dict[str, Any]:
    """The problem document of an error. A refusal of the gate is the gate's decision, extended."""
    extra = dict(error.extra)
    code = error.code
    if isinstance(error, errors.GateRefused):
        code = error.gate_code
        extra.update(extra.pop("decision", {}))
    return {
        **extra,
        "type": f"urn:coppice:error:{code}",
        "title": error.title,
        "status": error.status,
        "code": code,
        "detail": error.detail,
        "nextStep": error.next_step,
        "requestId": request_id,
    }


def handle(exc: Exception, context: dict[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER: every exception becomes a problem document."""
    request = context["request"]
    request_id = getattr(request._request, "request_id", "")
    error = translate(exc)
    log = logger.error if error.status >= 500 and error.code == "internal_error" else logger.info
    log(
        "%s %s: %s",
        request.method,
        request.path,
        error.code,
        exc_info=exc if error.code == "internal_error" else None,
        extra={"detail": error.detail, "private": error.private, "status": error.status},
    )
    # Also of an address that answers something else than JSON, such as /docs.
    request.accepted_renderer, request.accepted_media_type = JSONRenderer(), MEDIA_TYPE
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(exc, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    return Response(
        body(error, request_id), status=error.status, content_type=MEDIA_TYPE, headers=headers
    )


def translate(exc: Exception) -> errors.CoppiceError:
    """Any exception as one of ours; what we have no name for is a 500 that says nothing."""
    match exc:
        case errors.CoppiceError():
            return exc
        case exceptions.ValidationError():
            return errors.MalformedRequest(
                "The body or the query does not have the right shape.",
                hint="See /docs for the shape of each request.",
                extra={"errors": exc.detail},
            )
        case exceptions.ParseError():
            return errors.MalformedRequest(str(exc.detail))
        case SuspiciousOperation() | UnreadablePostError():  # the latter: it was cut off
            return errors.MalformedRequest("The request is malformed.")
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return errors.NotAuthenticated(str(exc.detail))
        case exceptions.PermissionDenied() | DjangoDenied():
            return errors.PermissionDenied("Your token's role does not allow this.")
        case exceptions.NotFound() | Http404():
            return errors.NotFound("There is nothing at this address.")
        case exceptions.MethodNotAllowed():
            return errors.MethodNotAllowed(str(exc.detail))
        case exceptions.UnsupportedMediaType():
            return errors.UnsupportedMediaType("Send application/json.")
        case exceptions.NotAcceptable():
            return errors.NotAcceptable("Answers are application/json.")
        case DatabaseError() | InterfaceError():
            return errors.DatabaseUnavailable("The database does not answer.", private=str(exc))
    return errors.CoppiceError("Something failed that has no name yet.", private=repr(exc))


def not_found(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    return _plain(request, errors.NotFound("There is nothing at this address."))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    return _plain(request, errors.MalformedRequest("The request is malformed."))


def server_error(request: HttpRequest) -> JsonResponse:
    return _plain(request, errors.CoppiceError("Something failed that has no name yet."))


def _plain(request: HttpRequest, error: errors.CoppiceError) -> JsonResponse:
    """For what fails before DRF has the request: Django's own handlers."""
    request_id = getattr(request, "request_id", "")
    return JsonResponse(body(error, request_id), status=error.status, content_type=MEDIA_TYPE)
