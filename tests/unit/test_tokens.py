"""Who we are to a registry: challenges, tokens, and to whom credentials are not shown (D5)."""

from __future__ import annotations

import json
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from templates_app.errors import RegistryNotAllowed
from templates_app.sources.native import tokens
from templates_app.sources.native.tokens import same_domain
from tests.liars import (
    BASIC,
    BLOB,
    MANIFEST,
    asked,
    failed,
    in_turn,
    ranged,
    status,
    to,
    wants,
    whole,
    with_login,
)
from tests.registries import certificates


def gives(**said):
    return lambda it: it.send(200, json.dumps(said).encode())


def bearer(realm, then, word="t1", more=',service="s"'):
    return wants(f"Bearer {word}", f'Bearer realm="{realm}"{more}', then)


@pytest.fixture
def service(liar, liars, context):
    """A token service; the registry wants its token `t1` for everything."""
    made = liars()
    made.on("^/token", gives(token="t1"))
    liar.on("manifests", bearer(f"http://{made.host}/token", lambda it: it.send(200, MANIFEST)))
    liar.on("blobs", bearer(f"http://{made.host}/token", ranged(BLOB)))
    return made


@pytest.fixture
def both(context, liar, service):
    return replace(context, insecure=(liar.host, service.host))


def query(seen):
    return urllib.parse.parse_qsl(seen.query)


# --- tokens --------------------------------------------------------------------------------------


def test_anybody_gets_a_token_where_anybody_may_pull(both, liar, service):
    with asked(both, liar) as it:
        assert it.manifest("1").data == MANIFEST
    (seen,) = service.requests
    assert (seen.method, seen.path) == ("GET", "/token")
    assert query(seen) == [("service", "s"), ("scope", "repository:a/b:pull")]
    assert "authorization" not in seen.headers
    assert liar.sent("authorization") == ["", "Bearer t1"]


def test_credentials_are_for_the_token_service_not_for_the_registry(both, liar, service):
    with asked(with_login(both, liar.host), liar) as it:
        it.manifest("1")
    (seen,) = service.requests
    assert seen.headers["authorization"] == BASIC
    assert query(seen)[0] == ("account", "me")
    assert BASIC not in liar.sent("authorization")


def test_the_scopes_are_the_challenges(both, liar, service):
    more = ',service="s",scope="repository:a/b:pull,push repository:c/d:pull"'
    answer = bearer(f"http://{service.host}/token?x=1", status(200), more=more)
    liar.on("manifests", answer)
    with asked(both, liar) as it:
        it.manifest("1")
    (seen,) = service.requests
    assert query(seen) == [
        ("x", "1"),
        ("service", "s"),
        ("scope", "repository:a/b:pull,push"),
        ("scope", "repository:c/d:pull"),
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"access_token": "t1"},
        {"token": "t1", "access_token": "x"},
        {"token": "t1", "expires_in": "x"},
        {"token": "t1", "expires_in": -1},
    ],
)
def test_the_forms_of_an_answer(both, liar, service, said):
    service.on("^/token", gives(**said))
    with asked(both, liar) as it:
        assert it.manifest("1").data == MANIFEST


@pytest.mark.parametrize(
    "answer",
    [
        gives(),
        gives(token=""),
        gives(token=7),
        gives(token="a\r\nX-Evil: 1"),
        gives(token="a b"),
        gives(token="ä"),
        lambda it: it.send(200, b"[]"),
        lambda it: it.send(200, b"\xff"),
        lambda it: it.send(200, b"[" * 10_000),
    ],
)
def test_an_answer_that_is_no_token(both, liar, service, answer):
    service.on("^/token", answer)
    with asked(both, liar) as it:
        assert failed(it.manifest, "1").reason == "unauthorized"
    assert len(liar.requests) == 1


def test_an_answer_of_a_token_service_is_1_mib_at_the_most(both, liar, service):
    service.on("^/token", lambda it: it.send(200, b" " * (2**20 + 1)))
    with asked(both, liar) as it:
        assert failed(it.manifest, "1").reason == "corrupt"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(401, "unauthorized"), (400, "unauthorized"), (403, "denied"), (404, "unreachable")],
)
def test_a_token_service_that_refuses(both, liar, service, code, reason):
    service.on("^/token", status(code))
    with asked(both, liar) as it:
        error = failed(it.manifest, "1")
        assert error.reason == reason and "refuses the credentials" not in error.detail
    with asked(with_login(both, liar.host), liar) as it:
        error = failed(it.manifest, "1")
    assert error.reason == reason
    assert ("refuses the credentials" in error.detail) is (reason == "unauthorized")
    assert "s3cret" not in error.detail + error.private


