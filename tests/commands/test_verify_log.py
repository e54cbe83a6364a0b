"""`manage.py verify_log`, `write_checkpoint`: what was done to the log is named, whoever did it."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess

import pytest
from django.db import connection

from templates_app import store, store_writers, triggers
from templates_app.errors import LogInconsistent
from templates_app.events import Meta, SandboxDestroyed
from templates_app.services import ledger
from templates_app.trust import checkpoints, log, signify

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


@pytest.fixture
def place(any_database, settings, tmp_path):
    settings.COPPICE_STATE_DIR = tmp_path / "state"
    settings.COPPICE_CHECKPOINT_DIR = tmp_path / "far"
    settings.COPPICE_NODE = "test"
    (tmp_path / "state").mkdir()
    (tmp_path / "far").mkdir()
    return tmp_path


def tell(count, word="x"):
    for number in range(count):
        # Characters that each database quotes, and that JSON does.
        event = SandboxDestroyed(sandbox=f"s{number}", template="web", dataset=f'{word} "\\é\n')
        store.append(event, meta=META)


def forge(statement, *parameters):
    """What somebody does who owns the database."""
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def put_back(size):
    """The database as a backup has it that was made at this size."""
    for table in ("event", "mention"):
        forge(f"DELETE FROM templates_app_{table} WHERE position > %s", size)  # noqa: S608


def forge_with_its_hash(position):
    """Another content, and the leaf hash that it has."""
    forge(
        "UPDATE templates_app_event SET data = replace(data, 'web', 'wab') WHERE position = %s",
        position,
    )
    (_, data, _) = next(store.leaves(after=position - 1))
    forge(
        "UPDATE templates_app_event SET leaf_hash = %s WHERE position = %s",
        log.leaf_hash(data).hex(),
        position,
    )


def test_leaves_made_anew_are_those_that_were_recorded(place, monkeypatch):
    monkeypatch.setattr(store, "_READ_AT_ONCE", 2)
    tell(5)
    rows = list(store.leaves())
    assert [position for position, _, _ in rows] == [1, 2, 3, 4, 5]
    for _, data, recorded in rows:
        assert log.leaf_hash(data).hex() == recorded
    exported = [json.loads(line) for line in store.export()]
    for (_, data, _), line in zip(rows, exported, strict=True):
        del line["eventId"], line["leafHash"]
        assert json.loads(bytes(data)) == line


def test_a_time_without_microseconds_is_hashed_as_it_was_recorded(shop, monkeypatch):
    """SQLite's column then has none; PostgreSQL formats times by itself, in both places."""
    real = store_writers.datetime

    class Clock(real.datetime):
        @classmethod
        def now(cls, zone=None):
            return super().now(zone).replace(microsecond=0)

    monkeypatch.setattr(store_writers.datetime, "datetime", Clock)
    tell(1)
    monkeypatch.undo()
    ((_, data, recorded),) = store.leaves()
    assert b'.000000Z"' in data
    assert log.leaf_hash(data).hex() == recorded


def test_a_whole_log_verifies(place):
    assert ledger.verify().size == 0
    ledger.write_checkpoint()
    tell(3)
    ledger.write_checkpoint()
    tell(4)
    found = ledger.verify()
    leaves = [log.leaf_hash(data) for _, data, _ in store.leaves()]
    assert (found.size, found.root) == (7, log.root(leaves))
    assert found.checkpoints == 4  # two, in two directories each


def test_a_checkpoint_is_what_signify_and_others_verify(place):
    tell(3)
    made = ledger.write_checkpoint()
    assert (made.origin, made.size) == ("coppice/test", 3)
    public = place / "state" / "log" / "log.pub"
    for directory in (place / "state" / "log" / "checkpoints", place / "far"):
        note = (directory / "checkpoint-000000000003.note").read_bytes()
        assert checkpoints.verify(note, signify.PublicKey.parse(public.read_bytes())) == made
        done = subprocess.run(
            ["signify-openbsd", "-V", "-p", public, "-m", directory / "checkpoint-000000000003"],
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
    secret = place / "state" / "log" / "log.sec"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_the_next_checkpoint_reads_only_what_came_since(place, monkeypatch):
    tell(3)
    ledger.write_checkpoint()
    tell(2)
    asked, real = [], store.leaves
    monkeypatch.setattr(
        store, "leaves", lambda *, after=0: asked.append(after) or real(after=after)
    )
    made = ledger.write_checkpoint()
    assert asked == [2, 3]  # the last one that it knows, and what is new
    monkeypatch.undo()
    assert made.root == ledger.verify().root


def test_a_damaged_frontier_is_made_anew(place):
    tell(3)
    ledger.write_checkpoint()
    (place / "state" / "log" / "frontier.json").write_text('{"size": 3, "hashes": ["00"]}')
    tell(1)
    assert ledger.write_checkpoint().root == ledger.verify().root


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ("UPDATE templates_app_event SET data = '{}' WHERE position = 4", 4),
        ("UPDATE templates_app_event SET stream = 'sandbox:z' WHERE position = 2", 2),
        ("UPDATE templates_app_event SET leaf_hash = 'no' WHERE position = 6", 6),
        ("DELETE FROM templates_app_event WHERE position = 3", 3),
        ("DELETE FROM templates_app_event WHERE position = 6", 6),
        ("UPDATE templates_app_event SET position = 0 WHERE position = 6", 0),
        ("UPDATE templates_app_event SET position = -5 WHERE position = 6", -5),
    ],
)
def test_what_does_not_fit_its_leaf_hash_is_named(place, change, position):
    tell(6)
    forge(change)
    with pytest.raises(LogInconsistent) as caught:
        ledger.verify()
    assert caught.value.extra["position"] == position


