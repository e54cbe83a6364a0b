"""What is answered: shapes, headers, filters, the feed."""

from __future__ import annotations

import json
import os
import time

import pytest
from django.conf import settings
from django.utils.dateparse import parse_datetime

from templates_app import store
from templates_app.events import Meta, SandboxDestroyed
from templates_app.models import Lease
from templates_app.services import ledger
from tests import house
from tests.callers import Api, post

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


def names(answer) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [template["name"] for template in answer.json()]


# --- templates -----------------------------------------------------------------------------------


def test_templates_come_in_name_order_with_all_their_keys(api: Api):
    api.adopt("web", "db")
    answer = api.as_("auditor").get("/templates")
    assert names(answer) == ["db", "web"]
    (web,) = (one for one in answer.json() if one["name"] == "web")
    assert web["snapshot"] == f"{api.pool}/web-template@base"
    assert (web["generation"], web["adopted"], web["digest"]) == (0, True, None)
    assert web["digests"] == {"index": None, "manifest": None, "config": None}
    assert (web["signed"], web["blocked"], web["missing"]) == (False, True, False)
    assert web["importedBy"] == "tests"
    assert parse_datetime(web["importedAt"]).utcoffset().total_seconds() == 0
    assert web == api.as_("auditor").get("/templates/web").json()


def test_a_signature_leaves_a_checkpoint_of_the_log(any_api: Api):
    any_api.adopt("web")
    any_api.trust()
    any_api.sign("web")
    kept = settings.COPPICE_STATE_DIR / "log" / "checkpoints"
    assert [one.name for one in kept.glob("*.note")] == [f"checkpoint-{store.size():012}.note"]


def test_an_event_that_this_program_cannot_read_does_not_end_the_feed(any_api: Api):
    any_api.adopt("web")
    client = any_api.as_("auditor")
    before = client.get("/events?limit=500").json()["events"]
    position = house.strange("template-praised", '{"praise": "loud"}', "web")
    store.append(SandboxDestroyed(sandbox="s", template="web", dataset="z/s"), meta=META)
    feed = client.get("/events?limit=500").json()["events"]
    assert [one["position"] for one in feed] == list(range(1, position + 2))
    # Those that it can read are what they are in a feed without it.
    assert feed[: len(before)] == before
    odd = feed[position - 1]
    assert (odd["type"], odd["schema"], odd["data"]) == ("template-praised", 9, {"praise": "loud"})
    assert odd["meta"]["actor"] == "a newer program"
    assert odd["sentence"] == "An event of type template-praised that this program cannot read"
    assert client.get(f"/events?after={position}").json()["events"] == feed[position:]
    about = client.get("/templates/web/events").json()
    assert [one["position"] for one in about][-2:] == [position, position + 1]
    assert about[-2] == odd


def test_nor_does_it_end_what_is_known_of_a_digest(any_api: Api):
    any_api.adopt("web")
    client = any_api.as_("auditor")
    tree = client.get("/templates/web").json()["treeDigest"]
    before = client.get(f"/digests/{tree}").json()
    position = house.strange("template-praised", '{"praise": "loud"}', "web", digest=tree)
    after = client.get(f"/digests/{tree}").json()
    odd = after["events"].pop()
    assert after == before
    assert (odd["position"], odd["data"]) == (position, {"praise": "loud"})


def test_templates_are_filtered(any_api: Api):
    any_api.adopt("db", "web")
    any_api.trust()
    assert any_api.sign("web").status_code == 201
    client = any_api.as_("auditor")
    tree = client.get("/templates/web").json()["treeDigest"]
    assert names(client.get("/templates?signed=true")) == ["web"]
    assert names(client.get("/templates?signed=false")) == ["db"]
    assert names(client.get("/templates?name=db")) == ["db"]
    assert names(client.get("/templates?name=other")) == []
    assert names(client.get(f"/templates?digest={tree}&name=web")) == ["web"]
    assert names(client.get(f"/templates?digest=sha256:{'0' * 64}")) == []
    assert names(client.get("/templates?platform=freebsd/amd64")) == []
    assert names(client.get("/templates?signed=true&name=db")) == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("signed=yes", "malformed_request"),
        ("signed=", "malformed_request"),
        ("digest=sha256:abc", "malformed_digest"),
        ("name=WEB", "malformed_name"),
        ("name=", "malformed_name"),
        ("name=%00", "malformed_name"),
        ("name=%ff", "malformed_name"),
        ("platform=%00", "malformed_reference"),
        ("platform=freebsd", "malformed_reference"),
    ],
)
def test_an_odd_filter_is_refused_not_ignored(any_api: Api, query: str, code: str):
    answer = any_api.as_("auditor").get(f"/templates?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_an_answer_that_the_caller_has_already_is_304(api: Api):
    api.adopt("web")
    client = api.as_("auditor")
    for path in ("/templates", "/templates/web"):
        first = client.get(path)
        tag = first["ETag"]
        assert first["Cache-Control"] == "private, no-cache"
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b""), known
            assert (again["ETag"], again["Cache-Control"]) == (tag, "private, no-cache")
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    api.trust()
    api.sign("web")
    assert client.get("/templates", headers={"If-None-Match": tag}).status_code == 200


