"""Evidence bundles: the same bytes for the same state, and each claim in them is checked.

Who has the log's key may write what he likes into a bundle; what he cannot do is make it agree with
the log and with a signature by a key that he has not got. So most forgeries here are signed anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from templates_app import store, triggers
from templates_app.errors import LogInconsistent
from templates_app.events import Attached, Digests, EvidenceAttached
from templates_app.services import (
    archive,
    common,
    evidence,
    keys,
    ledger,
    ledger_files,
    signing,
)
from templates_app.trust import signify
from tests import house
from tests.callers import Api, post

VERIFY = evidence._PLACE / "verify.py"


class Auditor:
    """A directory on a machine that has the keys, and whatever he was given."""

    def __init__(self, api: Api, place: Path) -> None:
        self.api, self.place = api, place
        self.log_key, self.key = place / "log.pub", place / "release.pub"
        place.mkdir()
        shutil.copy(api.keys / "release.pub", self.key)

    def fetch(self, name: str = "web", query: str = "") -> bytes:
        answer = self.api.as_("auditor").get(f"/templates/{name}/evidence{query}")
        assert answer.status_code == 200, answer.content
        assert answer["Content-Type"] == "application/x-tar"
        assert answer["Content-Disposition"] == f'attachment; filename="{name}.evidence.tar"'
        self.log_key.write_bytes(ledger_files.secret_key().public_key.to_bytes())
        return answer.content

    def unpack(self, tar: bytes) -> Path:
        shutil.rmtree(self.place / "web.evidence", ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(tar)) as found:
            found.extractall(self.place, filter="data")
        return self.place / "web.evidence"

    def verify(self, *words: object, keys: bool = True) -> subprocess.CompletedProcess[str]:
        given = ["--key", self.key] if keys else []
        argv = [sys.executable, "-I", VERIFY, "--log-key", self.log_key, *given, *words]
        place = self.place / "web.evidence"
        return subprocess.run([*map(str, argv), place], capture_output=True, text=True, timeout=60)

    def refused(self, *words: str) -> None:
        done = self.verify()
        assert done.returncode == 1, done.stdout
        for word in ("FAILED", *words):
            assert word in done.stderr


@pytest.fixture
def auditor(api: Api, tmp_path: Path) -> Auditor:
    """A hand-made template, signed; and another one."""
    api.adopt("web", "db")
    api.trust()
    assert api.sign("web").status_code == 201
    return Auditor(api, tmp_path / "auditor")


def test_a_bundle_holds_and_says_what(auditor: Auditor):
    place = auditor.unpack(auditor.fetch())
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    assert names == [
        "SHA256.sig", "VERIFY.md", "log/checkpoint", "log/checkpoint.note", "log/checkpoint.sig",
        "log/events.jsonl", "log/log.pub", "log/proofs.jsonl", "signatures/2.pub",
        "signatures/2.sig", "statement.json", "template.mtree", "verify.py",
    ]  # fmt: skip
    done = auditor.verify()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "holds   12 files are those that the log's key has signed for",
        "holds   a checkpoint of 2 events of 'coppice/test' is signed by the log's key",
        "holds   2 events are in it, of each stream all up to the last one shown:",
        "        template:web to version 1",
        f"holds   the statement: reloaded at position 1, {at(1)}, by 'tests'",
        "holds   'template.mtree', as recorded: sha256 "
        + hashlib.sha256((place / "template.mtree").read_bytes()).hexdigest(),
        f"holds   signed by 'release', signed at position 2, {at(2)}",
        "        1 x reloaded, 1 x signed",
        "web: all of this holds.",
    ]


def at(position: int) -> str:
    return str(json.loads(next(iter(store.export_at([position]))))["recordedAt"])


def test_stock_signify_alone_checks_the_list(auditor: Auditor):
    place = auditor.unpack(auditor.fetch())
    words = ["signify-openbsd", "-C", "-p", auditor.log_key, "-x", "SHA256.sig"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 12
    words = ["signify-openbsd", "-V", "-q", "-p", auditor.key, "-x", place / "signatures/2.sig"]
    subprocess.run([*words, "-m", place / "statement.json"], check=True)


def test_the_same_state_gives_the_same_bytes(auditor: Auditor):
    first = auditor.fetch()
    assert auditor.fetch() == first
    # What happens to others, and further checkpoints, change nothing.
    post(auditor.api.as_("operator"), "/templates/db/verify", {})
    ledger.write_checkpoint()
    assert auditor.fetch() == first
    traces = list(store.read(types=["exported"]))
    assert [(one.event.what, one.event.question, one.meta.actor) for one in traces] == [
        ("evidence", "web", "auditor")
    ] * 3
    post(auditor.api.as_("operator"), "/templates/web/verify", {})
    assert auditor.fetch() != first
    assert auditor.fetch(query="?generation=0") == auditor.fetch()
    with tarfile.open(fileobj=io.BytesIO(first)) as found:
        members = found.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in members} == {
        (0, 0, 0, "", 0o644)
    }


def test_another_key_for_the_log_opens_the_whole_bundle(auditor: Auditor, settings, tmp_path):
    auditor.fetch()
    (tmp_path / "new.sec").write_text(signify.generate("new").secret)
    settings.COPPICE_LOG_KEY = tmp_path / "new.sec"
    auditor.unpack(auditor.fetch())
    assert auditor.verify().returncode == 0


def test_it_rests_on_the_keys_that_the_auditor_has(auditor: Auditor):
    auditor.unpack(auditor.fetch())
    unknown = auditor.verify(keys=False)
    assert unknown.returncode == 0
    assert "UNKNOWN signed by 'release'" in unknown.stdout
    assert "no key approves it" in unknown.stdout
    own, other = auditor.key.read_bytes(), signify.generate("other").public
    auditor.key.write_text(other)
    auditor.refused("none over this statement counts and is by a key that was given")
    auditor.key.write_bytes(own)
    auditor.log_key.write_text(other)
    auditor.refused("SHA256.sig")


WHO = common.context(actor="tests", source="command", request_id="r" * 8)


@pytest.mark.parametrize(
    ("reason", "since", "void"),
    [("superseded", None, False), ("compromised", None, True), ("compromised", 3, False)],
)
def test_a_revoked_key_approves_what_it_had_signed_before(
    auditor: Auditor, reason: str, since: int | None, void: bool
):
    """Signed at position 2. The log's own word on the key is in the bundle, too."""
    before = evidence.bundle(name="web").tar()
    keys.revoke(key="release", reason=reason, since=since, context=WHO)
    assert evidence.bundle(name="web").tar() != before
    auditor.unpack(auditor.fetch())
    done = auditor.verify()
    assert done.returncode == void
    assert "1 x key-revoked" in done.stdout
    assert ("VOID    signed by 'release'" in done.stdout) == void
    assert (f"not after the key-revoked at position 3, {at(3)}" in done.stdout) == void


