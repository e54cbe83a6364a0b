"""Who is calling, and who may call what: nobody, unless a view says otherwise."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, cast

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from knox.models import AuthToken
from knox.settings import CONSTANTS
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from templates_app import sql

if TYPE_CHECKING:  # at run time rest_framework.views imports this module first: it is a setting
    from rest_framework.views import APIView


_OWNER = ("id", "is_superuser", "username", "is_active")  # in the model's order, as from_db reads
#: What the owner may do, by itself and by its groups: app.codename, spaces between.
_GRANTS = """
(SELECT {join}(c.app_label || '.' || p.codename, ' ')
  FROM auth_permission p JOIN django_content_type c ON c.id = p.content_type_id
  WHERE p.id IN (
    SELECT o.permission_id FROM auth_user_user_permissions o WHERE o.user_id = u.id
    UNION SELECT g.permission_id FROM auth_user_groups m
      JOIN auth_group_permissions g ON g.group_id = m.group_id WHERE m.user_id = u.id))
"""
_JOIN = {"postgresql": "string_agg", "sqlite": "group_concat"}
_TOKENS = {
    vendor: f"SELECT t.digest, t.expiry < %s, {_GRANTS.format(join=join)}, "  # noqa: S608
    + ", ".join(f"u.{name}" for name in _OWNER)
    + " FROM knox_authtoken t JOIN auth_user u ON u.id = t.user_id WHERE t.token_key = %s"
    for vendor, join in _JOIN.items()
}


class Token(TokenAuthentication):  # type: ignore[misc]  # knox has no types
    """knox's tokens, with their owners: one question, and nothing is remembered between two.

    ``request.auth`` is what the owner may do. knox's own class looks besides at all other tokens of
    the owner, and fails on one that is not UTF-8, which anybody can send.
    """

    def authenticate_credentials(self, token: bytes) -> tuple[User, frozenset[str]]:
        if not (token.isascii() and token.isalnum()):
            raise AuthenticationFailed("Invalid token.")
        text = token.decode()
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        digest = hash_token(text)
        asked = [now, text[: CONSTANTS.TOKEN_KEY_LENGTH]]
        for known, expired, grants, *owner in sql.rows(_TOKENS[connection.vendor], asked):
            if expired:
                AuthToken.objects.filter(pk=known).delete()
            elif compare_digest(digest, known):
                # What else a user has is fetched where somebody asks for it.
                user = User.from_db(connection.alias, _OWNER, owner)
                if not user.is_active:
                    raise AuthenticationFailed("User inactive or deleted.")
                return user, frozenset((grants or "").split())
        raise AuthenticationFailed("Invalid token.")


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
            # As has_perm of Django's own backend; who is not active was not let in.
            grants = cast("frozenset[str] | None", request.auth) or frozenset()
            return request.user.is_superuser or needed in grants
        # Whoever has a token may ask what there is (OPTIONS), and hears 405 of a method that the
        # view does not have. One that it has and forgot to say the need of is nobody's.
        return request.method == "OPTIONS" or request.method not in view.allowed_methods