def test_a_token_service_is_asked_again_when_it_is_busy(both, liar, service):
    service.on("^/token", in_turn(status(503), status(429), gives(token="t1")))
    with asked(both, liar) as it:
        assert it.manifest("1").data == MANIFEST
    service.on("^/token", status(429))
    tokens._tokens.clear()
    with asked(both, liar) as it:
        assert failed(it.manifest, "1").reason == "rate_limited"


def test_one_token_for_all(both, liar, service):
    """Per realm, service and scope: other threads wait for it, later imports have it."""
    with asked(both, liar) as it, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: whole(it), range(4))) == [BLOB] * 4
    with asked(both, liar) as it:
        it.manifest("1")
    assert len(service.requests) == 1
    assert (
        liar.sent("authorization")[-1] == "Bearer t1" and liar.sent("authorization").count("") <= 4
    )
    with asked(both, liar, "c/d") as it:
        it.manifest("1")
    assert len(service.requests) == 2  # another repository, another scope


def test_a_token_of_other_credentials_is_not_used(both, liar, service):
    with asked(both, liar) as it:
        it.manifest("1")
    with asked(with_login(both, liar.host), liar) as it:
        it.manifest("1")
    assert service.sent("authorization") == ["", BASIC]


def test_a_token_is_renewed_before_it_ends(both, liar, service, monkeypatch):
    service.on("^/token", gives(token="t1", expires_in=100))
    now = [1000.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    with asked(replace(both, step_seconds=3600), liar) as it:
        it.manifest("1")
        now[0] += 89
        it.manifest("1")
        assert len(service.requests) == 1
        now[0] += 2
        it.manifest("1")
    assert len(service.requests) == 2
    # Nothing is sent with the old one: the registry never said 401 again.
    assert liar.sent("authorization").count("") == 1
    assert len(tokens._tokens) == 1


def test_a_token_without_an_end_is_good_for_a_minute(both, liar, service, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    with asked(both, liar) as it:
        for seconds, requests in ((0, 1), (50, 1), (5, 2)):
            now[0] += seconds
            it.manifest("1")
            assert len(service.requests) == requests


def test_a_token_that_the_registry_no_longer_takes_is_replaced_once(both, liar, service):
    with asked(both, liar) as it:
        it.manifest("1")
        service.on("^/token", gives(token="t2"))
        liar.on("manifests", bearer(f"http://{service.host}/token", status(200), word="t2"))
        it.manifest("1")
        assert liar.sent("authorization")[-2:] == ["Bearer t1", "Bearer t2"]
        # And one that is never good enough is no endless loop.
        liar.on("manifests", bearer(f"http://{service.host}/token", status(200), word="never"))
        before = len(liar.requests)
        assert failed(it.manifest, "1").reason == "unauthorized"
        assert len(liar.requests) == before + 2


def test_a_token_service_that_does_not_answer_has_a_time_of_its_own(
    both, liar, service, monkeypatch
):
    """Not that of the blob, which may be an hour."""
    service.on("^/token", lambda it: it.liar.stopped.wait(20))
    monkeypatch.setattr(tokens, "TOKEN_SECONDS", 0.5)
    begun = time.monotonic()
    with asked(both, liar) as it:
        assert failed(whole, it).reason == "unreachable"
    assert time.monotonic() - begun < 15


# --- identity tokens -----------------------------------------------------------------------------


def identity(context, *hosts):
    return with_login(context, *hosts, auth="", identitytoken="s3cret")


def test_an_identity_token_is_posted(both, liar, service):
    with asked(identity(both, liar.host), liar) as it:
        it.manifest("1")
    (seen,) = service.requests
    assert (seen.method, seen.target) == ("POST", "/token")
    assert dict(urllib.parse.parse_qsl(seen.body.decode())) == {
        "grant_type": "refresh_token",
        "client_id": "coppice",
        "refresh_token": "s3cret",
        "service": "s",
        "scope": "repository:a/b:pull",
    }


@pytest.mark.parametrize("code", [404, 405])
def test_where_nothing_can_be_posted_it_is_a_password(both, liar, service, code):
    service.on(
        "^/token", lambda it: it.send(code) if it.command == "POST" else gives(token="t1")(it)
    )
    with asked(identity(both, liar.host), liar) as it:
        it.manifest("1")
    assert [one.method for one in service.requests] == ["POST", "GET"]
    assert service.requests[1].headers["authorization"].startswith("Basic ")


def test_an_identity_token_does_not_follow_a_redirect(both, liar, liars, service):
    other = liars()
    service.on("^/token", to(f"http://{other.host}/token"))
    both = replace(both, insecure=(*both.insecure, other.host))
    with asked(identity(both, liar.host), liar) as it:
        assert failed(it.manifest, "1").reason == "unreachable"
    assert other.requests == []


# --- Basic, and none -----------------------------------------------------------------------------


def test_basic(context, liar):
    liar.on("manifests", wants(BASIC, 'Basic realm="x"', lambda it: it.send(200, MANIFEST)))
    with asked(with_login(context, liar.host), liar) as it:
        it.manifest("1")
        it.manifest("1")
    # Sent at once the second time: the registry was heard.
    assert liar.sent("authorization") == ["", BASIC, BASIC]


def test_basic_credentials_that_are_refused_are_sent_once(context, liar):
    liar.on("manifests", lambda it: it.send(401, b"", {"WWW-Authenticate": "Basic"}))
    with asked(with_login(context, liar.host), liar) as it:
        error = failed(it.manifest, "1")
        assert error.reason == "unauthorized" and "refuses the credentials" in error.detail
        before = len(liar.requests)
        failed(it.manifest, "1")
        assert len(liar.requests) == before + 1
    with asked(context, liar) as it:
        assert "asks for credentials" in failed(it.manifest, "1").detail


def test_bearer_comes_before_basic(both, liar, service):
    offer = f'Basic realm="x", Bearer realm="http://{service.host}/token",service="s"'
    liar.on("manifests", wants("Bearer t1", offer, status(200)))
    with asked(with_login(both, liar.host), liar) as it:
        it.manifest("1")
    assert BASIC not in liar.sent("authorization")


@pytest.mark.parametrize("offer", ["", "Negotiate", 'Digest realm="x"', "Bearer", "Bearer realm="])
def test_what_is_not_spoken_here(context, liar, offer):
    liar.on("manifests", lambda it: it.send(401, b"", {"WWW-Authenticate": offer} if offer else {}))
    with asked(with_login(context, liar.host), liar) as it:
        assert failed(it.manifest, "1").reason == "unauthorized"
    assert len(liar.requests) == 1


# --- to whom credentials are not shown -----------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("quay.io", "quay.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("registry.example.co.uk", "gitlab.example.co.uk", True),
        ("example.co.uk", "example.co.uk", True),
        ("registry.co.uk", "evil.co.uk", False),
        ("co.uk", "evil.co.uk", False),
        ("registry.example.com", "registry.example.org", False),
        ("docker.io", "docker.io.evil.com", False),
        ("example.com", "notexample.com", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.9.0.1", False),
        ("localhost", "localhost", True),
        ("registry", "auth", False),
        ("fe80::1", "fe80::1", True),
        ("fe80::1", "fe80::2", False),
    ],
)
def test_of_one_domain(one, other, same):
    assert same_domain(one, other) is same_domain(other, one) is same


def https(liar, liars, tmp_path, *hostnames):
    """A registry and a token service behind TLS, under names of their own."""
    made = certificates(tmp_path, *hostnames)
    pair = (made.key, made.certificate)
    return liars(pair), liars(pair), made.authority


def test_only_the_registrys_own_domain_or_a_named_one_sees_credentials(
    context, liar, liars, names, tmp_path, monkeypatch
):
    own, auth, evil = "registry.one.example", "auth.one.example", "auth.two.example"
    registry, service, authority = https(liar, liars, tmp_path, own, auth, evil)
    for name in (own, auth, evil):
        names[name] = ["127.0.0.1"]
    monkeypatch.setattr("templates_app.sources.hosts.is_public", lambda address: True)
    service.on("^/token", gives(token="t1"))
    context = replace(context, insecure=(), ca_file=authority)
    context = with_login(context, registry.at(own))

    def pull(realm, **more):
        answer = bearer(f"https://{service.at(realm)}/token", lambda it: it.send(200, MANIFEST))
        registry.on("manifests", answer)
        tokens._tokens.clear()
        tokens._wanted.clear()
        with asked(replace(context, **more), registry.at(own)) as it:
            assert it.manifest("1").data == MANIFEST
        return service.sent("authorization")[-1]

    assert pull(auth) == BASIC
    assert pull(evil) == ""
    assert pull(evil, allowed=(service.at(evil),)) == BASIC

    # Where that does not do, the answer says what was kept from whom.
    service.on("^/token", status(401))
    tokens._tokens.clear()
    tokens._wanted.clear()
    with asked(context, registry.at(own)) as it:
        error = failed(it.manifest, "1")
    assert error.reason == "unauthorized"
    assert service.at(evil) in error.detail and "were not sent" in error.detail
    assert "COPPICE_REGISTRIES_ALLOWED" in error.next_step


def test_a_token_service_without_tls_for_a_registry_with_it(context, liar, liars, names, tmp_path):
    registry, _, authority = https(liar, liars, tmp_path)
    registry.on("manifests", bearer(f"http://{liar.host}/token", status(200)))
    context = replace(context, allowed=(registry.host,), ca_file=authority)
    with asked(with_login(context, registry.host), registry) as it:
        assert failed(it.manifest, "1").reason == "tls"
    assert liar.requests == []


def test_no_redirect_leads_out_of_tls(context, liar, liars, tmp_path):
    """D6, also where the operator has named the other one as without TLS."""
    registry, _, authority = https(liar, liars, tmp_path)
    registry.on("manifests", to(f"http://{liar.host}/x"))
    context = replace(context, allowed=(registry.host,), ca_file=authority)
    with asked(context, registry) as it:
        assert failed(it.manifest, "1").reason == "tls"
    assert liar.requests == []


def test_a_token_service_on_the_inside_is_not_asked(context, liar, liars):
    inside = liars()
    liar.on("manifests", bearer(f"https://{inside.host}/token", status(200)))
    with asked(context, liar) as it, pytest.raises(RegistryNotAllowed):
        it.manifest("1")
    assert inside.requests == []


@pytest.mark.parametrize("realm", ["", "/token", "ftp://x/", "http://me:pw@x/", "file:///etc/x"])
def test_a_realm_that_is_no_address(context, liar, realm):
    liar.on("manifests", bearer(realm, status(200)))
    with asked(context, liar) as it:
        assert failed(it.manifest, "1").reason == "unauthorized"


def test_a_redirected_token_request_has_no_credentials_elsewhere(both, liar, liars, service):
    other = liars()
    other.on("", gives(token="t1"))
    service.on("^/token", to(f"http://{other.host}/token"))
    both = replace(both, insecure=(*both.insecure, other.host))
    with asked(with_login(both, liar.host), liar) as it:
        it.manifest("1")
    assert service.sent("authorization") == [BASIC] and other.sent("authorization") == [""]


def test_the_target_of_a_redirect_gets_an_anonymous_token(both, liar, liars, service):
    """D6: its own challenge is met as anybody would meet it, for that request alone."""
    other = liars()
    other.on("/elsewhere", bearer(f"http://{service.host}/token?for=other", ranged(BLOB)))
    liar.on("blobs", wants(BASIC, "Basic", to(f"http://{other.host}/elsewhere")))
    both = replace(both, insecure=(*both.insecure, other.host))
    with asked(with_login(both, liar.host, other.host), liar) as it:
        assert whole(it) == BLOB
        assert whole(it) == BLOB
    assert other.sent("authorization") == ["", "Bearer t1"] * 2
    assert set(service.sent("authorization")) == {""}
    assert all("for=other" in one.query for one in service.requests)


def test_what_another_registry_wanted_is_not_what_a_redirect_to_it_gets(context, liar, liars):
    """It is remembered that ``other`` wants Basic; these credentials are not for it."""
    other = liars()
    other.on("manifests", wants(BASIC, "Basic", lambda it: it.send(200, MANIFEST)))
    context = replace(context, insecure=(liar.host, other.host))
    with asked(with_login(context, other.host), other) as it:
        it.manifest("1")
    liar.on("manifests", wants(BASIC, "Basic", to(f"http://{other.host}/v2/a/b/manifests/1")))
    before = len(other.requests)
    with asked(with_login(context, liar.host), liar) as it:
        failed(it.manifest, "1")
    assert set(other.sent("authorization")[before:]) == {""}


def test_a_token_service_that_is_no_longer_needed(both, liar, service):
    with asked(both, liar) as it:
        it.manifest("1")
    tokens._tokens.clear()
    service.on("^/token", status(403))
    liar.on("manifests", lambda it: it.send(200, MANIFEST))
    with asked(both, liar) as it:
        assert failed(it.manifest, "1").reason == "denied"
        assert it.manifest("1").data == MANIFEST


def test_what_is_remembered_has_an_end(both, liar, service, monkeypatch):
    monkeypatch.setattr(tokens, "_REMEMBERED", 5)
    for number in range(12):
        with asked(both, liar, f"a/{number}") as it:
            it.manifest("1")
    assert len(tokens._wanted) <= 5
