"""Files as containers-auth.json(5) has them; certificate authorities."""

from __future__ import annotations

import base64
import json

import pytest

from templates_app.errors import Unavailable
from templates_app.sources import credentials
from templates_app.sources.credentials import Credentials, find


def entry(user, password="secret"):  # noqa: S107 - nobody's
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "auth.json"

    def write(document):
        place.write_text(document if isinstance(document, str) else json.dumps(document))
        return place

    return write


def test_the_longest_entry_that_fits_counts(file):
    keys = ["quay.io", "quay.io/team", "quay.io/team/app", "quay.io/team/app2", "other.io"]
    place = file({"auths": {key: entry(key) for key in keys}})
    assert find(place, "quay.io", "team/app").user == "quay.io/team/app"
    assert find(place, "quay.io", "team/x").user == "quay.io/team"
    assert find(place, "quay.io", "team2/x").user == "quay.io"
    assert find(place, "quay.io:5000", "team/app") is None
    assert find(place, "io", "team/app") is None


@pytest.mark.parametrize(
    "key",
    [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "docker.io/library",
        "https://index.docker.io/v1/",
        "https://docker.io",
    ],
)
def test_the_hub_has_many_names(file, key):
    assert find(file({"auths": {key: entry("me")}}), "docker.io", "library/alpine").user == "me"


def test_what_docker_login_writes(file):
    place = file({"auths": {"https://registry.example/v2/": entry("me")}})
    assert find(place, "registry.example", "a/b") == Credentials("me", "secret")
    assert find(place, "registry", "a/b") is None


def test_a_password_may_have_any_character(file):
    place = file({"auths": {"a.io": entry("me", "ü:b:c ")}})
    assert find(place, "a.io") == Credentials("me", "ü:b:c ")


def test_an_identity_token(file):
    place = file({"auths": {"a.io": {**entry("00000000", ""), "identitytoken": "long"}}})
    assert find(place, "a.io") == Credentials("00000000", "", "long")
    place = file({"auths": {"a.io": {"identitytoken": "long"}}})
    assert find(place, "a.io") == Credentials("", "", "long")


@pytest.mark.parametrize("document", [{}, {"auths": {}}, {"auths": None}, {"auths": {"a.io": {}}}])
def test_none_are_none(file, document):
    assert find(file(document), "a.io") is None
    assert find(None, "a.io") is None


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{", {"auths": []}, {"auths": {"a.io": []}}, {"auths": {"a.io": None}}]
    + [{"auths": {"a.io": {"auth": one}}} for one in ("%", 7, "bm8gY29sb24=", "/w==")]
    + [{"auths": {"a.io": {"identitytoken": 7}}}, "[" * 100_000, json.dumps("x" * 2**20)],
    ids=lambda one: str(one)[:40],
)
def test_what_is_not_in_that_form_says_so(file, document):
    with pytest.raises(Unavailable, match="containers-auth") as failed:
        find(file(document), "a.io")
    assert "secret" not in str(failed.value.private)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(Unavailable, match="cannot be read"):
        find(tmp_path / "no.json", "a.io")


def test_secrets_are_not_shown():
    assert "hidden" not in repr(Credentials("me", "hidden", "hidden"))


@pytest.mark.parametrize("document", [{"credHelpers": {"a.io": "pass"}}, {"credsStore": "pass"}])
def test_helpers_are_not_run_and_the_log_says_so(file, document, caplog):
    place = file({"auths": {"b.io": entry("me")}, **document})
    assert find(place, "b.io").user == "me"
    assert caplog.messages == []
    assert find(place, "a.io") is None
    assert caplog.messages == ["credential helpers are not run: there are no credentials for a.io"]


def test_authorities(tmp_path):
    assert credentials.authorities(None) == ""
    place = tmp_path / "ca.pem"
    text = "# ü\n-----BEGIN CERTIFICATE-----\nx\n"
    place.write_text(text, "utf-8")
    assert credentials.authorities(place) == text.replace("ü", "")
    for wrong in ("", "-----BEGIN PRIVATE KEY-----"):
        place.write_text(wrong)
        with pytest.raises(Unavailable, match="authorities"):
            credentials.authorities(place)
    with pytest.raises(Unavailable) as failed:
        credentials.authorities(tmp_path / "no.pem")
    assert "COPPICE_REGISTRY_CA_FILE" in failed.value.next_step
