"""``coppice log verify``: what was done to the log is named by who trusts nobody.

The server is one that serves what it is told to; the log, its key and its checkpoints are real.
"""

from __future__ import annotations

import base64
import json

import pytest

from templates_app import store
from templates_app.cli import log as command
from templates_app.events import Meta, SandboxDestroyed
from templates_app.services import ledger, ledger_files, proofs
from templates_app.trust import checkpoints, log, signify
from tests.cli import Answer, FakeApi, api, in_terminal, run

__all__ = ["api"]

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


class Liar:
    """A server that serves these lines and this note, whatever is in its database."""

    def __init__(self, api: FakeApi, place) -> None:
        self.api, self.place, self.key = api, place, str(place / "log.pub")
        self.lines: list[dict] = []
        self.note = b""
        api.on(
            "GET", "/log/checkpoint", lambda _asked: Answer(content=self.note, kind=command.TEXT)
        )
        api.on("GET", "/log/entries", self._entries)

    def _entries(self, asked) -> Answer:
        start, end, limit = (int(asked.query[key]) for key in ("start", "end", "limit"))
        shown = self.lines[start - 1 : min(end, start + limit - 1)]
        content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in shown)
        return Answer(content=content.encode(), kind=command.LINES)

    def grow(self, count: int, word: str = "x") -> str:
        """More events, and a checkpoint of them; the file that an auditor has kept it in."""
        for number in range(count):
            event = SandboxDestroyed(sandbox=f"s{number}", template="web", dataset=f'{word} "\\é\n')
            store.append(event, meta=META)
        ledger.write_checkpoint()
        self.lines = [json.loads(line) for line in store.export()]
        _, self.note = proofs.newest()
        kept = self.place / f"{len(self.lines)}.note"
        kept.write_bytes(self.note)
        return str(kept)

    def forge(self, position: int, **changes) -> None:
        """Another content, with the leaf hash that it has."""
        line = {**self.lines[position - 1], **changes}
        line["leafHash"] = log.leaf_hash(log.leaf_data(line)).hex()
        self.lines[position - 1] = line

    def verify(self, *words: str):
        return run(self.api.url, "log", "verify", "--key", self.key, *words)


@pytest.fixture
def liar(api, shop, settings, tmp_path, monkeypatch) -> Liar:
    monkeypatch.setattr(command, "PAGE", 3)
    made = Liar(api, tmp_path)
    made.grow(4)
    (tmp_path / "log.pub").write_bytes((settings.COPPICE_STATE_DIR / "log/log.pub").read_bytes())
    return made


def test_a_log_that_is_as_it_was_signed(liar):
    first = liar.grow(0)
    liar.grow(3, "y")
    done = liar.verify("--since", first, "--save", str(liar.place / "new.note"))
    assert done.exit_code == 0, done.stderr
    root = log.root(bytes.fromhex(one["leafHash"]) for one in liar.lines)
    assert done.stdout == f"7\t{base64.b64encode(root).decode()}\n"
    assert "of 1 that you have kept" in done.stderr
    assert (liar.place / "new.note").read_bytes() == liar.note
    asked = [(one.query["start"], one.query["end"]) for one in liar.api.asked if one.query]
    assert asked == [("1", "3"), ("4", "4"), ("5", "7")]
    said = json.loads(liar.verify("--json").stdout)
    assert (said["size"], said["checkpoints"], said["origin"]) == (7, 1, "coppice/test")
    # What came after the newest checkpoint is not asked for.
    liar.lines.append({"position": 8})
    assert liar.verify().exit_code == 0


def differs(done, *words: str) -> None:
    assert done.exit_code == 1, done.stderr
    assert done.stdout == ""
    assert "log_differs" in done.stderr
    for word in words:
        assert word in done.stderr


def test_an_edited_payload_is_named(liar):
    liar.lines[1]["data"]["template"] = "wab"
    differs(liar.verify(), "The event at position 2 is not the one that was recorded")
    said = json.loads(liar.verify("--json").stderr)
    assert (said["code"], said["position"]) == ("log_differs", 2)


