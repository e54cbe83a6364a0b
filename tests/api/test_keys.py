"""Keys by the API: trusted within limits, announced, revoked; and what each is worth then."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.utils import timezone

from templates_app import store
from templates_app.events import KeyRevoked
from templates_app.models import Generation, Key
from templates_app.services import common, launches, ledger, ledger_files, readmodels
from templates_app.trust import signify, succession
from tests.callers import Api, post

DAY = datetime.timedelta(days=1)


def secret(comment: str = "alice") -> signify.SecretKey:
    return signify.SecretKey.load(signify.generate(comment).secret)


def pub(key: signify.SecretKey) -> str:
    return key.public_key.to_bytes().decode()


def trust(api: Api, key: signify.SecretKey, label: str = "alice-2026", **more: Any) -> Any:
    body = {"publicKey": pub(key), "label": label, "owner": "Alice", **more}
    return post(api.as_("operator"), "/keys", body)


def sign(api: Api, key: signify.SecretKey, name: str = "web") -> tuple[int, str]:
    text = api.as_("auditor").get(f"/templates/{name}/statement").content
    answer = post(api.as_("signer"), f"/templates/{name}/signatures", {"signature": key.sign(text)})
    return answer.status_code, answer.json().get("code", "")


def launch(api: Api, name: str = "web") -> tuple[int, str]:
    answer = post(api.as_("gateway"), "/sandboxes", {"template": name})
    shown = api.as_("auditor").get(f"/templates/{name}").json()
    assert shown["signed"] is (answer.status_code == 201), "a list says what the gate says"
    return answer.status_code, answer.json().get("code", "")


def revoke(api: Api, key: str, who: Client | None = None, **body: Any) -> Any:
    return post(who or api.as_("operator"), f"/keys/{key}/revoke", body)


def test_a_key_that_an_event_trusts_signs_and_is_shown(any_api: Api):
    any_api.adopt("web")
    key = secret()
    assert sign(any_api, key) == (422, "key_untrusted")
    assert launch(any_api) == (403, "template_unsigned")
    made = trust(any_api, key, scope=["web", "db-*"], notAfter="2999-01-01T00:00:00Z")
    assert (made.status_code, made["Location"]) == (201, f"/keys/{key.public_key.key_id}")
    assert sign(any_api, key) == (201, "")
    assert launch(any_api) == (201, "")
    shown = any_api.as_("auditor").get("/keys/alice-2026").json()
    assert shown == {
        "keyId": key.public_key.key_id,
        "label": "alice-2026",
        "publicKey": key.public_key.text,
        "state": "trusted",
        "owner": "Alice",
        "notBefore": None,
        "notAfter": "2999-01-01T00:00:00Z",
        "scope": ["db-*", "web"],
        "inDirectory": False,
        "predecessor": "",
        "signatures": 1,
        "trustedAt": shown["trustedAt"],
        "trustedBy": "operator",
        "position": made.json()["position"],
        "revocation": None,
    }
    assert any_api.as_("auditor").get("/keys").json() == [shown]
    # The same again is the same; other limits are another event.
    assert (
        trust(any_api, key, scope=["db-*", "web"], notAfter="2999-01-01T00:00:00Z").json() == shown
    )
    assert trust(any_api, key, scope=["db-*"]).json()["position"] > shown["position"]
    assert launch(any_api) == (403, "key_outside_scope")
    assert readmodels.check()[1] == []


def test_limits_hold_for_new_signatures_and_for_launches(api: Api):
    api.adopt("web", "db")
    key, now = secret(), timezone.now()
    trust(api, key, notBefore=(now + DAY).isoformat())
    assert sign(api, key) == (422, "key_outside_dates")
    trust(api, key, scope=["web"])
    assert sign(api, key, "db") == (422, "key_outside_scope")
    assert sign(api, key) == (201, "")
    trust(api, key, notBefore=(now + DAY).isoformat())
    assert api.as_("auditor").get("/keys/alice-2026").json()["state"] == "early"
    assert launch(api) == (403, "key_outside_dates")
    Key.objects.update(not_before=None, not_after=now)
    assert api.as_("auditor").get("/keys/alice-2026").json()["state"] == "expired"
    assert launch(api) == (403, "key_outside_dates")


def test_a_revocation_beats_the_directory(any_api: Api):
    any_api.adopt("web")
    any_api.trust()
    assert any_api.sign("web").status_code == 201
    assert launch(any_api) == (201, "")
    (shown,) = any_api.as_("auditor").get("/keys").json()
    assert (shown["label"], shown["inDirectory"], shown["position"]) == ("release", True, None)
    done = revoke(any_api, "release", reason="compromised", note="The laptop was stolen.")
    assert done.status_code == 200
    assert launch(any_api) == (403, "key_revoked")
    assert any_api.sign("web").json()["code"] == "key_revoked"
    (shown,) = any_api.as_("auditor").get("/keys").json()
    assert (shown["state"], shown["inDirectory"]) == ("compromised", True)
    assert shown["revocation"]["note"] == "The laptop was stolen."
    (any_api.keys / "release.pub").unlink()
    assert launch(any_api) == (403, "key_revoked")
    any_api.trust()
    text = (any_api.keys / "release.pub").read_text()
    body = {"publicKey": text, "label": "release", "owner": "x"}
    again = post(any_api.as_("operator"), "/keys", body)
    assert (again.status_code, again.json()["code"]) == (409, "key_already_revoked")
    assert launch(any_api) == (403, "key_revoked")
    assert readmodels.check()[1] == []


def test_a_key_under_another_number_is_the_same_key(any_api: Api, settings):
    """No signature covers the number: anybody can write another one into both files."""
    any_api.adopt("web")
    key = secret()
    twin = signify.SecretKey(b"another!", key.seed, b"twin")
    trust(any_api, key)
    assert trust(any_api, twin, "twin").json()["code"] == "key_exists"
    # In the directory nobody asked: there it is as revoked as the other one.
    (any_api.keys / "twin.pub").write_bytes(twin.public_key.to_bytes())
    settings.COPPICE_REQUIRE_SIGNATURES = 2
    assert (sign(any_api, key), sign(any_api, twin)) == ((201, ""), (201, ""))
    decision = launches.gate_decision(name="web")
    assert (decision.allowed, decision.code) == (False, "too_few_signatures")
    settings.COPPICE_REQUIRE_SIGNATURES = 1
    assert launch(any_api) == (201, "")
    revoke(any_api, "alice-2026", reason="compromised")
    assert launch(any_api) == (403, "key_revoked")
    assert sign(any_api, twin) == (422, "key_revoked")


def test_superseded_counts_for_what_was_signed_and_for_nothing_new(api: Api):
    api.adopt("web", "db")
    key = secret()
    trust(api, key)
    assert sign(api, key) == (201, "")
    assert revoke(api, "alice-2026", reason="superseded").json()["templates"] == []
    assert launch(api) == (201, "")
    assert sign(api, key, "db") == (422, "key_revoked")
    assert launch(api, "db") == (403, "template_unsigned")
    # Later it turns out that it was stolen.
    worse = revoke(api, "alice-2026", reason="compromised").json()
    assert [one["template"] for one in worse["templates"]] == ["web"]
    assert launch(api) == (403, "key_revoked")


def test_compromised_since_a_position_leaves_what_is_older(api: Api):
    api.adopt("web", "db")
    key = secret()
    trust(api, key)
    sign(api, key)
    before = store.size()
    sign(api, key, "db")
    dry = revoke(api, "alice-2026", reason="compromised", since=before + 1, dryRun=True).json()
    assert [one["template"] for one in dry["templates"]] == ["db"]
    assert launch(api, "db") == (201, ""), "a dry run changes nothing"
    revoke(api, "alice-2026", reason="compromised", since=before + 1)
    assert launch(api) == (201, "")
    assert launch(api, "db") == (403, "key_revoked")
    later = revoke(api, "alice-2026", reason="compromised", since=before + 2)
    assert (later.status_code, later.json()["code"]) == (409, "key_already_revoked")
    assert launch(api, "db") == (403, "key_revoked")
    revoke(api, "alice-2026", reason="compromised", since=before)
    assert launch(api) == (403, "key_revoked")
    assert readmodels.check()[1] == []


def test_the_dry_run_says_exactly_what_the_revocation_does(any_api: Api):
    """Templates with another good signature, or none, or that are lost, are not concerned."""
    names = ("alone", "both", "other", "unsigned")
    any_api.adopt(*names)
    stolen, good = secret(), secret("bob")
    trust(any_api, stolen)
    trust(any_api, good, "bob-2026")
    for name in ("alone", "both"):
        sign(any_api, stolen, name)
    for name in ("both", "other"):
        sign(any_api, good, name)
    running = {}
    for name in ("alone", "both", "other"):
        answer = post(any_api.as_("gateway"), "/sandboxes", {"template": name})
        running[name] = answer.json()["id"]
    gone = post(any_api.as_("gateway"), "/sandboxes", {"template": "alone"}).json()["id"]
    any_api.as_("gateway").delete(f"/sandboxes/{gone}")
    before = {name: any_api.as_("auditor").get(f"/templates/{name}/gate").json() for name in names}
    size = store.size()

    dry = revoke(any_api, "alice-2026", reason="compromised", dryRun=True).json()
    assert store.size() == size
    assert dry["templates"] == [
        {"template": "alone", "generation": 0, "code": "key_revoked", "refused": True}
    ]
    (sandbox,) = dry["sandboxes"]
    assert (sandbox["id"], sandbox["createdBy"]) == (running["alone"], "gateway")

    real = revoke(any_api, "alice-2026", reason="compromised").json()
    assert {**real, "position": None} == dry
    event = store.at(real["position"]).event
    assert isinstance(event, KeyRevoked)
    assert (event.templates, event.sandboxes) == (("alone",), (running["alone"],))
    after = {name: any_api.as_("auditor").get(f"/templates/{name}/gate").json() for name in names}
    turned = [n for n in names if before[n]["allowed"] and not after[n]["allowed"]]
    assert turned == ["alone"]


def test_with_the_gate_off_nothing_is_refused_and_it_is_said(api: Api, settings):
    api.adopt("web")
    key = secret()
    trust(api, key)
    sign(api, key)
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "warn"
    (hit,) = revoke(api, "alice-2026", reason="compromised", dryRun=True).json()["templates"]
    assert (hit["template"], hit["refused"]) == ("web", False)


@pytest.mark.parametrize(
    ("overtakes", "code"),
    [
        (lambda api, _: revoke(api, "alice-2026", reason="compromised"), "key_revoked"),
        (lambda api, key: trust(api, key, scope=["dev-*"]), "key_outside_scope"),
        (lambda api, _: withdraw(api, "web", "alice-2026"), "signature_withdrawn"),
    ],
    ids=["a revocation", "a narrower scope", "a withdrawal"],
)
def test_a_launch_that_was_decided_before_is_overtaken(
    any_api: Api, monkeypatch: pytest.MonkeyPatch, overtakes: Any, code: str
):
    """Between the decision and the event: as another server process would do it."""
    any_api.adopt("web")
    key = secret()
    trust(any_api, key)
    sign(any_api, key)
    decide = launches.decide

    def decide_and_lose(*args: Any) -> Any:
        decision = decide(*args)
        if decision.allowed:
            overtakes(any_api, key)
        return decision

    monkeypatch.setattr(launches, "decide", decide_and_lose)
    answer = post(any_api.as_("gateway"), "/sandboxes", {"template": "web"})
    assert (answer.status_code, answer.json()["code"]) == (403, code)
    assert any_api.as_("auditor").get("/sandboxes").json() == []
    assert [one.name for one in common.driver().find_all() if "sandbox" in one.name] == []


def test_a_successor_is_announced_by_its_predecessor(api: Api):
    api.adopt("web")
    old, new, stranger = secret(), secret("next"), secret("mallory")
    trust(api, old)
    text = succession.text(predecessor=old.public_key, successor=new.public_key)
    more = {"label": "alice-2027", "predecessor": "alice-2026"}
    assert trust(api, new, **more).json()["code"] == "malformed_request"
    by_stranger = trust(api, new, **more, announcement=stranger.sign(text))
    assert (by_stranger.status_code, by_stranger.json()["code"]) == (422, "key_untrusted")
    of_another = succession.text(predecessor=old.public_key, successor=stranger.public_key)
    wrong = trust(api, new, **more, announcement=old.sign(of_another))
    assert (wrong.status_code, wrong.json()["code"]) == (422, "signature_invalid")
    announced = trust(api, new, **more, announcement=old.sign(text)).json()
    assert announced["predecessor"] == old.public_key.text
    # Both sign for a while; then the old one is superseded.
    assert sign(api, old) == (201, "") and sign(api, new) == (201, "")
    assert revoke(api, "alice-2026", reason="superseded").status_code == 200
    assert launch(api) == (201, "")
    assert sign(api, new) == (201, "")
    third = secret("third")
    text = succession.text(predecessor=old.public_key, successor=third.public_key)
    late = trust(api, third, "alice-2028", predecessor="alice-2026", announcement=old.sign(text))
    assert (late.status_code, late.json()["code"]) == (422, "key_unfit")


def test_what_may_not_be_trusted(api: Api):
    key = secret()
    common.driver()
    ledger.write_checkpoint()
    log_key = ledger_files.public_keys()[0]
    body = {"publicKey": log_key.to_bytes().decode(), "label": "x", "owner": "y"}
    assert post(api.as_("operator"), "/keys", body).json()["code"] == "key_unfit"
    for more, code in (
        ({"publicKey": "x"}, "key_malformed"),
        ({"label": "a b"}, "malformed_name"),
        ({"label": "0123456789abcdef"}, "malformed_name"),
        ({"scope": ["Prod-*"]}, "malformed_name"),
        ({"scope": ["*a*a*a*a*b"]}, "malformed_name"),  # a name of a's would take seconds
        ({"scope": [1]}, "malformed_request"),
        ({"owner": "a\nb"}, "malformed_request"),
        ({"owner": "half a \ud83d pair"}, "malformed_request"),
        ({"label": "a\0b"}, "malformed_request"),
        ({"notAfter": "0001-01-01T00:00:00+14:00"}, "malformed_request"),
        ({"notAfter": "2001-01-01T00:00:00Z"}, "key_unfit"),
        ({"notBefore": "2990-01-01T00:00:00Z", "notAfter": "2980-01-01T00:00:00Z"}, "key_unfit"),
        ({"notAfter": "soon"}, "malformed_request"),
        ({"predecessor": "nobody", "announcement": "x"}, "key_not_found"),
    ):
        answer = trust(api, key, **{"label": "alice-2026", **more})
        assert answer.json()["code"] == code, (more, answer.json())
    assert store.size() == 0
    # Not a label or a number twice, in whichever place the other is.
    trust(api, key)
    assert trust(api, secret("bob")).json()["code"] == "key_exists"
    twin = signify.SecretKey(key.keynum, secret().seed, b"x")
    assert trust(api, twin, "twin").json()["code"] == "key_exists"
    api.trust()
    assert trust(api, secret(), "release").json()["code"] == "key_exists"


def test_who_signs_may_stop_a_key_but_not_trust_one(api: Api):
    key = secret()
    body = {"publicKey": pub(key), "label": "alice-2026", "owner": "Alice"}
    assert post(api.as_("signer"), "/keys", body).status_code == 403
    trust(api, key)
    assert revoke(api, "alice-2026", api.as_("gateway"), reason="compromised").status_code == 403
    assert revoke(api, "alice-2026", api.as_("signer"), reason="compromised").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"reason": "lost"}, 400, "malformed_request"),
        ({"reason": "superseded", "since": 1}, 400, "malformed_request"),
        ({"reason": "compromised", "since": 10**6}, 400, "malformed_request"),
        ({"reason": "compromised", "note": "a\nb"}, 400, "malformed_request"),
    ],
)
def test_a_revocation_that_cannot_be_is_not(api: Api, body: dict[str, Any], status: int, code: str):
    trust(api, secret())
    answer = revoke(api, "alice-2026", **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert revoke(api, "nobody", reason="compromised").status_code == 404
    assert Key.objects.get().revoked_position is None


def withdraw(api: Api, name: str, key: str, **query: Any) -> Any:
    words = urlencode(query)
    return api.as_("signer").delete(f"/templates/{name}/signatures/{key}?{words}")


def test_a_signature_is_withdrawn_for_ever_and_the_dry_run_said_what_that_does(any_api: Api):
    any_api.adopt("web", "db")
    key = secret()
    trust(any_api, key)
    for name in ("web", "db"):
        assert sign(any_api, key, name) == (201, "")
    running = post(any_api.as_("gateway"), "/sandboxes", {"template": "web"}).json()["id"]
    dry = withdraw(any_api, "web", "alice-2026", dryRun="true").json()
    assert launch(any_api) == (201, "")
    assert [one["template"] for one in dry["templates"]] == ["web"]
    assert running in [one["id"] for one in dry["sandboxes"]]
    done = withdraw(any_api, "web", key.public_key.key_id, note="By mistake.")
    assert done.status_code == 200, done.json()
    assert [one["code"] for one in done.json()["templates"]] == ["signature_withdrawn"]
    assert launch(any_api) == (403, "signature_withdrawn")
    assert launch(any_api, "db") == (201, "")
    (shown,) = any_api.as_("auditor").get("/templates/web/signatures").json()
    assert shown["withdrawnPosition"] == done.json()["position"]
    # It stands in the log for everybody to hand in again; and it is not there to be withdrawn.
    assert sign(any_api, key) == (422, "signature_withdrawn")
    for key_id in ("alice-2026", "%00", "%ff", "..%2f", "a" * 300):
        answer = withdraw(any_api, "web", key_id)
        assert answer.json()["code"] in ("signature_not_found", "not_found"), key_id
        assert any_api.as_("auditor").get(f"/keys/{key_id}").status_code in (200, 404)
    assert launch(any_api) == (403, "signature_withdrawn")
    other = secret("bob")
    trust(any_api, other, "bob-2026")
    assert sign(any_api, other) == (201, "")
    assert launch(any_api) == (201, "")
    assert readmodels.check()[1] == []


def test_a_policy_of_two_keys_and_two_persons(any_api: Api, settings):
    settings.COPPICE_REQUIRE_SIGNATURES = 2
    settings.COPPICE_REQUIRE_TWO_PERSONS = True
    any_api.adopt("web")
    Generation.objects.update(imported_by="signer")  # whoever hands signatures in, in these tests
    keys = [secret("a"), secret("b")]
    for number, key in enumerate(keys):
        trust(any_api, key, f"key-{number}")
        assert sign(any_api, key) == (201, "")
    assert launch(any_api) == (403, "second_person_missing")
    Generation.objects.update(imported_by="operator")
    assert launch(any_api) == (201, "")
    (hit,) = revoke(any_api, "key-1", reason="compromised", dryRun=True).json()["templates"]
    assert (hit["template"], hit["code"]) == ("web", "too_few_signatures")
    assert withdraw(any_api, "web", "key-1").status_code == 200
    assert launch(any_api) == (403, "too_few_signatures")
    rows = any_api.as_("auditor").get("/templates/web/generations").json()
    assert [row["signed"] for row in rows] == [False]
    settings.COPPICE_REQUIRE_SIGNATURES = 1
    assert launch(any_api) == (201, "")
