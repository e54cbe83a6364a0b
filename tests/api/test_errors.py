"""Errors: problem documents of one shape, which say nothing that is not the caller's to know."""

from __future__ import annotations

import re

import pytest
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpResponse
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from coppice_site import urls as site
from templates_app import errors
from templates_app.api.errors import body, translate
from tests.callers import Api, post

MEMBERS = {"type", "title", "status", "code", "detail", "nextStep", "requestId"}
SECRET = "postgres://me:hunter2@db/coppice"


class Broken(APIView):
    """Raises what the test says, as a view with a mistake in it would."""

    permission_classes = ()
    authentication_classes = ()
    error: Exception = RuntimeError(SECRET)

    def get(self, request: Request) -> Response:
        raise self.error


def broken_page(request) -> HttpResponse:
    raise Broken.error


handler400, handler404, handler500 = site.handler400, site.handler404, site.handler500
urlpatterns = [
    path("broken", Broken.as_view()),
    path("broken-page", broken_page),
    *site.urlpatterns,
]


def assert_problem(answer, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() >= MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:coppice:error:{code}"
    assert problem["title"] and problem["detail"]
    assert problem["requestId"] == answer["X-Request-Id"]
    return problem


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("page", ["/broken", "/broken-page"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(SECRET),
        KeyError(SECRET),
        RecursionError(SECRET),
        errors.CoppiceError("Something failed.", private=SECRET),
        errors.ProgramFailed("buildah failed.", private=SECRET),
        OperationalError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_nobody_expected_says_nothing_but_its_request(
    api: Api, monkeypatch, caplog, page: str, error: Exception
):
    monkeypatch.setattr(Broken, "error", error)
    answer = api.anonymous().get(page)
    text = answer.content.decode()
    for told in ("hunter2", "Traceback", "tests/", ".py", type(error).__name__):
        assert told not in text
    if page == "/broken-page":
        assert_problem(answer, 500, "internal_error")
        return  # what our log has of it is Django's affair
    known = translate(error)
    assert_problem(answer, known.status, known.code)
    assert "hunter2" in caplog.text or "hunter2" in str([vars(r) for r in caplog.records])


def test_addresses_that_are_not_there(api: Api):
    client = api.anonymous()
    for path_ in ("/", "/nowhere", "/templates/", "/templates/web/", "/templates//gate", "/Events"):
        assert_problem(client.get(path_), 404, "not_found")


def test_a_host_that_is_not_ours(api: Api):
    answer = api.anonymous().get("/healthz", headers={"Host": "evil.example"})
    assert_problem(answer, 400, "malformed_request")
    assert b"evil.example" not in answer.content


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"{", "application/json", 400, "malformed_request"),
        (b"\xff", "application/json", 400, "malformed_request"),
        (b'{"template": "web", "template": "db"}', "application/json", 400, "malformed_request"),
        (b'{"template": Infinity}', "application/json", 400, "malformed_request"),
        (b'{"template": ' + b"9" * 5000 + b"}", "application/json", 400, "malformed_request"),
        (b"[" * 50_000, "application/json", 400, "malformed_request"),
        (b'{"template": "\\ud800"}', "application/json", 400, "malformed_request"),
        (b'{"template": "\\u0000"}', "application/json", 400, "malformed_request"),
        (b'{"template": "web", "\\ud800": 1}', "application/json", 400, "malformed_request"),
        (b'{"template": "web", "\\u0000": 1}', "application/json", 400, "malformed_request"),
        (b'{"template": {"\\ud800": 1}}', "application/json", 400, "malformed_request"),
        (b'{"template": true}', "application/json", 400, "malformed_request"),
        (b'{"template": 1e999}', "application/json", 400, "malformed_request"),
        (b'{"template": null}', "application/json", 400, "malformed_request"),
        (b'{"template": "web", "name": null}', "application/json", 400, "malformed_request"),
        (b'{"template": "web", "name": ""}', "application/json", 400, "malformed_request"),
        (b'{"template": " web"}', "application/json", 400, "malformed_name"),
        (b'"web"', "application/json", 400, "malformed_request"),
        (b"null", "application/json", 400, "malformed_request"),
        (b"", "application/json", 400, "malformed_request"),
    ],
)
def test_odd_bodies(any_api: Api, content: bytes, kind: str, status: int, code: str):
    client = any_api.as_("gateway")
    assert_problem(client.post("/sandboxes", content, content_type=kind), status, code)