def test_a_signature_that_was_withdrawn_approves_nothing(auditor: Auditor):
    signing.withdraw(name="web", key="release", context=WHO)
    auditor.unpack(auditor.fetch())
    auditor.refused("none over this statement counts")
    assert "VOID    signed by 'release'" in auditor.verify().stdout


def test_how_a_key_came_to_be_trusted_is_in_it(auditor: Auditor):
    public = (auditor.api.keys / "release.pub").read_text()
    wanted = keys.Wanted(public_key=public, label="release", owner="Olivia")
    keys.trust(wanted=wanted, context=WHO)
    auditor.unpack(auditor.fetch())
    done = auditor.verify()
    assert (done.returncode, "1 x key-trusted" in done.stdout) == (0, True)


def test_of_a_destroyed_template_there_is_evidence_too(auditor: Auditor):
    auditor.api.as_("operator").delete("/templates/web")
    auditor.unpack(auditor.fetch(query="?generation=0"))
    done = auditor.verify()
    assert "1 x destroyed" in done.stdout and done.returncode == 0
    answer = auditor.api.as_("auditor").get("/templates/web/evidence")
    assert (answer.status_code, answer.json()["code"]) == (404, "template_not_found")


def test_what_is_not_kept_is_said_to_be_missing(auditor: Auditor, settings):
    auditor.api.as_("operator").delete("/templates/web")
    shutil.rmtree(settings.COPPICE_STATE_DIR / "manifests")
    auditor.unpack(auditor.fetch(query="?generation=0"))
    done = auditor.verify()
    assert done.returncode == 0
    assert "MISSING 'template.mtree'" in done.stdout