@pytest.mark.parametrize("gone", [1, 2, 4])
def test_a_deleted_event_is_named(liar, gone):
    del liar.lines[gone - 1]
    differs(liar.verify(), f"position {3 if gone == 4 else gone}")


def test_two_swapped_events_are_named(liar):
    liar.lines[1:3] = liar.lines[2:0:-1]
    differs(liar.verify(), "position 2 is not its event")
    for number in (2, 3):
        liar.lines[number - 1]["position"] = number
        liar.forge(number)
    differs(liar.verify(), "the positions 1 to 4")


def test_a_tail_that_was_hashed_anew_is_told_by_kept_checkpoints(liar):
    first = liar.grow(0)
    liar.grow(3, "y")
    liar.forge(6, type="sandbox-created")
    differs(liar.verify("--since", first), "of the positions 5 to 7 is another one")
    liar.forge(2, stream="sandbox:other")
    differs(liar.verify("--since", first), first, "of the positions 1 to 4 is another one")


def test_a_log_that_was_put_back_is_told(liar):
    lines, note = liar.lines, liar.note
    kept = liar.grow(2)
    liar.lines, liar.note = lines, note
    assert liar.verify().exit_code == 0  # by itself it is whole
    differs(liar.verify("--since", kept), "The log had 6 events", "ends at position 4")


def test_another_history_that_the_logs_own_key_signed_is_told(liar):
    kept = liar.grow(2)
    for number in range(1, 7):
        liar.forge(number, schema=9)
    tree = log.Frontier()
    for line in liar.lines:
        tree.append(bytes.fromhex(line["leafHash"]))
    forged = checkpoints.Checkpoint("coppice/test", 6, tree.root())
    liar.note = checkpoints.sign(forged, ledger_files.secret_key())[0]
    assert liar.verify().exit_code == 0
    differs(liar.verify("--since", kept), "of the positions 1 to 6 is another one")


def test_a_checkpoint_by_another_key_is_none(liar):
    other = signify.SecretKey.load(signify.generate("other").secret)
    (liar.place / "other.pub").write_bytes(other.public_key.to_bytes())
    liar.key = str(liar.place / "other.pub")
    differs(liar.verify(), "is no checkpoint that --key has signed")
    own = str(liar.place / "log.pub")
    assert liar.verify("--key", own).exit_code == 0  # after a change of keys there are two


def test_what_is_no_log_is_said(liar):
    liar.lines[2] = {"position": 3}
    differs(liar.verify(), "position 3")
    liar.lines[2] = [1]
    differs(liar.verify(), "position 3 is not its event")
    liar.api.on("GET", "/log/entries", {"events": []})
    done = liar.verify()
    assert (done.exit_code, "server_answer" in done.stderr) == (1, True)


def test_nothing_is_kept_of_a_log_that_differs(liar):
    liar.forge(2, schema=3)
    differs(liar.verify("--save", str(liar.place / "new.note")))
    assert not (liar.place / "new.note").exists()


def test_a_key_is_needed_and_files_are_read(liar):
    assert run(liar.api.url, "log", "verify").exit_code == 2
    assert "file_unusable" in liar.verify("--since", str(liar.place / "gone")).stderr
    assert "file_unusable" in liar.verify("--save", str(liar.place / "no/such")).stderr


def test_the_newest_checkpoint_is_printed_as_it_is(liar):
    assert run(liar.api.url, "log", "checkpoint").stdout_bytes == liar.note
    assert json.loads(run(liar.api.url, "log", "checkpoint", "--json").stdout)["note"] == (
        liar.note.decode()
    )
    liar.note = b"evil\x1b]0;title\x07\n"
    assert "\x1b]0" not in in_terminal(liar.api.url, "log", "checkpoint").text


def test_on_a_terminal_it_shows_how_far_it_is(liar):
    seen = in_terminal(liar.api.url, "log", "verify", "--key", liar.key)
    assert seen.status == 0
    assert "4/4" in seen.text
