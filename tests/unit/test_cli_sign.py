"""Signing on the operator's side, with keys made by the real signify."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from templates_app.errors import SigningKeyUntrusted
from templates_app.events import Digests
from templates_app.trust import signify
from templates_app.trust import statement as statements
from tests.cli import (
    DIGEST,
    NAME,
    Answer,
    FakeApi,
    decision,
    event,
    in_terminal,
    problem_of,
    run,
    spawn,
)

TREE = "sha256:" + "12" * 32
PASSPHRASE = "correct horse"


def statement_of(name: str = NAME) -> bytes:
    return statements.build(
        template=name,
        tree_digest=TREE,
        canonical_reference="oci:quay.io/x/y@" + DIGEST,
        platform="freebsd/amd64",
        digests=Digests(index=None, manifest=DIGEST, config=DIGEST),
        exclusions=("dev/*",),
        deviations=(),
    )


STATEMENT = statement_of()


@dataclass
class Keys:
    public: Path
    secret: Path

    def verifies(self, message: bytes, signature: str, where: Path) -> bool:
        """What the real signify says."""
        (where / "m").write_bytes(message)
        (where / "m.sig").write_text(signature)
        done = subprocess.run(
            ["signify-openbsd", "-V", "-q", "-p", str(self.public), "-m", str(where / "m")],
            capture_output=True,
        )
        return done.returncode == 0


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path / "alice.pub", tmp_path / "alice.sec")
    subprocess.run(
        ["signify-openbsd", "-G", "-n", "-p", str(made.public), "-s", str(made.secret)], check=True
    )
    return made


@pytest.fixture
def locked(tmp_path: Path) -> Keys:
    """With a passphrase. signify asks for that on a terminal only, so this pair is our own."""
    pair = signify.generate("bob", PASSPHRASE, rounds=4)
    made = Keys(tmp_path / "bob.pub", tmp_path / "bob.sec")
    made.public.write_text(pair.public)
    made.secret.write_text(pair.secret)
    made.secret.chmod(0o600)
    return made


def serve(api: FakeApi, content: bytes = STATEMENT) -> None:
    kind = "application/vnd.in-toto+json"
    api.on("GET", f"/templates/{NAME}/statement", Answer(content=content, kind=kind))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    accepted = {"template": NAME, "keyLabel": "alice", "keyId": "00ff", "statementDigest": digest}
    api.on("POST", f"/templates/{NAME}/signatures", Answer(201, json=accepted))


def signature_sent(api: FakeApi) -> str:
    (body,) = [one.body for one in api.asked if one.method == "POST"]
    assert set(body) == {"signature"}
    return str(body["signature"])


def nothing_sent(api: FakeApi) -> bool:
    return api.paths("POST") == []


# --- sign ----------------------------------------------------------------------------------------


def test_it_signs_what_signify_verifies(api: FakeApi, keys: Keys, tmp_path: Path):
    serve(api)
    done = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert done.exit_code == 0
    digest = hashlib.sha256(STATEMENT).hexdigest()
    assert done.stdout == f"template={NAME} key=alice keyid=00ff statement=sha256:{digest}\n"
    assert keys.verifies(STATEMENT, signature_sent(api), tmp_path)
    assert not keys.verifies(STATEMENT + b"\n", signature_sent(api), tmp_path)


def test_the_signature_is_byte_for_byte_signifys(api: FakeApi, keys: Keys, tmp_path: Path):
    serve(api)
    run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    (tmp_path / "s").write_bytes(STATEMENT)
    subprocess.run(
        ["signify-openbsd", "-S", "-s", str(keys.secret), "-m", str(tmp_path / "s")], check=True
    )
    assert signature_sent(api) == (tmp_path / "s.sig").read_text()


def test_the_key_is_named_by_the_environment_and_never_sent(api: FakeApi, keys: Keys):
    serve(api)
    done = run(api.url, "tpl", "sign", NAME, COPPICE_SIGN_PRIVKEY=str(keys.secret))
    assert done.exit_code == 0
    secret = keys.secret.read_text().splitlines()[1]
    for asked in api.asked:
        assert secret not in f"{asked.path}{asked.query}{asked.headers}{asked.body}"
        assert secret[20:40] not in f"{asked.body}"


def test_it_shows_what_is_signed(api: FakeApi, keys: Keys):
    serve(api)
    said = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret)).stderr
    for fact in (NAME, TREE, "oci:quay.io/x/y@" + DIGEST, "freebsd/amd64", "manifest"):
        assert fact in said


@pytest.mark.parametrize(
    "content",
    [
        statement_of("another"),
        b'{"subject":[]}',
        STATEMENT.replace(b'"subject":[', b'"subject":[{"name":"another","digest":{}},'),
        STATEMENT[:-1] + b',"subject":[{"name":"another","digest":{}}]}',
        STATEMENT.replace(b'Parameters":{"name":"fbsd14-min"', b'Parameters":{"name":"other"'),
        STATEMENT.replace(b'"name":"fbsd14-min"', b'"name":["fbsd14-min"]'),
        b"[1]",
        b"not json",
        b"\xff\xfe",
        b"",
    ],
)  # fmt: skip
def test_a_statement_about_something_else_is_not_signed(api: FakeApi, keys: Keys, content: bytes):
    serve(api, content)
    done = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert done.exit_code == 1
    assert "(statement_wrong)" in done.stderr
    assert nothing_sent(api)


def test_a_page_that_is_no_statement_is_not_signed(api: FakeApi, keys: Keys):
    serve(api)
    api.on("GET", f"/templates/{NAME}/statement", Answer(content=STATEMENT, kind="text/html"))
    done = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert done.exit_code == 1
    assert nothing_sent(api)


def test_a_key_that_is_open_to_others_is_remarked(api: FakeApi, keys: Keys):
    serve(api)
    quiet = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert "chmod" not in quiet.stderr
    keys.secret.chmod(0o644)
    loud = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert loud.exit_code == 0
    assert "is open to others than its owner: chmod 600 it." in loud.stderr


def test_the_key_can_come_from_stdin(api: FakeApi, keys: Keys, tmp_path: Path):
    serve(api)
    done = run(api.url, "tpl", "sign", NAME, "--key", "-", stdin=keys.secret.read_text())
    assert done.exit_code == 0
    assert keys.verifies(STATEMENT, signature_sent(api), tmp_path)


@pytest.mark.parametrize("text", ["", "no key", "untrusted comment: x\nRWQ=\n", "\x00\x01"])
def test_what_is_no_key_is_a_usage_error(api: FakeApi, tmp_path: Path, text: str):
    serve(api)
    (tmp_path / "k").write_text(text)
    done = run(api.url, "tpl", "sign", NAME, "--key", str(tmp_path / "k"))
    assert done.exit_code == 2
    assert "key_malformed" in done.stderr
    assert nothing_sent(api)


def test_a_key_that_is_not_there_or_is_huge_or_binary_is_said(api: FakeApi, tmp_path: Path):
    (tmp_path / "huge").write_bytes(b"x" * 100_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("nowhere", "huge", "binary", "."):
        done = run(api.url, "tpl", "sign", NAME, "--key", str(tmp_path / name))
        assert done.exit_code == 1
        assert "(file_unusable)" in done.stderr


def test_without_a_key_it_says_what_to_give(api: FakeApi):
    done = run(api.url, "tpl", "sign", NAME)
    assert done.exit_code == 2
    assert "Give --key FILE, COPPICE_SIGN_PRIVKEY or --signature FILE." in done.stderr


def test_a_refused_signature_has_the_servers_words(api: FakeApi, keys: Keys):
    serve(api)
    refused = problem_of(SigningKeyUntrusted("It is not trusted here."))
    api.on("POST", f"/templates/{NAME}/signatures", refused)
    done = run(api.url, "tpl", "sign", NAME, "--key", str(keys.secret))
    assert done.exit_code == 5
    assert "It is not trusted here. (key_untrusted, 422)" in done.stderr


# --- passphrases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_a_passphrase_comes_from_stdin(api: FakeApi, locked: Keys, tmp_path: Path, ending: str):
    serve(api)
    words = ("tpl", "sign", NAME, "--key", str(locked.secret), "--passphrase-stdin")
    done = run(api.url, *words, stdin=PASSPHRASE + ending)
    assert done.exit_code == 0, done.stderr
    assert locked.verifies(STATEMENT, signature_sent(api), tmp_path)
    assert PASSPHRASE not in done.output


@pytest.mark.parametrize("passphrase", ["wrong\n", "\n", ""])
def test_a_wrong_passphrase_signs_nothing(api: FakeApi, locked: Keys, passphrase: str):
    serve(api)
    words = ("tpl", "sign", NAME, "--key", str(locked.secret), "--passphrase-stdin")
    done = run(api.url, *words, stdin=passphrase)
    assert done.exit_code == 1
    assert "passphrase_wrong" in done.stderr
    assert nothing_sent(api)


def test_on_a_terminal_the_passphrase_is_asked_for_and_not_echoed(
    api: FakeApi, locked: Keys, tmp_path: Path
):
    serve(api)
    seen = in_terminal(
        api.url, "tpl", "sign", NAME, "--key", str(locked.secret),
        typed=f"{PASSPHRASE}\n", await_text="Passphrase:",
    )  # fmt: skip
    assert seen.status == 0, seen.text
    assert PASSPHRASE not in seen.text
    assert locked.verifies(STATEMENT, signature_sent(api), tmp_path)


def test_without_a_terminal_a_passphrase_is_asked_for_by_option(api: FakeApi, locked: Keys):
    serve(api)
    process = spawn(
        api.url, "tpl", "sign", NAME, "--key", str(locked.secret), start_new_session=True
    )
    _out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "give --passphrase-stdin" in err
    assert nothing_sent(api)


def test_key_and_passphrase_cannot_both_be_stdin(api: FakeApi):
    done = run(api.url, "tpl", "sign", NAME, "--key", "-", "--passphrase-stdin")
    assert done.exit_code == 2
    assert api.asked == []


# --- signatures made elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize("by", ["file", "stdin"])
def test_a_signature_made_elsewhere_is_handed_in_as_it_is(api: FakeApi, tmp_path: Path, by: str):
    serve(api)
    text = "untrusted comment: verify with alice.pub\nRWQ…\n"
    (tmp_path / "s.sig").write_text(text)
    name = str(tmp_path / "s.sig") if by == "file" else "-"
    done = run(api.url, "tpl", "sign", NAME, "--signature", name, stdin=text)
    assert done.exit_code == 0
    assert signature_sent(api) == text


def test_the_statement_is_written_byte_for_byte(api: FakeApi):
    odd = b'{"a":"\\u001b",\r\n "b":"\xc3\xa9\x1b[2J\x00"}'
    serve(api, odd)
    for words in ((), ("--json",)):
        assert run(api.url, "tpl", "statement", NAME, *words).stdout_bytes == odd
    seen = in_terminal(api.url, "tpl", "statement", NAME)
    assert "\x1b" not in seen.text
    assert "\\x1b[2J" in seen.text


# --- verify --------------------------------------------------------------------------------------


@pytest.fixture
def log(api: FakeApi) -> Callable[..., None]:
    """``log(signature, …)``: serve a history with these signatures over STATEMENT."""
    serve(api)
    api.on("GET", f"/templates/{NAME}/gate", decision(allowed=True, signed=True))

    def put(*signatures: str, digest: str = statements.digest(STATEMENT)) -> None:
        events: list[dict[str, Any]] = [event(1)]
        for number, text in enumerate(signatures, 2):
            data = {"statementDigest": digest, "signature": text}
            events.append(event(number, "signed", data=data))
        api.on("GET", f"/templates/{NAME}/events", events)

    return put


def _sign(keys: Keys, message: bytes = STATEMENT) -> str:
    return signify.SecretKey.load(keys.secret.read_text()).sign(message)


def _verify(api: FakeApi, keys: Keys, *more: str) -> tuple[int, str]:
    done = run(api.url, "tpl", "signed", NAME, "--key", str(keys.public), *more)
    return done.exit_code, done.stdout


def test_without_a_key_verify_is_the_servers_word(api: FakeApi):
    api.on("GET", f"/templates/{NAME}/gate", decision(allowed=True, signed=True))
    assert run(api.url, "tpl", "signed", NAME).exit_code == 0
    api.on("GET", f"/templates/{NAME}/gate", decision())
    assert run(api.url, "tpl", "signed", NAME).exit_code == 5


def test_a_signature_by_the_given_key_verifies_here(api: FakeApi, keys: Keys, log: Any):
    log("garbage", _sign(keys))
    status, out = _verify(api, keys)
    assert status == 0
    assert "✓ passed  verified_here" in out


def test_a_signature_that_was_withdrawn_does_not_verify_here(api: FakeApi, keys: Keys, log: Any):
    log(_sign(keys))
    data = {"statementDigest": statements.digest(STATEMENT), "signature": _sign(keys)}
    withdrawn = {"statementDigest": statements.digest(STATEMENT), "signedPosition": 2}
    told = [event(2, "signed", data=data), event(3, "signature-withdrawn", data=withdrawn)]
    api.on("GET", f"/templates/{NAME}/events", told)
    assert _verify(api, keys)[0] == 5
    # Another signature by the key over the statement cannot be; one by another position stands.
    api.on("GET", f"/templates/{NAME}/events", [*told, event(4, "signed", data=data)])
    assert _verify(api, keys)[0] == 0


@pytest.mark.parametrize("case", ["unsigned", "other key", "other bytes", "other statement"])
def test_whatever_the_server_says_another_signature_does_not_verify_here(
    api: FakeApi, keys: Keys, locked: Keys, log: Any, case: str
):
    if case == "unsigned":
        log()
    elif case == "other key":
        log(signify.SecretKey.load(locked.secret.read_text(), PASSPHRASE).sign(STATEMENT))
    elif case == "other bytes":
        log(_sign(keys, STATEMENT + b" "))
    else:
        log(_sign(keys), digest=DIGEST)
    status, out = _verify(api, keys)
    assert status == 5
    assert "✗ failed  verified_here" in out


def test_with_json_the_local_check_is_one_of_the_checks(api: FakeApi, keys: Keys, log: Any):
    log()
    status, out = _verify(api, keys, "--json")
    assert status == 5
    assert json.loads(out)["checks"][-1]["name"] == "verified_here"


def test_what_is_no_public_key_is_a_usage_error(api: FakeApi, keys: Keys, log: Any):
    log(_sign(keys))
    done = run(api.url, "tpl", "signed", NAME, "--key", str(keys.secret))
    assert done.exit_code == 2
    assert "key_malformed" in done.stderr
