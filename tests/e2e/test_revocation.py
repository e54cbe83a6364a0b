"""A revocation in one server process is heeded by another at its next launch: two gunicorns on one
PostgreSQL and one pool, the `coppice` command, keys and signatures of the real signify."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import cli
from tests.servers import Installation, Keys, MakeServer, Server

NAMES = ("prod-a", "prod-b", "other")


class Operator:
    """The `coppice` command, at one of the servers."""

    def __init__(self, installation: Installation) -> None:
        roles = ("--role=operator", "--role=signer", "--role=gateway")
        self.token = installation.manage("create_token", "olivia", *roles).stdout.strip()

    def run(self, server: Server, *words: str, exits: int = 0) -> str:
        done = cli.run(server.url, *words, token=self.token)
        assert done.exit_code == exits, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def installation(tmp_path: Path, postgres_url: str) -> Installation:
    pool = tmp_path / "pool"
    made = Installation(
        tmp_path / "state",
        pool=f"dir:{pool}",
        database_url=postgres_url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="on",
    )
    for name in NAMES:
        (pool / f"{name}-template@base").mkdir()
        (pool / f"{name}-template@base" / "motd").write_text(name)
    made.manage("reload_templates")
    return made


def test_a_stolen_key_ends_at_once_in_every_process_and_as_the_dry_run_said(
    installation: Installation, keys: Keys, serve: MakeServer, tmp_path: Path
):
    here, there = serve(installation), serve(installation)
    operator = Operator(installation)
    old, new, good = keys.make("old"), keys.make("new"), keys.make("good")
    public = {one: str(one.with_suffix(".pub")) for one in (old, new, good)}
    operator.run(here, "key", "trust", public[old], "--owner", "Alice", "--scope", "prod-*")
    operator.run(here, "key", "trust", public[good], "--owner", "Bob")
    rotate = ("--owner", "Alice", "--predecessor", "old", "--announce-with", str(old))
    operator.run(there, "key", "trust", public[new], *rotate)

    # The announcement is what `coppice key announcement` writes, and signify agrees.
    text = operator.run(here, "key", "announcement", public[new], "--predecessor", public[old])
    (told,) = [one for one in installation.events() if one["data"].get("announcement")]
    (tmp_path / "text").write_text(text)
    (tmp_path / "text.sig").write_text(told["data"]["announcement"])
    check = ["signify-openbsd", "-V", "-p", public[old], "-m", str(tmp_path / "text")]
    assert subprocess.run(check, capture_output=True, timeout=30).returncode == 0

    operator.run(here, "tpl", "sign", "prod-a", "--key", str(old))
    operator.run(here, "tpl", "sign", "other", "--key", str(old), exits=5)  # out of its scope
    operator.run(here, "tpl", "sign", "other", "--key", str(good))
    operator.run(here, "tpl", "sign", "prod-b", "--key", str(old))
    operator.run(there, "tpl", "sign", "prod-b", "--key", str(good))
    for number, name in enumerate(NAMES):
        launch = ("sandbox", "create", "--template", name, "--name", f"s{number}")
        operator.run(there, *launch)
        operator.run(there, "sandbox", "explain", "--template", name)

    revoke = ("key", "revoke", "old", "--reason", "compromised", "--json")
    would = json.loads(operator.run(here, *revoke, "--dry-run"))
    operator.run(there, "sandbox", "explain", "--template", "prod-a")
    done = json.loads(operator.run(here, *revoke, "--yes"))
    # The very next launch, at the other process.
    operator.run(there, "sandbox", "create", "--template", "prod-a", exits=5)
    assert [one["template"] for one in would["templates"]] == ["prod-a"]
    assert [(one["id"], one["createdBy"]) for one in would["sandboxes"]] == [("s0", "olivia")]
    assert {**done, "position": None} == would
    for name in NAMES:
        exits = 5 if name == "prod-a" else 0
        for server in (here, there):
            operator.run(server, "sandbox", "explain", "--template", name, exits=exits)
    told = installation.events()
    assert told[-1]["type"] == "sandbox-refused" and told[-1]["data"]["code"] == "key_revoked"
    assert [one["data"]["templates"] for one in told if one["type"] == "key-revoked"] == [
        ["prod-a"]
    ]
    # The successor goes on.
    operator.run(there, "tpl", "sign", "prod-a", "--key", str(new))
    operator.run(here, "sandbox", "create", "--template", "prod-a")
    assert "compromised" in operator.run(here, "key", "show", "old")
    shown = operator.run(here, "key", "list", "-H", "-o", "label,state")
    assert shown == "good\ttrusted\nnew\ttrusted\nold\tcompromised\n"

    # What the servers are set to: one event for both, and one for a key that somebody brought.
    def policies() -> list[dict[str, Any]]:
        lines = map(json.loads, installation.manage("export_events").stdout.splitlines())
        return [one["data"] for one in lines if one["type"] == "policy-changed"]

    (first,) = policies()
    settings = {one["name"]: one["value"] for one in first["settings"]}
    assert settings["COPPICE_REQUIRE_SIGNED_TEMPLATES"] == "on"
    (installation.keys / "brought.pub").write_bytes(Path(public[good]).read_bytes())
    operator.run(there, "sandbox", "create", "--template", "other")
    second = policies()[1]
    assert [one["name"] for one in second["changes"]] == ["COPPICE_TRUSTED_KEYS/brought.pub"]
