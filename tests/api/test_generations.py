"""Addresses of a template's generations: what they take, and who may use them."""

from __future__ import annotations

import pytest

from tests.callers import Api, post


def test_the_generations_of_a_template_are_listed(api: Api):
    api.adopt("web")
    (row,) = api.as_("auditor").get("/templates/web/generations").json()
    assert (row["generation"], row["current"], row["adopted"]) == (0, True, True)
    assert row["clones"] == [] and row["digest"] is None
    missing = api.as_("auditor").get("/templates/db/generations")
    assert (missing.status_code, missing.json()["code"]) == (404, "template_not_found")


@pytest.mark.parametrize("to", ["1", True, 1.0, 0, -1, 2**31, None, [1]])
def test_a_rollback_takes_a_whole_number(api: Api, to: object):
    api.adopt("web")
    answer = post(api.as_("operator"), "/templates/web/rollback", {"to": to})
    assert answer.status_code == 400
    assert "to" in answer.json()["errors"]


def test_a_rollback_finds_nothing_to_go_back_to(api: Api):
    api.adopt("web")
    operator = api.as_("operator")
    for body in ({}, {"to": 3}):
        answer = post(operator, "/templates/web/rollback", body)
        assert (answer.status_code, answer.json()["code"]) == (404, "generation_not_found")
    assert post(operator, "/templates/db/rollback", {}).json()["code"] == "template_not_found"
    assert post(api.as_("gateway"), "/templates/web/rollback", {}).status_code == 403


def test_what_has_changed_is_not_signed_imported_or_rolled_back(api: Api):
    api.adopt("web")
    api.trust()
    tag = api.as_("signer").get("/templates/web").headers["ETag"]
    body = {"signature": api.signature("web")}
    calls = [
        ("signer", "/templates/web/signatures", body),
        ("operator", "/templates", {"name": "web", "from": "oci:h.example/x:1", "force": True}),
        ("operator", "/templates", {"name": "db", "from": "oci:h.example/x:1"}),
    ]
    for role, path, sent in calls:
        answer = api.as_(role).post(
            path, sent, content_type="application/json", headers={"If-Match": '"another"'}
        )
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    signed = api.as_("signer").post(
        "/templates/web/signatures",
        body,
        content_type="application/json",
        headers={"If-Match": tag},
    )
    assert signed.status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "\u00e9"])
def test_an_idempotency_key_is_visible_ascii(api: Api, key: str):
    answer = api.as_("operator").post(
        "/templates",
        {"name": "web", "from": "oci:h.example/x:1"},
        content_type="application/json",
        headers={"Idempotency-Key": key},
    )
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["errors"]