def test_a_change_with_its_leaf_hash_is_between_two_checkpoints(place):
    for _ in range(3):
        tell(2)
        ledger.write_checkpoint()
    forge_with_its_hash(4)
    with pytest.raises(LogInconsistent, match="positions 3 to 4") as caught:
        ledger.verify()
    assert caught.value.extra["checkpoint"] == "checkpoint-000000000004.note"


def test_a_log_that_was_cut_is_found_with_its_head_row(place):
    tell(4)
    ledger.write_checkpoint()
    put_back(2)
    for call in (ledger.verify, ledger.write_checkpoint):
        with pytest.raises(LogInconsistent, match="ends at position 2|has no position 4"):
            call()


def test_events_cut_off_after_the_last_checkpoint_are_missed_where_something_knows_them(place):
    tell(3)
    ledger.write_checkpoint()
    tell(2)
    forge("DELETE FROM templates_app_event WHERE position > 4")
    with pytest.raises(LogInconsistent, match="ends at position 4; its index .* knows 5") as caught:
        ledger.verify()
    assert caught.value.extra == {"position": 5}


def test_a_log_that_was_put_back_and_went_on_is_not_signed(place):
    tell(4)
    ledger.write_checkpoint()
    before = sorted(path.name for path in (place / "far").iterdir())
    put_back(2)
    triggers.install(connection)
    tell(5, word="other")
    with pytest.raises(LogInconsistent, match="another event"):
        ledger.write_checkpoint()
    assert sorted(path.name for path in (place / "far").iterdir()) == before
    with pytest.raises(LogInconsistent, match="positions 1 to 4"):
        ledger.verify()


def test_a_state_directory_that_was_put_back_too_is_found_by_the_far_one(place):
    tell(2)
    ledger.write_checkpoint()
    shutil.copytree(place / "state", place / "old")
    tell(2)
    ledger.write_checkpoint()
    put_back(2)
    shutil.rmtree(place / "state")
    (place / "old").rename(place / "state")
    with pytest.raises(LogInconsistent, match="had 4 events"):
        ledger.write_checkpoint()


def test_a_checkpoint_that_nobody_signed_is_told(place):
    tell(2)
    ledger.write_checkpoint()
    path = place / "far" / "checkpoint-000000000002.note"
    path.write_bytes(path.read_bytes().replace(b"\n2\n", b"\n1\n"))
    with pytest.raises(LogInconsistent, match="no checkpoint of this log"):
        ledger.verify()


def test_checkpoints_of_an_earlier_key_go_on_to_count(place, settings):
    tell(2)
    ledger.write_checkpoint()
    (place / "new.sec").write_text(signify.generate("new").secret)
    settings.COPPICE_LOG_KEY = place / "new.sec"
    tell(1)
    ledger.write_checkpoint()
    assert ledger.verify().checkpoints == 4


def test_a_directory_that_was_away_gets_the_newest(place, settings):
    tell(2)
    settings.COPPICE_CHECKPOINT_DIR = None
    ledger.write_checkpoint()
    settings.COPPICE_CHECKPOINT_DIR = place / "far"
    ledger.write_checkpoint()
    assert (place / "far" / "checkpoint-000000000002.note").exists()


def test_what_was_signed_stands_where_no_checkpoint_can_be_written(place, settings, caplog):
    settings.COPPICE_CHECKPOINT_DIR = place / "nowhere"
    ledger.checkpoint_after("a signature")
    assert "No checkpoint of the log after a signature" in caplog.text


def test_the_commands(shop):
    tell(3)
    made = shop.run("write_checkpoint")
    assert (made.status, made.out.splitlines()[:2]) == (0, ["coppice/test", "3"])
    done = shop.run("verify_log")
    root = ledger.verify().root.hex()
    assert (done.status, done.out) == (0, f"3\t{root}\n")
    said = json.loads(shop.run("verify_log", "--json").out)
    assert said == {"size": 3, "root": root, "checkpoints": 1}
    forge("UPDATE templates_app_event SET data = '{}' WHERE position = 2")
    bad = shop.run("verify_log")
    assert (bad.status, bad.out) == (4, "")
    assert "log_inconsistent: The event at position 2 is not the one that was recorded" in bad.err
