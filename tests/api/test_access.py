"""Who may call what: everything is denied that is not written here."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.urls import URLPattern
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from templates_app import roles as may
from templates_app.api.shared import View
from templates_app.api.urls import urlpatterns
from templates_app.roles import ROLES
from tests.callers import Api

EVERY = frozenset(ROLES)
OPEN = EVERY | {"nobody", "anonymous"}

#: address -> method -> who may. docs/reference/api.md says the same.
ACCESS: dict[str, dict[str, frozenset[str]]] = {
    "templates": {"GET": EVERY, "POST": frozenset({"operator"})},
    "templates/reload": {
        "GET": EVERY,
        "DELETE": frozenset({"operator"}),
        "POST": frozenset({"operator"}),
    },
    "templates/<str:name>": {"GET": EVERY, "DELETE": frozenset({"operator"})},
    "templates/<str:name>/attached": {"GET": EVERY, "POST": frozenset({"operator"})},
    "space": {"GET": EVERY},
    "drift": {"GET": EVERY, "POST": frozenset({"operator"})},
    "findings": {"GET": EVERY},
    "templates/<str:name>/statement": {"GET": EVERY},
    "templates/<str:name>/signatures": {"GET": EVERY, "POST": frozenset({"signer"})},
    "templates/<str:name>/signatures/<str:key>": {"DELETE": frozenset({"operator", "signer"})},
    "templates/<str:name>/gate": {"GET": EVERY},
    "templates/<str:name>/generations": {"GET": EVERY},
    "templates/<str:name>/files": {"GET": EVERY},
    "templates/<str:name>/diff": {"GET": EVERY},
    "templates/<str:name>/evidence": {"GET": EVERY},
    "templates/<str:name>/verify": {"POST": frozenset({"operator"})},
    "templates/<str:name>/rollback": {"POST": frozenset({"operator"})},
    "templates/<str:name>/events": {"GET": EVERY},
    "templates/<str:name>/import": {"GET": EVERY},
    "keys": {"GET": EVERY, "POST": frozenset({"operator"})},
    "keys/<str:key>": {"GET": EVERY},
    "keys/<str:key>/revoke": {"POST": frozenset({"operator", "signer"})},
    "log/checkpoint": {"GET": EVERY},
    "log/proof/inclusion": {"GET": EVERY},
    "log/proof/consistency": {"GET": EVERY},
    "log/entries": {"GET": EVERY},
    "events": {"GET": EVERY},
    "digests/<str:digest>": {"GET": EVERY},
    "sandboxes": {"GET": EVERY, "POST": frozenset({"gateway"})},
    "sandboxes/<str:sandbox_id>": {"GET": EVERY, "DELETE": frozenset({"gateway"})},
    "healthz": {"GET": OPEN},
    "readyz": {"GET": OPEN},
    "metrics": {"GET": EVERY},
    "schema": {"GET": OPEN},
    "docs": {"GET": OPEN},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def views() -> dict[str, type[APIView]]:
    assert all(isinstance(one, URLPattern) for one in urlpatterns)
    return {str(one.pattern): one.callback.cls for one in urlpatterns}


def address(pattern: str) -> str:
    path = pattern.replace("<str:name>", "web").replace("<str:sandbox_id>", "one")
    return "/" + path.replace("<str:digest>", "sha256:" + "0" * 64)


def test_every_address_and_method_stands_in_the_table():
    """Whoever adds a view or a method says here who may use it."""
    built = {
        pattern: set(view().allowed_methods) - {"OPTIONS", "HEAD"}
        for pattern, view in views().items()
    }
    assert built == {pattern: set(methods) for pattern, methods in ACCESS.items()}


def test_every_view_says_what_each_of_its_methods_needs():
    for pattern, view in views().items():
        if OPEN not in ACCESS[pattern].values():
            assert issubclass(view, View), pattern
            assert set(view.needs) == set(ACCESS[pattern]), pattern


@pytest.mark.parametrize("pattern", ACCESS)
def test_each_role_may_do_what_the_table_says_and_no_more(api: Api, pattern: str):
    for role in ("anonymous", "nobody", *sorted(ROLES)):
        client = api.anonymous() if role == "anonymous" else api.as_(*({role} - {"nobody"}))
        for method in METHODS:
            answer = client.generic(method, address(pattern), "{}", "application/json")
            code = ""
            if answer.get("Content-Type") == "application/problem+json" and method != "HEAD":
                code = answer.json()["code"]
            allowed = ACCESS[pattern].get("GET" if method == "HEAD" else method)
            said = f"{role} {method} /{pattern}: {answer.status_code} {code}"
            open_to_all = OPEN in ACCESS[pattern].values()
            if role == "anonymous" and not open_to_all:
                assert answer.status_code == 401, said
                assert answer["WWW-Authenticate"] == "Bearer", said
            elif method == "OPTIONS":
                assert answer.status_code == (405 if pattern == "docs" else 200), said
            elif allowed is None:
                assert answer.status_code == 405, said
                assert method == "HEAD" or code == "method_not_allowed", said
                assert method not in answer["Allow"], said
            elif role in allowed:
                assert answer.status_code not in (401, 403, 405, 500), said
            else:
                assert answer.status_code == 403, said
                assert method == "HEAD" or code == "permission_denied", said


def test_two_roles_may_do_what_either_may(api: Api):
    client = api.as_("auditor", "signer")
    answer = client.post("/templates/web/signatures", {}, content_type="application/json")
    assert answer.status_code == 400
    assert client.delete("/sandboxes/one").status_code == 403


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x", "Bearer a b", "Token {}", "Basic eDp5", "{}", "Bearer é"],
)
def test_what_is_not_a_token_is_not_taken(api: Api, header: str):
    client = api.anonymous()
    answer = client.get(
        "/templates", headers={"Authorization": header.format(api.token("auditor"))}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_an_expired_token_is_not_taken(api: Api):
    assert api.bearing(api.token("auditor", days=-0.001)).get("/templates").status_code == 401
    assert api.bearing(api.token("auditor")).get("/templates").status_code == 200


def test_a_token_ends_with_its_user(api: Api):
    token = api.token("auditor")
    User.objects.filter(username="auditor").update(is_active=False)
    assert api.bearing(token).get("/templates").status_code == 401
    User.objects.filter(username="auditor").delete()
    assert api.bearing(token).get("/templates").status_code == 401


def test_a_role_that_is_taken_away_is_gone_at_once(api: Api):
    client = api.as_("operator")
    assert client.post("/templates/reload", {}, content_type="application/json").status_code == 200
    User.objects.get(username="operator").groups.clear()
    assert client.post("/templates/reload", {}, content_type="application/json").status_code == 403


def test_a_login_to_the_auditors_pages_opens_nothing_here(api: Api):
    client = api.anonymous()
    client.force_login(User.objects.create_superuser("root", password="x"))
    assert client.get("/templates").status_code == 401


class Forgetful(View):
    """As somebody may write it in a hurry."""

    needs = {"GET": may.VIEW}

    def get(self, request: Request) -> Response:
        return Response({})

    def post(self, request: Request) -> Response:
        return Response({"done": True})


class Undecided(APIView):
    def get(self, request: Request) -> Response:
        return Response({})


@pytest.mark.parametrize(("view", "method"), [(Forgetful, "post"), (Undecided, "get")])
def test_a_view_that_forgot_to_say_who_may_use_it_is_used_by_nobody(api: Api, view, method: str):
    request = getattr(APIRequestFactory(), method)("/")
    api.token(*ROLES)
    user = User.objects.create_superuser("root")
    force_authenticate(request, user)
    assert view.as_view()(request).status_code == 403
