"""Where a registry sends us, and who is asked instead of it: redirects (D6), mirrors (D11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from templates_app.errors import PullFailed, RegistryNotAllowed
from templates_app.names import Digest
from tests.liars import (
    BASIC,
    BLOB,
    MANIFEST,
    asked,
    digest_of,
    failed,
    ranged,
    status,
    to,
    wants,
    whole,
    with_login,
)

# --- redirects ------------------------------------------------------------------------------------


def wants_basic(then):
    return wants(BASIC, 'Basic realm="x"', then)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_a_redirect_to_another_host(context, liar, liars, code):
    """D6. Storage that signs its addresses refuses them too."""
    storage = liars()
    storage.on("", ranged(BLOB))
    liar.on("blobs", wants_basic(to(f"http://{storage.host}/signed?X-Sig=s3cret", code)))
    context = with_login(context, liar.host)
    with asked(replace(context, insecure=(liar.host, storage.host)), liar) as it:
        assert whole(it) == BLOB
    assert liar.sent("authorization") == ["", BASIC]
    assert storage.sent("authorization") == [""]
    assert storage.requests[0].target == "/signed?X-Sig=s3cret"
    assert storage.requests[0].headers["host"] == storage.host


def test_credentials_follow_within_the_registry(context, liar):
    liar.on("blobs", wants_basic(to("../elsewhere")))
    liar.on("elsewhere", wants_basic(ranged(BLOB)))
    with asked(with_login(context, liar.host), liar) as it:
        assert whole(it) == BLOB
    assert liar.requests[-1].target == "/v2/a/b/elsewhere"


def test_a_port_is_another_place(context, liar, liars):
    """The same host name: what listens there is somebody else all the same."""
    other = liars()
    other.on("", wants_basic(ranged(BLOB)))
    liar.on("blobs", wants_basic(to(f"http://{other.host}/x")))
    context = with_login(context, liar.host, other.host)
    with asked(replace(context, insecure=(liar.host, other.host)), liar) as it:
        failed(whole, it)
    assert BASIC not in other.sent("authorization")


def test_five_redirects_and_no_more(context, liar):
    liar.on("/manifests/1", to("/r1"))
    for number in range(1, 5):
        liar.on(f"/r{number}$", to(f"/r{number + 1}"))
    liar.gives("/r5$", MANIFEST)
    with asked(context, liar) as it:
        assert it.manifest("1").data == MANIFEST
        liar.on("/r5$", to("/r6"))
        liar.gives("/r6$", MANIFEST)
        assert failed(it.manifest, "1").reason == "unreachable"
        liar.on("/r2$", to("/r1"))
        assert failed(it.manifest, "1").reason == "unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://localhost/x",
        "file:///etc/passwd",
        "http://user:password@localhost/x",
        "http://local host/x",
        "http://localhost:99999/x",
        "http://localhost:0/x",
        "http:///x",
        "//",
        "http://localhost/ä",
    ],
)
def test_a_redirect_to_what_is_no_address(context, liar, url):
    liar.on("manifests", lambda it: it.send(307, b"", {"Location": url} if url else {}))
    refused = pytest.raises((PullFailed, RegistryNotAllowed))
    with asked(replace(context, step_seconds=5), liar) as it, refused:
        it.manifest("1")


def test_a_redirect_to_the_inside_is_not_followed(context, liar, liars):
    inside = liars()
    liar.on("manifests", to(f"https://{inside.host}/latest/meta-data"))
    with asked(context, liar) as it, pytest.raises(RegistryNotAllowed):
        it.manifest("1")
    assert inside.requests == []


def test_a_redirect_to_a_host_without_tls_that_nobody_named(context, liar):
    liar.on("manifests", to("http://93.184.216.34/x"))
    with asked(context, liar) as it:
        assert failed(it.manifest, "1").reason == "tls"


def test_a_name_that_changes_its_mind_leads_nowhere(context, liar, names):
    """The address that was judged is the one that is connected to: looked up once, not twice."""
    names["rebind.example"] = ["93.184.216.34", "127.0.0.1"]
    names["inside.example"] = ["127.0.0.1"]
    host = liar.at("inside.example")
    with asked(context, host) as it, pytest.raises(RegistryNotAllowed):
        it.manifest("1")
    connected = []

    class Nowhere:
        def __init__(self, *args):
            pass

        def settimeout(self, seconds):
            pass

        def connect(self, address):
            connected.append(address)
            raise OSError("this test has no internet")

        def close(self):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket", Nowhere)
        # The second attempt looks again, and is refused.
        refused = pytest.raises(RegistryNotAllowed)
        with asked(context, liar.at("rebind.example")) as it, refused:
            it.manifest("1")
    assert connected == [("93.184.216.34", liar.port)]
    assert liar.requests == []


# --- mirrors --------------------------------------------------------------------------------------


@pytest.fixture
def mirror(liars):
    return liars()


@pytest.fixture
def mirrored(context, liar, mirror):
    return replace(
        context,
        insecure=(liar.host, mirror.host),
        mirrors=((liar.host, (mirror.host,)), ("other.example", ("localhost:1",))),
    )


def test_a_mirror_is_asked_first_and_told_for_whom(mirrored, liar, mirror):
    """D11"""
    mirror.gives("manifests", MANIFEST, Docker_Content_Digest=digest_of(MANIFEST))
    mirror.on("blobs", ranged(BLOB))
    with asked(mirrored, liar) as it:
        assert it.head("1") == Digest(digest_of(MANIFEST))
        assert it.manifest("1").data == MANIFEST
        assert whole(it) == BLOB
    assert liar.requests == []
    assert {one.query for one in mirror.requests} == {f"ns={liar.host}"}


def test_the_registry_is_not_told_for_whom(context, liar):
    liar.gives("manifests", MANIFEST)
    with asked(context, liar) as it:
        it.manifest("1")
    assert liar.requests[0].query == ""


def test_a_mirror_sees_no_credentials_but_its_own(mirrored, liar, mirror):
    mirror.on("manifests", lambda it: it.send(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}))
    liar.on("manifests", wants_basic(lambda it: it.send(200, MANIFEST)))
    with asked(with_login(mirrored, liar.host), liar) as it:
        assert it.manifest("1").data == MANIFEST
    assert mirror.sent("authorization") == [""]
    mirror.on("manifests", wants_basic(lambda it: it.send(200, MANIFEST)))
    with asked(with_login(mirrored, mirror.host), liar) as it:
        assert it.manifest("1").data == MANIFEST
    assert mirror.sent("authorization")[-1] == BASIC


@pytest.mark.parametrize("answer", [status(404), status(500), status(403), status(429)])
def test_what_a_mirror_does_not_give_is_asked_of_the_registry(mirrored, liar, mirror, answer):
    mirror.on("", answer)
    liar.gives("manifests", MANIFEST)
    liar.on("blobs", ranged(BLOB))
    with asked(mirrored, liar) as it:
        assert it.manifest("1").data == MANIFEST
        assert whole(it) == BLOB
    assert mirror.requests


def test_a_mirror_that_has_nothing_is_asked_again_and_a_broken_one_is_not(mirrored, liar, mirror):
    liar.gives("manifests", MANIFEST)
    with asked(mirrored, liar) as it:
        it.manifest("1")
        it.manifest("1")
        assert len(mirror.requests) == 2
        mirror.on("", status(500))
        it.manifest("1")
        it.manifest("1")
    assert len(mirror.requests) == 3


def test_a_mirror_that_is_not_there(mirrored, liar, names):
    liar.gives("manifests", MANIFEST)
    for gone in ("gone.example", "localhost:1"):
        known = replace(
            mirrored, insecure=(liar.host, "localhost:1"), mirrors=((liar.host, (gone,)),)
        )
        with asked(known, liar) as it:
            assert it.manifest("1").data == MANIFEST
            assert it.manifest("1").data == MANIFEST
    assert names.asked.count("gone.example") == 1


def test_a_mirror_that_lies_about_a_manifest_is_passed_over(mirrored, liar, mirror):
    mirror.gives("manifests", b"{}")
    liar.gives("manifests", MANIFEST)
    with asked(mirrored, liar) as it:
        assert it.manifest(Digest(digest_of(MANIFEST))).data == MANIFEST


def test_a_mirror_that_breaks_off_is_gone_on_from(mirrored, liar, mirror):
    mirror.on("blobs", ranged(BLOB, 500_000))
    liar.on("blobs", ranged(BLOB))
    with asked(mirrored, liar) as it:
        assert whole(it) == BLOB
    assert liar.sent("range") == ["bytes=500000-"]


def test_a_blob_that_is_asked_for_again_comes_from_the_registry(mirrored, liar, mirror):
    """Whoever asks again got bytes of another digest; no mirror can be told apart from the liar."""
    mirror.on("blobs", ranged(bytes(len(BLOB))))
    liar.on("blobs", ranged(BLOB))
    with asked(mirrored, liar) as it:
        assert whole(it) != BLOB
        assert whole(it) == BLOB


def test_a_mirror_on_the_inside_must_be_named(mirrored, liar, mirror):
    unnamed, refused = replace(mirrored, insecure=(liar.host,)), pytest.raises(RegistryNotAllowed)
    with asked(unnamed, liar) as it, refused:
        it.manifest("1")
    assert mirror.requests == [] and liar.requests == []
