"""Who is calling, and who may call what: nobody, unless a view says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # at run time rest_framework.views imports this module first: it is a setting
    from rest_framework.views import APIView


class Token(TokenAuthentication):  # type: ignore[misc]  # knox has no types
    """knox's tokens; its own class fails on one that is not UTF-8, which anybody can send."""

    def authenticate_credentials(self, token: bytes) -> Any:
        if not (token.isascii() and token.isalnum()):
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)


class Denied(BasePermission):
    """The default: a view that forgot to say who may use it is used by nobody."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return False


class Needs(BasePermission):
    """Each method needs the permission that the view's ``needs`` names for it."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not request.user:
            return False
        needs: dict[str, str] = getattr(view, "needs", {})
        needed = needs.get("GET" if request.method == "HEAD" else request.method or "")
        if needed is not None:
            return bool(request.user.has_perm(needed))
        # Whoever has a token may ask what there is (OPTIONS), and hears 405 of a method that the
        # view does not have. One that it has and forgot to say the need of is nobody's.
        return request.method == "OPTIONS" or request.method not in view.allowed_methods
