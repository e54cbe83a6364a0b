"""What a signature is worth: signed by the real signify on the served bytes, judged by the gate.

On the real server with a real registry, on ZFS (with SQLite) and on directories (with PostgreSQL).
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from deploy import images
from templates_app.models import Signature
from templates_app.services import readmodels
from tests.pools import sh, stubbornly
from tests.registries import Registry
from tests.servers import ROOT, Installation, Keys, MakeServer


def image(text: str) -> images.Document:
    entries = [
        images.directory("etc/"),
        images.file("etc/motd", text),
        images.file("etc/su", "#!/bin/sh\n", mode=0o4755),
        images.hardlink("etc/same", "etc/su", mode=0o4755),
    ]
    return images.image([images.layer(entries)])


class Town:
    """A server with a template ``web``, and one caller who may do everything."""

    def __init__(self, installation: Installation, registry: Registry, keys: Keys, serve) -> None:
        self.installation, self.registry, self.keys = installation, registry, keys
        server = serve(installation)
        self.url = server.url
        roles = ("--role=operator", "--role=signer", "--role=gateway")
        self.token = installation.manage("create_token", "all", *roles).stdout.strip()
        self.api = server.api(None)
        self.api.headers["Authorization"] = f"Bearer {self.token}"
        self.push("first")
        self.run_import("web", force=False)
        self.secret = keys.trust("release", installation)

    def push(self, text: str) -> None:
        self.registry.push("signatures/web", "1", image(text))

    def run_import(self, name: str, *, force: bool = True) -> dict:
        source = f"oci:{self.registry.host}/signatures/web:1"
        body = {"name": name, "from": source, "force": force}
        made = self.api.post("/templates", json=body)
        assert made.status_code == 201, made.text
        return made.json()

    def statement(self, name: str = "web") -> bytes:
        return self.api.get(f"/templates/{name}/statement").content

    def offer(self, signature: str, name: str = "web") -> tuple[int, str]:
        answer = self.api.post(f"/templates/{name}/signatures", json={"signature": signature})
        return answer.status_code, answer.json().get("code", "")

    def sign(self, secret: Path | None = None, name: str = "web") -> str:
        signature = self.keys.sign(secret or self.secret, self.statement(name))
        assert self.offer(signature, name)[0] == 201
        return signature

    def launch(self, name: str = "web") -> httpx.Response:
        return self.api.post("/sandboxes", json={"template": name})

    def refusal(self, name: str = "web") -> tuple[int, str]:
        """Of a launch; the refusal is recorded, and the gate shows the same decision."""
        answer = self.launch(name)
        decision = answer.json()
        assert self.api.get("/templates/" + name).json()["missing"] is False
        shown = self.api.get(f"/templates/{name}/gate").json()
        assert {key: decision[key] for key in shown} == shown
        assert decision["nextStep"]
        last = self.api.get(f"/templates/{name}/events").json()[-1]
        assert (last["type"], last["data"]["code"]) == ("sandbox-refused", decision["code"])
        return answer.status_code, decision["code"]


@pytest.fixture(params=["zfs", "dir"])
def town(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    registry: Registry,
    keys: Keys,
    serve: MakeServer,
) -> Town:
    if request.param == "zfs":
        pool = f"zfs:{request.getfixturevalue('zfs_root')}"
        url = request.getfixturevalue("sqlite_url")
    else:
        pool, url = f"dir:{tmp_path / 'pool'}", request.getfixturevalue("postgres_url")
    installation = Installation(
        tmp_path / "state",
        pool=pool,
        database_url=url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
    )
    return Town(installation, registry, keys, serve)


def flipped(signature: str, bit: int) -> str:
    """The signature with one bit of its 74 bytes flipped."""
    comment, encoded, _ = signature.split("\n")
    raw = bytearray(base64.b64decode(encoded))
    raw[bit // 8] ^= 1 << bit % 8
    return f"{comment}\n{base64.b64encode(raw).decode()}\n"


def test_what_signify_signed_is_launched_and_nothing_else_is(town: Town):
    assert town.refusal() == (403, "template_unsigned")
    statement = town.statement()
    town.run_import("db", force=False)
    good = town.keys.sign(town.secret, statement)

    # By an unknown key, over another template's statement (its bytes are the same but for the
    # name), with one flipped bit anywhere: each refused, and none of it kept.
    stranger = town.keys.make("stranger")
    assert town.offer(town.keys.sign(stranger, statement)) == (422, "key_untrusted")
    assert town.offer(town.keys.sign(town.secret, town.statement("db"))) == (
        422,
        "signature_invalid",
    )
    assert town.offer(town.keys.sign(town.secret, statement + b"\n")) == (422, "signature_invalid")
    assert {town.offer(flipped(good, bit)) for bit in range(16)} == {(422, "signature_malformed")}
    assert {town.offer(flipped(good, bit)) for bit in range(16, 80)} == {(422, "key_untrusted")}
    assert {town.offer(flipped(good, bit)) for bit in range(80, 592, 7)} == {
        (422, "signature_invalid")
    }
    assert town.api.get("/templates/web/signatures").json() == []
    assert town.refusal() == (403, "template_unsigned")

    # The good one, also through another statement's door: it is web's alone.
    assert town.offer(good, "db") == (422, "signature_invalid")
    assert town.offer(good)[0] == 201
    assert town.launch().json()["signed"] is True
    assert town.refusal("db") == (403, "template_unsigned")

    # The same bytes again: another generation, the same statement, still launched.
    again = town.run_import("web")
    assert again["generation"] == 2
    assert town.statement() == statement
    assert town.launch().json()["generation"] == 2

    # Other bytes: not launched, and the old signature is not one over them.
    town.push("second")
    assert town.run_import("web")["generation"] == 3
    assert town.refusal() == (403, "template_unsigned")
    assert town.offer(good) == (422, "signature_invalid")

    # The first bytes once more: the old signature counts again.
    town.push("first")
    assert town.run_import("web")["generation"] == 4
    assert town.launch().status_code == 201


@pytest.mark.parametrize("town", ["dir"], indirect=True)
def test_a_key_is_trusted_rotated_and_withdrawn_without_a_restart(town: Town):
    town.sign()
    assert town.launch().status_code == 201
    later = town.keys.trust("release-later", town.installation)
    town.sign(later)
    (town.installation.keys / "release.pub").unlink()
    launched = town.launch()
    assert launched.status_code == 201
    labels = [one["keyLabel"] for one in town.api.get("/templates/web/signatures").json()]
    assert labels == ["release", "release-later"]
    (town.installation.keys / "release-later.pub").unlink()
    assert town.refusal() == (403, "key_untrusted")
    shown = town.api.get("/templates/web").json()
    assert (shown["signed"], shown["blocked"]) == (False, True)
    # Another key in the old one's file is another key; the old one back is the old one.
    town.keys.make("other")
    other = (town.keys.place / "other.pub").read_bytes()
    (town.installation.keys / "release.pub").write_bytes(other)
    assert town.refusal() == (403, "key_untrusted")
    town.keys.trust("release", town.installation)
    assert town.launch().status_code == 201
    # Who could write to the file could have put his own there: it does not count.
    (town.installation.keys / "release.pub").chmod(0o666)
    assert town.refusal() == (403, "key_untrusted")


def test_a_snapshot_that_somebody_made_anew_is_not_launched(town: Town):
    """With the same files: what was signed is what was looked at, not what looks alike."""
    town.sign()
    origin = town.api.get("/templates/web").json()["origin"]
    if town.installation.env["COPPICE_POOL"].startswith("zfs:"):
        stubbornly("zfs", "destroy", "-R", origin)
        sh("zfs", "snapshot", origin)
    else:
        sh("cp", "-a", origin, f"{origin}.copy")
        sh("rm", "-r", origin)
        sh("mv", f"{origin}.copy", origin)
    assert town.refusal() == (403, "statement_stale")
    found = town.api.post("/templates/reload").json()["findings"]
    assert "guid_changed" in [one["code"] for one in found]
    assert town.run_import("web")["signed"] is True
    assert town.launch().status_code == 201


@pytest.mark.parametrize("town", ["dir"], indirect=True)
def test_what_somebody_changed_in_the_database_is_not_launched(
    town: Town, swap_database: Callable[[str], AbstractContextManager[None]]
):
    signature = town.sign()
    stranger = town.keys.make("stranger")
    public = (town.keys.place / "stranger.pub").read_text().split("\n")[1]
    by_stranger = town.keys.sign(stranger, town.statement())
    with swap_database(town.installation.env["DATABASE_URL"]):
        rows = Signature.objects.all()
        rows.update(signature=flipped(signature, 591))
        assert town.refusal() == (403, "signature_invalid")
        rows.update(signature="")
        assert town.refusal() == (403, "signature_invalid")
        rows.update(signature=by_stranger)
        assert town.refusal() == (403, "signature_invalid")
        rows.update(public_key=public)
        assert town.refusal() == (403, "key_untrusted")
        rows.delete()
        assert town.refusal() == (403, "template_unsigned")
        # The log has the truth.
        assert readmodels.check()[1] != []
        readmodels.rebuild()
    assert town.launch().status_code == 201


@pytest.mark.parametrize("town", ["dir"], indirect=True)
def test_a_launch_without_the_gate_is_recorded_as_unsigned(
    town: Town, serve: MakeServer, tmp_path: Path
):
    for mode in ("warn", "off"):
        other = Installation(
            town.installation.state,
            pool=town.installation.env["COPPICE_POOL"],
            database_url=town.installation.env["DATABASE_URL"],
            COPPICE_REQUIRE_SIGNED_TEMPLATES=mode,
        )
        gateway = serve(other).api(None)
        gateway.headers["Authorization"] = f"Bearer {town.token}"
        launched = gateway.post("/sandboxes", json={"template": "web"}).json()
        assert (launched["signed"], launched["gate"]) == (False, mode)
        data = town.api.get("/templates/web/events").json()[-1]["data"]
        assert (data["gate"], data["signed"], data["keyId"]) == (mode, False, None)
        assert data["failedChecks"] == ["template_unsigned"]
        shown = gateway.get("/templates/web/gate").json()
        assert (shown["allowed"], shown["code"]) == (True, "template_unsigned")
    assert town.refusal() == (403, "template_unsigned")  # the first server's gate is on


@pytest.mark.parametrize("town", ["zfs"], indirect=True)
def test_an_operator_signs_on_his_own_side(town: Town, tmp_path: Path):
    """`coppice tpl sign` with a key that has a passphrase, and with a signature made elsewhere."""

    def coppice(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "templates_app.cli.main", *words],
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "COPPICE_URL": town.url,
                "COPPICE_TOKEN": town.token,
                **env,
            },
        )

    secret, public = tmp_path / "locked.sec", tmp_path / "locked.pub"
    subprocess.run(
        ["signify-openbsd", "-G", "-p", public, "-s", secret],
        input=b"correct horse\ncorrect horse\n",
        check=True,
        capture_output=True,
    )
    how = {"COPPICE_SIGN_PRIVKEY": str(secret)}
    sign = ("tpl", "sign", "web", "--passphrase-stdin")
    unknown = coppice(*sign, stdin="correct horse\n", **how)
    assert unknown.returncode == 5 and "key_untrusted" in unknown.stderr
    (town.installation.keys / "locked.pub").write_bytes(public.read_bytes())
    assert coppice(*sign, stdin="wrong\n", **how).returncode == 1
    assert town.refusal() == (403, "template_unsigned")
    signed = coppice(*sign, stdin="correct horse\n", **how)
    assert signed.returncode == 0, signed.stderr
    assert town.launch().status_code == 201
    assert coppice("tpl", "signed", "web", "--key", str(public)).returncode == 0

    # On a machine without a network: statement out, signature back.
    town.run_import("db", force=False)
    (tmp_path / "db.json").write_bytes(coppice("tpl", "statement", "db").stdout.encode())
    subprocess.run(
        ["signify-openbsd", "-S", "-s", town.secret, "-m", tmp_path / "db.json"], check=True
    )
    handed_in = coppice("tpl", "sign", "db", "--signature", str(tmp_path / "db.json.sig"))
    assert handed_in.returncode == 0, handed_in.stderr
    assert town.launch("db").status_code == 201
    # Nowhere on the server's side is the secret key.
    for path in town.installation.state.rglob("*"):
        if path.is_file():
            assert secret.read_bytes().split(b"\n")[1] not in path.read_bytes()
