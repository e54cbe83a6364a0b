"""Who may call what: nobody, unless a view says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # at run time rest_framework.views imports this module first: it is a setting
    from rest_framework.views import APIView


class Denied(BasePermission):
    """The default: a view that forgot to say who may use it is used by nobody."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return False


class Needs(BasePermission):
    """Each method needs the permission that the view's ``needs`` names for it."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needs: dict[str, str] = getattr(view, "needs", {})
        needed = needs.get("GET" if request.method == "HEAD" else request.method or "")
        if needed is None:
            # An unknown method is answered 405 by the view, but only to somebody with a token.
            return bool(request.user)
        return bool(request.user) and request.user.has_perm(needed)