def test_what_is_wrong_with_a_body_is_said_key_by_key(api: Api):
    problem = assert_problem(
        post(api.as_("operator"), "/templates", {"name": "web"}), 400, "malformed_request"
    )
    assert problem["errors"] == {"from": ["This field is required."]}
    slip = post(api.as_("operator"), "/templates", {"name": "web", "from": "x", "farce": True})
    assert slip.json()["errors"] == {"farce": ["There is no such key."]}


def test_an_answer_in_another_format_is_not_to_be_had(api: Api):
    answer = api.as_("auditor").get("/templates", headers={"Accept": "text/html"})
    assert_problem(answer, 406, "not_acceptable")
    assert_problem(
        api.anonymous().get("/healthz", headers={"Accept": "text/html"}), 406, "not_acceptable"
    )


def test_pages_that_are_not_json_fail_in_json_all_the_same(api: Api):
    for page in ("/docs", "/schema"):
        assert_problem(api.anonymous().post(page), 405, "method_not_allowed")


# --- the request's id ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["abcdefgh", "A.b_c-1234567890", "x" * 64])
def test_the_callers_request_id_is_kept_in_the_answer_and_the_log(api: Api, given: str):
    client = api.as_("operator")
    answer = client.post(
        "/templates/reload", {}, content_type="application/json", headers={"X-Request-Id": given}
    )
    assert answer["X-Request-Id"] == given
    (event,) = client.get("/events").json()["events"]
    assert event["meta"]["requestId"] == given
    assert event["meta"] == {
        "actor": "operator",
        "source": "api",
        "requestId": given,
        "node": "test",
    }


@pytest.mark.parametrize(
    "given", ["", "short", "x" * 65, "with space", "new\nline99", "<script>1", "ünïcödé1"]
)
def test_an_odd_request_id_is_replaced(api: Api, given: str):
    answer = api.anonymous().get("/nowhere", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer["X-Request-Id"])
    assert answer.json()["requestId"] == answer["X-Request-Id"]


def test_each_request_has_an_id_of_its_own(api: Api):
    client = api.anonymous()
    assert client.get("/healthz")["X-Request-Id"] != client.get("/healthz")["X-Request-Id"]


# --- the tree of errors --------------------------------------------------------------------------


@pytest.mark.parametrize("error", errors.every_error(), ids=lambda error: error.code)
def test_every_error_of_the_tree_makes_a_problem_document(error: type[errors.CoppiceError]):
    more = {}
    if issubclass(error, errors.PullFailed):
        more["reason"] = "tls"
    if issubclass(error, errors.GateRefused):
        more["gate_code"] = "key_revoked"
    made = error("It is so.", private=SECRET, extra={"digest": "x"}, **more)
    assert translate(made) is made
    document = body(made, "request-1")
    assert document.keys() >= MEMBERS
    assert document["digest"] == "x"
    assert document["code"] == more.get("gate_code", error.code)
    assert 400 <= document["status"] < 600
    assert SECRET not in str(document)


def test_no_extra_member_replaces_one_of_the_seven():
    extra = dict.fromkeys(MEMBERS, "forged")
    assert "forged" not in body(errors.Conflict("It is so.", extra=extra), "r").values()


def test_djangos_own_refusals_have_a_name():
    assert translate(RequestDataTooBig("big")).code == "malformed_request"
