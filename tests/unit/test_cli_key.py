"""``coppice key``, against a server that answers as the API does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from templates_app.trust import signify, succession
from tests.cli import FakeApi, in_terminal, problem, run

OLD, NEW = (signify.SecretKey.load(signify.generate(name).secret) for name in ("old", "new"))


def a_key(**changes: Any) -> dict[str, Any]:
    return {
        "keyId": "0123456789abcdef",
        "label": "release",
        "publicKey": "RWQ",
        "state": "trusted",
        "owner": "Alice",
        "notBefore": None,
        "notAfter": "2027-01-31T00:00:00Z",
        "scope": ["prod-*", "web"],
        "inDirectory": False,
        "predecessor": "",
        "signatures": 3,
        "trustedAt": "2026-01-02T03:04:05.000006Z",
        "trustedBy": "olivia",
        "position": 7,
        "revocation": None,
        **changes,
    }


RADIUS = {
    "keyId": "0123456789abcdef",
    "label": "release",
    "reason": "compromised",
    "since": 1,
    "templates": [
        {"template": "web", "generation": 2, "code": "key_revoked", "refused": True},
        {"template": "test", "generation": 1, "code": "key_revoked", "refused": False},
    ],
    "sandboxes": [
        {"id": "s\x1b[2J", "template": "web", "generation": 1, "dataset": "z/s",
         "createdAt": "2026-01-02T03:04:05.000006Z", "createdBy": "gateway-1"}
    ],
    "position": None,
}  # fmt: skip
LINES = [
    "template  web generation 2: refused (key_revoked)",
    "template  test generation 1: unsigned (key_revoked)",
    "sandbox   s\\x1b[2J of web generation 1, launched by gateway-1 at 2026-01-02 03:04",
]


def pub(place: Path, key: signify.SecretKey, name: str) -> str:
    (place / name).write_bytes(key.public_key.to_bytes())
    return str(place / name)


def test_it_lists_and_shows_keys(api: FakeApi):
    revocation = {
        "reason": "compromised", "since": 4, "note": "stolen", "position": 9,
        "revokedAt": "2026-02-02T03:04:05Z", "revokedBy": "sigrid",
    }  # fmt: skip
    gone = a_key(label="gone", state="compromised", revocation=revocation, inDirectory=True)
    api.on("GET", "/keys", [gone, a_key()])
    api.on("GET", "/keys/gone", gone)
    lines = run(api.url, "key", "list").stdout.splitlines()
    assert lines[0].split() == [
        "LABEL",
        "NUMBER",
        "STATE",
        "OWNER",
        "SCOPE",
        "UNTIL",
        "SIGNED",
        "DIRECTORY",
    ]
    assert "compromised" in lines[1] and "prod-*, web" in lines[2]
    shown = run(api.url, "key", "show", "gone").stdout
    assert "refused     what was signed at position 4 or later" in shown
    assert "revoked     2026-02-02T03:04:05Z by sigrid, event 9" in shown
    assert run(api.url, "key", "show", "..").exit_code == 2


def test_it_trusts_a_key_that_its_predecessor_announces_here(api: FakeApi, tmp_path: Path):
    pair = signify.generate("old", "secret", rounds=1)
    secret = signify.SecretKey.load(pair.secret, "secret")
    (tmp_path / "old.sec").write_text(pair.secret)
    (tmp_path / "old.sec").chmod(0o600)
    api.on("POST", "/keys", a_key(label="new"))
    new = pub(tmp_path, NEW, "new.pub")
    words = ("--owner", "Alice", "--scope", "prod-*", "--not-after", "2027-01-31")
    announce = ("--predecessor", "old", "--announce-with", str(tmp_path / "old.sec"))
    done = run(
        api.url, "key", "trust", new, *words, *announce, "--passphrase-stdin", stdin="secret\n"
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "key=new keyid=0123456789abcdef scope=prod-*, web\n"
    body = api.asked[0].body
    text = succession.text(predecessor=secret.public_key, successor=NEW.public_key)
    secret.public_key.verify(text, body.pop("announcement"))
    assert body == {
        "publicKey": Path(new).read_text(),
        "label": "new",
        "owner": "Alice",
        "scope": ["prod-*"],
        "notAfter": "2027-01-31T00:00:00Z",
        "predecessor": "old",
    }
    assert "secret" not in str(api.asked[0].headers) + str(body)


def test_the_announcement_is_written_without_a_server(tmp_path: Path):
    old, new = pub(tmp_path, OLD, "old.pub"), pub(tmp_path, NEW, "new.pub")
    done = run("http://127.0.0.1:1", "key", "announcement", new, "--predecessor", old)
    expected = succession.text(predecessor=OLD.public_key, successor=NEW.public_key)
    assert done.stdout_bytes == expected


@pytest.mark.parametrize(
    "words",
    [
        ("trust", "x.pub"),
        ("trust", "x.pub", "--owner", "a", "--announcement", "x.sig"),
        ("trust", "x.pub", "--owner", "a", "--scope", "Prod"),
        ("trust", "x.pub", "--owner", "a", "--not-after", "soon"),
        ("revoke", "x"),
        ("revoke", "x", "--reason", "superseded", "--since", "3", "--yes"),
        ("revoke", "x", "--reason", "compromised"),  # there is no terminal to ask on
    ],
)
def test_what_is_used_wrongly_asks_nothing(api: FakeApi, words: tuple[str, ...]):
    done = run(api.url, "key", *words)
    assert (done.exit_code, api.asked) == (2, []), done.stderr


def test_a_dry_run_prints_what_would_be_refused(api: FakeApi):
    api.on("POST", "/keys/release/revoke", RADIUS)
    done = run(api.url, "key", "revoke", "release", "--reason", "compromised", "-n")
    assert done.stdout.splitlines() == LINES
    assert "2 template(s) and 1 live sandbox(es) are concerned." in done.stderr
    assert "this was a dry run" in done.stderr
    assert [one.body["dryRun"] for one in api.asked] == [True]


def test_it_shows_and_asks_before_it_revokes(api: FakeApi):
    api.on("POST", "/keys/release/revoke", RADIUS)
    words = ("key", "revoke", "release", "--reason", "compromised", "--since", "4")
    done = in_terminal(api.url, *words, width=120, typed="n\n", await_text="for ever?")
    assert done.status == 1
    assert all(line in done.text for line in LINES)
    assert [one.body["dryRun"] for one in api.asked] == [True]
    api.on("POST", "/keys/release/revoke", {**RADIUS, "position": 12})
    done = in_terminal(api.url, *words, width=120, typed="y\n", await_text="for ever?")
    assert done.status == 0 and "Revoked key release (event 12)." in done.text
    assert api.asked[-1].body == {"reason": "compromised", "note": "", "since": 4, "dryRun": False}


def test_a_signature_is_withdrawn_after_a_look(api: FakeApi):
    api.on("DELETE", "/templates/web/signatures/release", {**RADIUS, "position": 12})
    dry = run(api.url, "tpl", "unsign", "web", "release", "--dry-run")
    assert dry.stdout.splitlines() == LINES and "dry run" in dry.stderr
    done = run(api.url, "tpl", "unsign", "web", "release", "--yes", "--note", "a mistake")
    assert "Withdrew the signature (event 12)." in done.stderr
    assert [one.query for one in api.asked] == [
        {"dryRun": "true"}, {"dryRun": "false", "note": "a mistake"},
    ]  # fmt: skip
    assert run(api.url, "tpl", "unsign", "web", "release").exit_code == 2


def test_a_refusal_has_its_exit_status(api: FakeApi):
    api.on("POST", "/keys/x/revoke", problem(409, "key_already_revoked"))
    assert run(api.url, "key", "revoke", "x", "--reason", "superseded", "-y").exit_code == 4
    api.on("GET", "/keys/x", problem(404, "key_not_found"))
    assert run(api.url, "key", "show", "x").exit_code == 1