def test_the_documents_that_lead_to_the_image_are_in_it(auditor: Auditor):
    kept = archive.archive().documents
    config = kept.put(b'{"os": "linux"}')
    manifest = kept.put(f'{{"config": {{"digest": "{config}"}}}}'.encode())
    inner = kept.put(f'{{"manifests": [{{"digest": "{manifest}"}}]}}'.encode())
    other = kept.put(b"another platform's index")
    text = f'{{"manifests": [{{"digest": "{other}"}}, {{"digest": "{inner}"}}]}}'
    index = kept.put(text.encode())
    digests = Digests(index=index, manifest=manifest, config=config)
    store.append([house.imported("mail", digests=digests)], meta=house.meta())
    found = evidence.bundle(name="mail").files
    assert found["image/index.json"] == text.encode()
    assert found["image/index-2.json"] == kept.get(inner)
    assert found["image/manifest.json"] == kept.get(manifest)
    assert found["image/config.json"] == kept.get(config)
    kept.forget(inner)
    found = evidence.bundle(name="mail").files
    assert [name for name in found if name.startswith("image/index")] == []


def test_an_index_that_names_the_same_ten_thousand_times_is_opened_once(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
):
    kept = archive.archive().documents
    manifest = kept.put(b"{}")
    inner = kept.put(f'[{{"digest": "{manifest}"}}]'.encode())
    decoy = kept.put(b", ".join([b'{"digest": "sha256:%064d"}' % 1] * 100))
    other = kept.put(", ".join([f'{{"digest": "{decoy}"}}'] * 100).encode())
    index = kept.put(", ".join([f'"{other}"'] * 100 + [f'"{inner}"']).encode())
    opened: list[str] = []
    kept_text = archive.kept_text
    monkeypatch.setattr(
        archive,
        "kept_text",
        lambda texts, digest: opened.append(digest) or kept_text(texts, digest),
    )
    chain = evidence._chain(kept, index, manifest, 4)
    assert chain == [kept.get(index), kept.get(inner)]
    assert sorted(opened) == sorted({index, other, decoy, f"sha256:{1:064d}", inner})


def test_what_a_registry_holds_about_the_image_is_in_it(auditor: Auditor):
    kept = archive.archive().documents.put(b'{"spdxVersion": "SPDX-2.3"}')
    item = Attached(
        kind="sbom",
        media_type="application/spdx+json",
        digest=house.digest("artifact"),
        subject=house.digest("manifest"),
        through="referrers",
        size_bytes=27,
        kept=(kept, house.digest("not kept here any more")),
        verified_by=(),
        detail="",
    )
    looked = EvidenceAttached(
        template="web",
        generation=0,
        reference="oci:h.example/web:1",
        manifest_digest=house.digest("manifest"),
        items=(item,),
        missing=(),
    )
    store.append([looked], meta=house.meta())
    name = f"attached/{kept.removeprefix('sha256:')}"
    files = evidence.bundle(name="web").files
    assert [one for one in files if one.startswith("attached/")] == [name]
    auditor.unpack(auditor.fetch())
    done = auditor.verify()
    assert (done.returncode, f"holds   {name!r}, as recorded" in done.stdout) == (0, True)
    # That another one is said to be the registry's, the log's key alone does not make true.
    invented = f"attached/{hashlib.sha256(b'invented').hexdigest()}"
    forge(auditor, lambda files: files.update({invented: b"invented"}))
    auditor.refused(f"{invented}: it is not what the log and the statement name")


def test_no_bundle_is_made_of_a_log_that_was_changed(auditor: Auditor):
    auditor.fetch()
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE templates_app_event SET data = replace(data, 'web', 'wab')")
    with pytest.raises(LogInconsistent):
        evidence.bundle(name="web")


# --- forgeries ---------------------------------------------------------------------------------


def forge(auditor: Auditor, change: Callable[[dict[str, bytes]], None], *, signed: bool = True):
    """The bundle with a change, signed for by the log's key as if it were one of Coppice's."""
    bundle = evidence.bundle(name="web")
    files = dict(bundle.files)
    change(files)
    if signed:
        files.pop(evidence.LIST, None)
        sums = [f"SHA256 ({n}) = {hashlib.sha256(files[n]).hexdigest()}\n" for n in sorted(files)]
        key = dataclasses.replace(ledger_files.secret_key(), comment=b"verify with log.pub")
        files[evidence.LIST] = key.sign_embedded("".join(sums).encode())
    auditor.fetch()
    auditor.unpack(dataclasses.replace(bundle, files=files).tar())


def lines(files: dict[str, bytes], name: str, change: Callable[[list[bytes]], None]) -> None:
    found = files[name].splitlines(keepends=True)
    change(found)
    files[name] = b"".join(found)


