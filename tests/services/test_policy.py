"""What a server is set to is in the log: at its start, and when a trusted key comes or goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates_app import store
from templates_app.events import PolicyChanged
from templates_app.names import NameGlob
from templates_app.services import policy
from templates_app.trust import signify


@pytest.fixture
def server(any_database: str, settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that has not started yet; its directory of trusted keys."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    settings.COPPICE_TRUSTED_KEYS = keys
    settings.COPPICE_NODE = "jail1"
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    monkeypatch.setattr(policy, "_noticed", None)
    return keys


def told() -> list[dict[str, tuple[str | None, str | None]]]:
    """The changes of each event."""
    events = [one.event for one in store.read() if isinstance(one.event, PolicyChanged)]
    return [{c.name: (c.before, c.after) for c in event.changes} for event in events]


def test_a_start_records_what_changed_since_the_last_one(server: Path, settings):
    policy.look()
    assert told() == [], "a command's environment is no server's"
    policy.at_start()
    (first,) = told()
    assert first["COPPICE_REQUIRE_SIGNED_TEMPLATES"] == (None, "on")
    assert first["COPPICE_LIMIT_ENTRIES"] == (None, "2000000")
    assert not [name for name in first if "SECRET" in name or "DATABASE" in name]
    policy.at_start()
    assert len(told()) == 1, "a start with the same settings is none"
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    settings.COPPICE_GATE_EXEMPT = (NameGlob("test-*"), NameGlob("dev"))
    policy.at_start()
    assert told()[1] == {
        "COPPICE_REQUIRE_SIGNED_TEMPLATES": ("on", "off"),
        "COPPICE_GATE_EXEMPT": ("", "test-*,dev"),
    }
    last = list(store.read())[-1]
    assert (last.stream, last.meta.source) == ("policy:jail1", "server")


def test_a_key_that_comes_changes_or_goes_is_recorded_while_the_server_runs(server: Path):
    one, other = (
        signify.SecretKey.load(signify.generate(n).secret).public_key for n in ("one", "other")
    )
    policy.at_start()
    for _ in range(2):
        policy.look()
    assert len(told()) == 1
    name = "COPPICE_TRUSTED_KEYS/release.pub"
    (server / "release.pub").write_bytes(one.to_bytes())
    policy.look()
    policy.look()
    (server / "release.pub").write_bytes(other.to_bytes())
    policy.look()
    (server / "release.pub").unlink()
    policy.look()
    assert told()[1:] == [
        {name: (None, one.text)},
        {name: (one.text, other.text)},
        {name: (other.text, None)},
    ]


def test_a_log_that_cannot_be_written_stops_no_start(server: Path, monkeypatch):
    real = store.append

    def full(*args: object, **more: object) -> None:
        raise policy.CoppiceError("The disk is full.")

    monkeypatch.setattr(store, "append", full)
    policy.at_start()
    monkeypatch.setattr(store, "append", real)
    assert told() == []
    policy.look()
    assert len(told()) == 1
