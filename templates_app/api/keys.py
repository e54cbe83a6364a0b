"""Keys: trust, revoke, look at them; withdraw a signature. docs/reference/signatures.md."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api import shapes_keys as shapes
from templates_app.api.openapi import LOCATION, NAME, problems, query
from templates_app.api.shared import View, checked, flag, who
from templates_app.services import keys, signing

_KEY = OpenApiParameter(
    "key",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    description="The key's number (16 hexadecimal digits), or its label.",
)


class Keys(View):
    needs = {"GET": may.VIEW, "POST": may.TRUST_KEY}

    @extend_schema(operation_id="keys_list", responses={200: shapes.Key(many=True), **problems()})
    def get(self, request: Request) -> Response:
        """All keys that are known, by label: of the log, and of the directory."""
        return Response(shapes.Key(keys.every(), many=True).data)  # type: ignore[arg-type]

    @extend_schema(
        operation_id="keys_trust",
        parameters=[LOCATION],
        request=shapes.TrustRequest,
        responses={201: shapes.Key, **problems(409, 415, 422, 507)},
    )
    def post(self, request: Request) -> Response:
        """Trust a key within limits; or give one that is trusted other limits."""
        wanted = checked(shapes.TrustRequest, request.data)
        recorded = keys.trust(
            wanted=keys.Wanted(
                public_key=wanted["publicKey"],
                label=wanted["label"],
                owner=wanted["owner"],
                not_before=wanted.get("notBefore"),
                not_after=wanted.get("notAfter"),
                scope=wanted.get("scope", ()),
                predecessor=wanted.get("predecessor"),
                announcement=wanted.get("announcement"),
            ),
            context=who(request),
        )
        key_id = recorded.stream.partition(":")[2]
        return Response(
            shapes.Key(keys.find(key=key_id)).data,
            status=201,
            headers={"Location": f"/keys/{key_id}"},
        )


class OneKey(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="keys_show", parameters=[_KEY], responses={200: shapes.Key, **problems(409)}
    )
    def get(self, request: Request, key: str) -> Response:
        return Response(shapes.Key(keys.find(key=key)).data)


class Revoke(View):
    needs = {"POST": may.REVOKE_KEY}

    @extend_schema(
        operation_id="keys_revoke",
        parameters=[_KEY],
        request=shapes.RevokeRequest,
        responses={200: shapes.Revocation, **problems(409, 415, 507)},
    )
    def post(self, request: Request, key: str) -> Response:
        """Revoke a key, for ever. `dryRun` answers the same, and changes nothing."""
        wanted = checked(shapes.RevokeRequest, request.data)
        revoked = keys.revoke(
            key=key,
            reason=wanted["reason"],
            since=wanted.get("since"),
            note=wanted.get("note", ""),
            dry_run=wanted["dryRun"],
            context=who(request),
        )
        return Response(shapes.Revocation(revoked).data)


class Withdraw(View):
    needs = {"DELETE": may.REVOKE_KEY}

    @extend_schema(
        operation_id="signatures_withdraw",
        parameters=[
            NAME,
            _KEY,
            query("dryRun", OpenApiTypes.BOOL, "Only say what would change."),
            query("note", str, "Kept in the log: why. At most 500 characters."),
        ],
        responses={200: shapes.Withdrawal, **problems(409, 507)},
    )
    def delete(self, request: Request, name: str, key: str) -> Response:
        """Withdraw a key's signature over the current statement, for ever."""
        withdrawn = signing.withdraw(
            name=name,
            key=key,
            note=request.query_params.get("note", ""),
            dry_run=flag(request, "dryRun") or False,
            context=who(request),
        )
        return Response(shapes.Withdrawal(withdrawn).data)
