"""`manage.py export_events`: the log as JSON lines."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from django.core.management import call_command

from templates_app import store
from templates_app.errors import OutOfSpace
from templates_app.events import Meta, SandboxDestroyed

ROOT = Path(__file__).resolve().parents[2]
META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


def destroyed(sandbox):
    return SandboxDestroyed(sandbox=sandbox, template="web", dataset="zroot/ü")


def export(*arguments):
    out, err = io.StringIO(), io.StringIO()
    call_command("export_events", *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue().splitlines(), err.getvalue()


def test_it_writes_one_line_an_event_with_all_that_was_recorded(any_database, monkeypatch):
    monkeypatch.setattr(store, "_READ_AT_ONCE", 2)
    recorded = store.append([destroyed("a"), destroyed("b"), destroyed("a")], meta=META)
    lines, talk = export()
    assert [json.loads(line) for line in lines] == [
        {
            "position": one.position,
            "eventId": str(one.event_id),
            "stream": one.stream,
            "version": one.version,
            "type": "sandbox-destroyed",
            "schema": 1,
            "data": {"sandbox": one.event.sandbox, "template": "web", "dataset": "zroot/ü"},
            "meta": {"actor": "alice", "source": "cli", "requestId": "r1", "node": "n1"},
            "recordedAt": one.recorded_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "leafHash": one.leaf_hash,
        }
        for one in recorded
    ]
    assert "3 events" in talk


def test_it_goes_on_after_a_position(any_database):
    store.append([destroyed("a"), destroyed("b"), destroyed("c")], meta=META)
    assert [json.loads(line)["position"] for line in export("--after", "2")[0]] == [3]
    assert export("--after", "4")[0] == []


def test_it_is_recorded_before_the_first_line_and_not_part_of_itself(any_database):
    store.append([destroyed("a"), destroyed("b"), destroyed("c")], meta=META)
    assert len(export("--after", "1")[0]) == 2
    last = store.at(4)
    event = last.event
    assert (last.type, last.meta.source) == ("exported", "command")
    assert (event.what, event.events, event.first, event.last) == ("events", 2, 2, 3)
    # Who exports what came since, again and again, does not export his own traces for ever.
    assert [json.loads(line)["type"] for line in export("--after", "3")[0]] == ["exported"]
    assert store.size() == 4


def test_a_log_that_cannot_be_written_is_exported_all_the_same(any_database, monkeypatch):
    store.append(destroyed("a"), meta=META)

    def full(*args, **more):
        raise OutOfSpace("The disk is full.")

    monkeypatch.setattr(store, "append", full)
    lines, talk = export()
    assert len(lines) == 1 and "not recorded" in talk


def test_what_this_program_cannot_read_is_exported_all_the_same(any_database, monkeypatch):
    store.append(destroyed("a"), meta=META)
    monkeypatch.setattr("templates_app.events.EVENTS", {})
    assert len(export()[0]) == 1


def test_it_ends_quietly_when_its_reader_has_had_enough(sqlite_url, swap_database):
    with swap_database(sqlite_url):
        store.append([destroyed(f"s{n}") for n in range(2000)], meta=META)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "export_events"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": sqlite_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    process.stdout.close()
    talk = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0, talk
    assert json.loads(first)["position"] == 1
    assert "Traceback" not in talk
    assert "BrokenPipe" not in talk