def test_a_key_that_is_withdrawn_changes_the_tag(api: Api):
    api.adopt("web")
    api.trust()
    api.sign("web")
    client = api.as_("auditor")
    signed = client.get("/templates/web")
    (api.keys / "release.pub").unlink()
    after = client.get("/templates/web", headers={"If-None-Match": signed["ETag"]})
    assert (after.status_code, after.json()["signed"]) == (200, False)


def test_head_is_get_without_its_body(api: Api):
    api.adopt("web")
    client = api.as_("auditor")
    for path in ("/templates", "/templates/web", "/events", "/sandboxes", "/templates/web/gate"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.get("ETag") == get.get("ETag")
        assert head["Content-Type"] == get["Content-Type"]


def test_the_statement_is_served_byte_for_byte(api: Api):
    api.adopt("web")
    answer = api.as_("auditor").get("/templates/web/statement")
    (event,) = store.about("template", "web")
    assert answer.content.decode() == event.event.added[0].statement
    assert answer["Content-Type"] == "application/vnd.in-toto+json"


def test_a_template_may_be_called_reload(api: Api):
    api.adopt("reload")
    assert api.as_("auditor").get("/templates/reload").json()["name"] == "reload"
    assert api.as_("auditor").get("/templates/reload/gate").status_code == 200
    assert api.as_("operator").delete("/templates/reload").status_code == 204


def test_destroy_says_what_would_go_and_then_goes(api: Api):
    api.adopt("web")
    client = api.as_("operator")
    would = client.delete("/templates/web?dryRun=true")
    going = {"datasets": [f"{api.pool}/web-template"], "kept": []}
    assert (would.status_code, would.json()) == (200, going)
    retiring = client.delete("/templates/web?dryRun=true&retire=true")
    assert (retiring.status_code, retiring.json()) == (200, going)
    assert client.delete("/templates/web?retire=yes").status_code == 400
    assert client.delete("/templates/web?dryRun=1").status_code == 400
    assert client.get("/templates/web").status_code == 200
    assert client.delete("/templates/web").status_code == 204
    assert client.delete("/templates/web").json()["code"] == "template_not_found"


def test_only_what_the_caller_has_seen_is_destroyed(api: Api):
    api.adopt("web")
    api.trust()
    client = api.as_("operator")
    seen = client.get("/templates/web")["ETag"]
    api.sign("web")  # meanwhile
    for stale in (seen, f"W/{seen}", '"x", "y"', ""):
        answer = client.delete("/templates/web", headers={"If-Match": stale})
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed"), stale
    now = client.get("/templates/web")["ETag"]
    kept = client.delete("/templates/web?dryRun=true", headers={"If-Match": f'"x", {now}'})
    assert kept.status_code == 200
    weak = client.delete("/templates/web", headers={"If-Match": f"W/{now}"})
    assert weak.status_code == 412  # strong comparison, RFC 9110 section 13.1.1
    assert client.delete("/templates/db", headers={"If-Match": "*"}).status_code == 404
    assert client.delete("/templates/web", headers={"If-Match": now}).status_code == 204


def test_reload_answers_the_event(api: Api):
    api.hand_make("web")
    answer = post(api.as_("operator"), "/templates/reload", {})
    assert answer.status_code == 200
    shown = answer.json()
    (event,) = store.about("template", "web")
    assert shown == {**event.event.to_json(), "position": event.position}
    assert shown["findings"] == []
    assert [one["template"] for one in shown["added"]] == ["web"]


def test_a_finding_is_listed_stops_launches_and_is_cleared(any_api: Api):
    any_api.adopt("web", "db")
    any_api.trust()
    any_api.sign("web")
    client = any_api.as_("auditor", "gateway", "operator")
    assert client.get("/findings").json() == []
    store.append(house.reloaded(findings=(house.changed_tree("web", 0),)), meta=META)
    (one,) = client.get("/findings").json()
    assert (one["code"], one["template"], one["generation"]) == ("tree_changed", "web", 0)
    assert one["blocks"] and one["nextStep"].endswith("coppice tpl import-oci web REF --force")
    assert client.get("/findings?template=web").json() == [one]
    assert client.get("/findings?template=db").json() == []
    assert client.get("/findings?template=WEB").json()["code"] == "malformed_name"
    template = client.get("/templates/web")
    assert template.json()["openFindings"] == [one]
    assert (template.json()["signed"], template.json()["blocked"]) == (True, True)
    refused = post(client, "/sandboxes", {"template": "web"})
    assert (refused.status_code, refused.json()["code"]) == (403, "finding_open")
    assert store.about("template", "web")[-1].event.code == "finding_open"
    # The next look does not look into files, and leaves it; one that does and finds it whole, not.
    shown = post(client, "/templates/reload", {}).json()
    assert shown["findings"] == [] and client.get("/findings").json() == [one]
    store.append(house.reloaded(verified=True), meta=META)
    assert client.get("/findings").json() == []
    assert client.get("/templates/web")["ETag"] != template["ETag"]
    assert post(client, "/sandboxes", {"template": "web"}).status_code == 201


def test_a_finding_is_recorded_with_the_launch_where_the_gate_only_warns(api: Api, settings):
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "warn"
    api.adopt("web")
    store.append(house.reloaded(findings=(house.changed_tree("web", 0),)), meta=META)
    client = api.as_("gateway")
    assert client.get("/templates/web").json()["blocked"] is False
    assert post(client, "/sandboxes", {"template": "web"}).status_code == 201
    assert "finding_open" in store.about("template", "web")[-1].event.failed_checks


def test_a_reload_says_of_each_finding_what_it_stops_and_what_to_do(api: Api):
    (api.pool / "plain-template").mkdir()
    (found,) = post(api.as_("operator"), "/templates/reload", {}).json()["findings"]
    assert found["code"] == "directory_not_dataset" and found["template"] is None
    assert found["blocks"] is False
    assert f"belongs in a dataset {api.pool}/plain-template" in found["nextStep"]


def test_a_dry_run_of_a_reload_leaves_no_event(api: Api):
    api.hand_make("web")
    client = api.as_("operator")
    would = post(client, "/templates/reload", {"dryRun": True, "fix": True, "verify": True}).json()
    assert [one["template"] for one in would["added"]] == ["web"]
    assert (would["position"], would["verified"]) == (None, True)
    assert store.size() == 0
    assert client.post("/templates/reload").status_code == 415  # a form is not JSON
    assert client.generic("POST", "/templates/reload").json()["position"] == 1


@pytest.mark.parametrize("body", [{"fix": "yes"}, {"dryrun": True}, {"verify": 1}, [], "fix"])
def test_an_odd_body_of_a_reload_is_refused(api: Api, body: object):
    answer = post(api.as_("operator"), "/templates/reload", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


# --- signatures, gate, sandboxes -----------------------------------------------------------------


def test_a_signature_is_accepted_once_and_listed(api: Api):
    api.adopt("web")
    api.trust()
    made = api.sign("web")
    assert made.status_code == 201
    shown = made.json()
    assert (shown["template"], shown["keyLabel"]) == ("web", "release")
    assert shown["signedBy"] == "signer"
    again = api.sign("web")
    assert (again.status_code, again.json()) == (201, shown)
    assert api.as_("auditor").get("/templates/web/signatures").json() == [shown]
    assert [one.type for one in store.about("template", "web")] == ["reloaded", "signed"]


def test_the_gates_refusal_is_the_decision_that_the_gate_shows(api: Api):
    api.adopt("web")
    shown = api.as_("auditor").get("/templates/web/gate").json()
    refused = post(api.as_("gateway"), "/sandboxes", {"template": "web"})
    assert refused.status_code == 403
    problem = refused.json()
    assert {key: problem[key] for key in shown} == shown
    assert problem["type"] == "urn:coppice:error:template_unsigned"
    assert problem["title"] and problem["detail"] and problem["requestId"]
    assert not problem["allowed"]


def test_a_sandbox_has_an_address_until_it_is_destroyed(api: Api):
    api.adopt("web")
    api.trust()
    api.sign("web")
    gateway = api.as_("gateway")
    made = post(gateway, "/sandboxes", {"template": "web", "name": "one"})
    assert (made.status_code, made["Location"]) == (201, "/sandboxes/one")
    assert gateway.get("/sandboxes/one").json() == made.json()
    assert made.json()["signed"] and made.json()["createdBy"] == "gateway"
    unnamed = post(gateway, "/sandboxes", {"template": "web"})
    assert unnamed["Location"] == f"/sandboxes/{unnamed.json()['id']}"
    assert len(gateway.get("/sandboxes").json()) == 2
    assert len(gateway.get("/sandboxes?template=web").json()) == 2
    assert gateway.get("/sandboxes?template=db").json() == []
    taken = post(gateway, "/sandboxes", {"template": "web", "name": "one"})
    assert (taken.status_code, taken.json()["code"]) == (409, "sandbox_exists")
    assert gateway.delete("/sandboxes/one").status_code == 204
    for answer in (gateway.get("/sandboxes/one"), gateway.delete("/sandboxes/one")):
        assert (answer.status_code, answer.json()["code"]) == (404, "sandbox_not_found")


@pytest.mark.parametrize("odd", ["%00", "%ff", "UP", "a" * 65, "..", "a%20b"])
def test_an_odd_name_in_an_address_is_400_on_both_databases(any_api: Api, odd: str):
    client = any_api.as_("operator", "gateway", "signer")
    digest = client.get(f"/digests/{odd}")
    assert (digest.status_code, digest.json()["code"]) == (400, "malformed_digest")
    for answer in (
        client.get(f"/templates/{odd}"),
        client.delete(f"/templates/{odd}"),
        *(
            client.get(f"/templates/{odd}/{part}")
            for part in ("statement", "signatures", "gate", "events", "import")
        ),
        post(client, f"/templates/{odd}/signatures", {"signature": "x"}),
        client.get(f"/sandboxes/{odd}"),
        client.delete(f"/sandboxes/{odd}"),
        client.get(f"/sandboxes?template={odd}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_name")


# --- the feed ------------------------------------------------------------------------------------


def test_the_feed_is_read_page_by_page_without_a_gap(any_api: Api):
    store.append(
        [SandboxDestroyed(sandbox=f"s{n}", template="web", dataset="d") for n in range(7)],
        meta=META,
    )
    client, after, seen = any_api.as_("auditor"), 0, []
    while True:
        page = client.get("/events", {"after": after, "limit": 3}).json()
        seen += [event["position"] for event in page["events"]]
        if not page["events"]:
            break
        assert page["after"] == seen[-1]
        after = page["after"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert page == {"events": [], "after": 7}


def test_an_event_of_the_feed_is_the_recorded_one(api: Api):
    (recorded,) = store.append(
        SandboxDestroyed(sandbox="a", template="web", dataset="d"), meta=META
    )
    (shown,) = api.as_("auditor").get("/events").json()["events"]
    (exported,) = store.export()
    # The feed and the export write the same facts; the feed adds a sentence.
    assert {key: shown[key] for key in json.loads(exported)} == json.loads(exported)
    assert shown["sentence"] == recorded.event.sentence()
    assert api.as_("auditor").get("/templates/web/events").json() == [shown]
    after = api.as_("auditor").get(f"/templates/web/events?after={shown['position']}&limit=1")
    assert after.json() == []
    assert api.as_("auditor").get("/templates/nobody/events?after=1").status_code == 404
    assert api.as_("auditor").get("/templates/web/events?limit=0").json() == []
    assert api.as_("auditor").get("/templates/web/events?limit=501").status_code == 400


@pytest.mark.parametrize(
    "query",
    ["after=-1", "after=x", "after=", "after=٣", f"after={2**53}", "limit=501", "limit=1e2"],
)
def test_an_odd_cursor_is_refused(api: Api, query: str):
    answer = api.as_("auditor").get(f"/events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert list(answer.json()["errors"]) == [query.partition("=")[0]]


@pytest.mark.parametrize("query", [f"after={2**53 - 1}", "limit=0", "limit=500&after=0"])
def test_the_ends_of_what_a_cursor_may_be_are_taken(any_api: Api, query: str):
    assert any_api.as_("auditor").get(f"/events?{query}").json()["events"] == []


def test_provenance_of_a_digest(api: Api):
    api.adopt("web")
    api.trust()
    api.sign("web")
    post(api.as_("gateway"), "/sandboxes", {"template": "web", "name": "one"})
    client = api.as_("auditor")
    web = client.get("/templates/web").json()
    for kind in ("tree", "statement"):
        facts = client.get(f"/digests/{web[f'{kind}Digest']}").json()
        assert facts["kinds"] == [kind]
        assert [one["template"] for one in facts["generations"]] == ["web"]
        assert len(facts["signatures"]) == 1
        assert [one["id"] for one in facts["sandboxes"]] == ["one"]
        assert [e["type"] for e in facts["events"]] == ["reloaded", "signed", "sandbox-created"]
    unknown = client.get(f"/digests/sha256:{'0' * 64}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "digest_not_found")


def test_a_running_import_shows_how_far_it_is(api: Api):
    from django.utils import timezone

    now = timezone.now()
    Lease.objects.create(
        template_name="web",
        import_id="0a0b0c0d",
        node="test",
        reference="oci:quay.io/x/y:1",
        generation=1,
        dataset="coppice/web-g1-0a0b0c0d",
        actor="alice",
        started_at=now,
        updated_at=now,
        stage="pull",
        done=5,
        total=10,
    )
    shown = api.as_("auditor").get("/templates/web/import").json()
    assert (shown["state"], shown["importId"], shown["stage"]) == ("running", "0a0b0c0d", "pull")
    assert (shown["done"], shown["total"], shown["unit"]) == (5, 10, "bytes")
    assert shown["actor"] == "alice" and shown["event"] is None
    busy = api.as_("operator").delete("/templates/web")
    assert busy.json()["code"] == "template_not_found"


# --- those who watch -----------------------------------------------------------------------------


def test_alive_and_ready(any_api: Api):
    client = any_api.anonymous()
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert ready.json()["checks"] == {"database": "ok", "log": "ok", "pool": "ok"}
    assert ready.json()["checkpoint"] is None


def test_ready_says_how_far_the_log_is_signed_and_waits_for_nothing(any_api: Api, settings):
    any_api.adopt("web")
    ledger.write_checkpoint()
    any_api.adopt("db")
    (note,) = (settings.COPPICE_STATE_DIR / "log/checkpoints").glob("*.note")
    hours = time.time() - 7200
    os.utime(note, (hours, hours))
    said = any_api.anonymous().get("/readyz").json()
    assert said["checkpoint"]["behind"] == 1
    assert 7200 <= said["checkpoint"]["ageSeconds"] < 7260
    note.rename(note.with_suffix(".away"))
    said = any_api.anonymous().get("/readyz").json()
    assert (said["status"], said["checkpoint"]) == ("ok", None)


def test_ready_names_what_is_not(any_api: Api, settings):
    from django.db import connection

    from templates_app import triggers

    triggers.remove(connection)
    settings.COPPICE_POOL = "dir:/nonexistent/pool"
    answer = any_api.anonymous().get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert (checks["database"], checks["pool"]) == ("ok", "pool_unavailable")
    assert "triggers are gone" in checks["log"]
    assert "nonexistent" not in answer.content.decode()


def test_alive_does_not_ask_the_database_or_the_pool(api: Api, settings):
    from django.db import connection

    settings.COPPICE_POOL = "dir:/nonexistent/pool"

    def refuse(*_):
        raise AssertionError("the database was asked")

    with connection.execute_wrapper(refuse):
        assert api.anonymous().get("/healthz").status_code == 200


def test_metrics_are_prometheus_text_for_those_who_may_see(api: Api):
    answer = api.as_("auditor").get("/metrics")
    assert answer["Content-Type"].startswith("text/plain")
    assert b"django_http_requests_total_by_method_total" in answer.content


def test_the_schema_comes_as_yaml_and_as_json(api: Api):
    client = api.anonymous()
    assert client.get("/schema").content.startswith(b"openapi: 3.")
    as_json = client.get("/schema?format=json").json()
    assert set(as_json["components"]["securitySchemes"]) == {"knoxApiToken"}
    for path, operations in as_json["paths"].items():
        for method, operation in operations.items():
            is_open = path in ("/healthz", "/readyz")
            assert ("security" not in operation) is is_open, (path, method)


def test_the_documentation_runs_no_script_of_anybody_else(api: Api):
    client = api.anonymous()
    page = client.get("/docs")
    text = page.content.decode()
    assert page.status_code == 200 and "swagger-ui" in text
    assert "://" not in text.replace("http://testserver", "")
    assert "<script>" not in text  # only files: the policy allows no script in the page
    assert "script-src 'self';" in page["Content-Security-Policy"]
    script = client.get("/docs?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert script["Content-Security-Policy"] == page["Content-Security-Policy"]


def test_every_answer_has_the_headers_that_browsers_go_by(api: Api):
    for path in ("/templates", "/healthz", "/nowhere", "/docs"):
        answer = api.as_("auditor").get(path)
        assert answer["X-Content-Type-Options"] == "nosniff", path
        assert answer["X-Frame-Options"] == "DENY", path
        assert answer["Referrer-Policy"] == settings.SECURE_REFERRER_POLICY, path