def leave_out_an_event(files: dict[str, bytes]) -> None:
    """The first of two verifications."""
    for name in ("log/events.jsonl", "log/proofs.jsonl"):
        lines(files, name, lambda found: found.pop(2))


def edit_an_event(files: dict[str, bytes]) -> None:
    files["log/events.jsonl"] = files["log/events.jsonl"].replace(
        b'"actor":"signer"', b'"actor":"nobody"'
    )


def invent_a_signature(files: dict[str, bytes]) -> None:
    other = signify.SecretKey.load(signify.generate("release").secret)
    files["signatures/2.sig"] = other.sign(files["statement.json"]).encode()


def other_files(files: dict[str, bytes]) -> None:
    files["template.mtree"] += b"./su type=file mode=4755 uid=0 gid=0 size=0 sha256=00\n"


def another_statement(files: dict[str, bytes]) -> None:
    files["statement.json"] = files["statement.json"].replace(b"adopted", b"ADOPTED")


def another_checkpoint(files: dict[str, bytes]) -> None:
    files["log/checkpoint"] = files["log/checkpoint"].replace(b"coppice/test", b"coppice/best")


def an_older_proof(files: dict[str, bytes]) -> None:
    files["log/proofs.jsonl"] = files["log/proofs.jsonl"].replace(
        b'"hashes": ["', b'"hashes": ["00", "'
    )


def no_events(files: dict[str, bytes]) -> None:
    files["log/events.jsonl"] = files["log/proofs.jsonl"] = b""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (leave_out_an_event, "log/events.jsonl: an event is left out before the verified"),
        (edit_an_event, "log/events.jsonl: not proven to be in the log: signed at position 2"),
        (invent_a_signature, "signatures/2.sig: it is not the signature that the log has"),
        (other_files, "template.mtree: it is not what the log and the statement name"),
        (another_statement, "statement.json: no event of the log has recorded it"),
        (another_checkpoint, "log/checkpoint: "),
        (an_older_proof, "log/events.jsonl: not proven to be in the log: reloaded at position 1"),
        (no_events, "statement.json: no event of the log has recorded it"),
    ],
)
def test_who_has_the_logs_key_alone_forges_nothing(auditor: Auditor, change, said: str):
    for _ in range(2):
        post(auditor.api.as_("operator"), "/templates/web/verify", {})
    forge(auditor, lambda files: None)
    assert auditor.verify().returncode == 0
    forge(auditor, change)
    auditor.refused(said)


def test_the_end_of_a_stream_can_be_left_away_and_each_streams_end_is_said(auditor: Auditor):
    """What comes after an event of one stream, no event of another one shows."""
    for _ in range(2):
        post(auditor.api.as_("operator"), "/templates/web/verify", {})
    forge(auditor, lambda files: None)
    assert "template:web to version 1, verifications:web to version 2" in auditor.verify().stdout

    def leave_out_the_signatures_end(files: dict[str, bytes]) -> None:
        for name in ("log/events.jsonl", "log/proofs.jsonl"):
            lines(files, name, lambda found: found.pop(1))

    forge(auditor, leave_out_the_signatures_end)
    done = auditor.verify(keys=False)
    assert "shown:\n        verifications:web to version 2\n" in done.stdout


def test_files_that_come_and_go_are_named(auditor: Auditor):
    place = auditor.unpack(auditor.fetch())
    (place / "image").mkdir()
    (place / "image/index.json").write_text("{}")
    auditor.refused("image/index.json: it is not in the signed list")
    (place / "image/index.json").unlink()
    (place / "signatures/2.pub").unlink()
    auditor.refused("signatures/2.pub: it is missing")
    (place / "\x1b[1Kweb: all of this holds.\x1b[8m").touch()  # no name steers a terminal
    auditor.refused("\\x1b[1Kweb: all of this holds.\\x1b[8m: it is not in the signed list")


def test_whatever_is_written_into_an_event_steers_no_terminal(auditor: Auditor):
    context = common.context(actor="\x1b]0;evil\x07", source="api", request_id="r" * 8)
    store.append([house.imported("mail")], meta=context)
    bundle = evidence.bundle(name="mail")
    auditor.fetch()
    auditor.unpack(dataclasses.replace(bundle, name="web.evidence").tar())
    done = auditor.verify(keys=False)
    assert (done.returncode, "\x1b" in done.stdout) == (0, False)
