"""Imports by way of layer states, on a real ZFS: what is applied, what is kept, what is refused.

The source is written by hand and keeps the promises of the port; the engine's own are in
tests/contract and tests/e2e.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from templates_app import layered, pipeline
from templates_app.errors import CoppiceError, PlatformIncompatible, PullFailed, TreeRefused
from templates_app.events import Digests
from templates_app.names import Platform, TemplateName
from templates_app.sources.base import LayerState, Progress, Receipt, Resolved
from templates_app.trust import tree
from templates_app.trust.manifests import Archive, Texts
from tests.pools import sh
from tests.unit.test_verdict import FREEBSD_PROGRAM

A = "sha256:" + "a" * 64
LIMIT = 1000


@dataclass
class LayeredSource:
    """Each layer is a name and the files it writes; ``applied`` says which were."""

    layers: dict[str, dict[str, str | bytes]]
    fails_after: int = 99
    rotten_once: bool = False  # the failure is a blob's that rotted in the cache, and happens once
    on_layer: Callable[[str], None] = lambda _name: None
    applied: list[str] = field(default_factory=list)
    scheme: str = "oci"
    given: str = "localhost/web"
    canonical: str = "localhost/web:latest"

    def resolve(self) -> Resolved:
        chain = [f"sha256:{hashlib.sha256(b'').hexdigest()}"]
        for name in self.layers:
            chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {name}'.encode()).hexdigest()}")
        return Resolved(
            canonical=self.canonical,
            floating=True,
            digests=Digests(index=None, manifest=A, config=A),
            platform=Platform("linux", "amd64"),
            config={},
            layers=(),
            chain_ids=tuple(chain[1:]),
        )

    def fetch(self, resolved, into: Path, report, import_id: str, states=None) -> Receipt:
        report(Progress(stage="copy"))
        first = states.done.number if states and states.done else 0
        findings = states.done.findings if states and states.done else ()
        manifest = b""
        for number, (name, files) in enumerate(self.layers.items(), 1):
            if number <= first:
                continue
            if number > self.fails_after and self.rotten_once:
                self.fails_after = 99
                (into / "rotten").write_text("of the wrong bytes")
                raise PullFailed("It was damaged.", reason="corrupt", again=True)
            if number > self.fails_after:
                raise PullFailed("The network is gone.", reason="unreachable")
            self.on_layer(name)
            for path, text in files.items():
                place = into / path
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(text if isinstance(text, bytes) else text.encode())
            self.applied.append(name)
            findings = (*findings, f"saw {name}")
            manifest, entries = scanned(into)
            if states:
                state = LayerState(
                    content_bytes=100,
                    number=number,
                    manifest=manifest,
                    entries=entries,
                    findings=findings,
                    left_out=("/dev/*",),
                )
                states.keep(state)
        return Receipt(engine="hand", findings=findings, left_out=("/dev/*",), manifest=manifest)


def scanned(path: Path) -> tuple[bytes, int]:
    into = io.BytesIO()
    made = tree.scan(path, limit_entries=LIMIT, into=into)
    return into.getvalue(), made.entries


BASE = {"base": {"bin/a": "a" * 5000}, "lib": {"lib/b": "b", "bin/a": "changed"}}
WEB = {**BASE, "web": {"srv/web": "w"}}
DB = {**BASE, "db": {"srv/db": "d"}}


@pytest.fixture
def kept(zfs_pool, tmp_path):
    zfs_pool.check()
    return layered.Kept(
        store=zfs_pool.layers,
        manifests=Texts(tmp_path / "manifests"),
        notes=Texts(tmp_path / "layers"),
        engine="hand",
        patience=30,
        make_room=lambda _transferred: None,
    )


def import_(pool, kept, source, name="web", number=1, import_id="0000000a", commit=None, **rules):
    """One import to its end; what it made, and the job."""
    job = pipeline.Job(
        name=TemplateName(name),
        source=source,
        import_id=import_id,
        generation=number,
        driver=pool,
        archive=Archive.of(pool.root.parent / "state")
        if kept is None
        else Archive.of(kept.notes.place.parent),
        rules=pipeline.Rules(
            **{"nameserver": "10.78.0.1", "limit_entries": LIMIT, "refuse_foreign": False, **rules}
        ),
        report=lambda _progress: None,
        kept=kept,
    )
    return pipeline.run(job, commit or (lambda made: made), lambda: None), job


def plain(pool, source, **rules):
    """The same without states."""
    return import_(pool, None, source, **rules)[0]


def files(pool, made):
    """As a sandbox has them."""
    relative = made.dataset.removeprefix(f"{pool.root}/")
    path = pool.clone(relative, "sandbox-1").path
    found = {
        str(one.relative_to(path)): one.read_text() for one in path.rglob("*") if one.is_file()
    }
    pool.destroy("sandbox-1")
    return found


def test_an_image_is_the_same_with_states_and_without(zfs_pool, dir_pool, kept):
    dir_pool.check()
    source = LayeredSource(WEB)
    made, job = import_(zfs_pool, kept, source)
    assert source.applied == ["base", "lib", "web"]
    other = plain(dir_pool, LayeredSource(WEB))
    assert (made.tree_digest, made.statement) == (other.tree_digest, other.statement)
    assert (made.entries, made.verdict, made.deviations) == (
        other.entries,
        other.verdict,
        other.deviations,
    )
    assert made.findings == other.findings
    assert made.snapshot == zfs_pool.snapshot(job.relative)
    assert files(zfs_pool, made)["bin/a"] == "changed"
    assert "10.78.0.1" in files(zfs_pool, made)["etc/resolv.conf"]
    assert [len(image.states) for image in kept.store.images()] == [4]
    # Its manifest is kept under the digest that is signed.
    manifest = kept.manifests.get(made.tree_digest)
    assert b"./etc/resolv.conf type=file" in manifest


@pytest.mark.parametrize("after", [0, 2])
def test_what_rotted_in_the_cache_is_fetched_once_more(zfs_pool, dir_pool, kept, after):
    dir_pool.check()
    source = LayeredSource(WEB, fails_after=after, rotten_once=True)
    made, job = import_(zfs_pool, kept, source)
    assert made.tree_digest == plain(dir_pool, LayeredSource(WEB)).tree_digest
    assert source.applied == ["base", "lib", "web"]  # each once: what was right is begun with
    assert "rotten" not in files(zfs_pool, made)
    assert job.leftovers == []


def test_of_a_shared_base_nothing_is_applied_twice(zfs_pool, dir_pool, kept):
    dir_pool.check()
    import_(zfs_pool, kept, LayeredSource(WEB))
    source = LayeredSource(DB)
    made, _ = import_(zfs_pool, kept, source, "db", import_id="0000000b")
    assert source.applied == ["db"]
    assert made.tree_digest == plain(dir_pool, LayeredSource(DB), name="db").tree_digest
    assert set(files(zfs_pool, made)) == {"bin/a", "lib/b", "srv/db", "etc/resolv.conf"}
    assert made.findings == ("saw base", "saw lib", "saw db")


def test_an_unchanged_image_under_another_name_is_a_clone_and_nothing_else(zfs_pool, kept):
    first, _ = import_(zfs_pool, kept, LayeredSource(WEB))
    before = sh("zfs", "list", "-H", "-r", "-o", "name", "-t", "all", f"{zfs_pool.root}")
    source = LayeredSource(WEB, fails_after=0)
    made, job = import_(zfs_pool, kept, source, "other", import_id="0000000b")
    assert source.applied == []
    after = sh("zfs", "list", "-H", "-r", "-o", "name", "-t", "all", f"{zfs_pool.root}")
    new = set(after.split()) - set(before.split())
    assert new == {made.dataset, f"{made.dataset}@base"}
    assert made.tree_digest == first.tree_digest
    assert (made.entries, made.verdict, made.deviations, made.findings) == (
        first.entries,
        first.verdict,
        first.deviations,
        first.findings,
    )
    assert made.receipt.left_out == first.receipt.left_out
    assert made.snapshot.guid != first.snapshot.guid
    assert b"other" in made.statement
    assert files(zfs_pool, made) == files(zfs_pool, first)
    assert not {"pull", "copy", "plant", "judge", "digest"} & job.milliseconds.keys()


@pytest.mark.parametrize("nameserver", ["192.0.2.1", ""])
def test_what_is_planted_is_part_of_what_is_known(zfs_pool, dir_pool, kept, nameserver):
    dir_pool.check()
    first, _ = import_(zfs_pool, kept, LayeredSource(WEB))
    source = LayeredSource(WEB)
    made, _ = import_(zfs_pool, kept, source, "other", import_id="0000000b", nameserver=nameserver)
    assert source.applied == []
    assert made.tree_digest != first.tree_digest
    other = plain(dir_pool, LayeredSource(WEB), name="other", nameserver=nameserver)
    assert made.statement == other.statement
    assert ("etc/resolv.conf" in files(zfs_pool, made)) == bool(nameserver)


def test_an_import_that_failed_is_gone_on_with_where_it_was(zfs_pool, kept):
    with pytest.raises(PullFailed):
        import_(zfs_pool, kept, LayeredSource(WEB, fails_after=2))
    assert zfs_pool.find_all() == []
    source = LayeredSource(WEB)
    made, _ = import_(zfs_pool, kept, source, import_id="0000000b")
    assert source.applied == ["web"]
    assert set(files(zfs_pool, made)) == {"bin/a", "lib/b", "srv/web", "etc/resolv.conf"}


def test_what_cannot_be_recorded_leaves_no_generation(zfs_pool, kept):
    def lost(_made):
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="database"):
        import_(zfs_pool, kept, LayeredSource(WEB), commit=lost)
    assert zfs_pool.find_all() == []
    source = LayeredSource(WEB)
    import_(zfs_pool, kept, source, import_id="0000000b")
    assert source.applied == []


# --- rules hold for what is known, too -----------------------------------------------------------


def test_a_known_tree_is_refused_as_an_unknown_one_is(zfs_pool, kept):
    foreign = {**WEB, "foreign": {"bin/true": FREEBSD_PROGRAM}}
    made, _ = import_(zfs_pool, kept, LayeredSource(foreign))
    assert made.verdict.result == "foreign"
    assert "Programs will fail at exec" in made.findings[-1]
    for rules, error in (
        ({"refuse_foreign": True}, PlatformIncompatible),
        ({"limit_entries": 3}, TreeRefused),
    ):
        with pytest.raises(error):
            import_(zfs_pool, kept, LayeredSource(foreign), "b", import_id="0000000b", **rules)
    assert [one.relative for one in zfs_pool.find_all()] == ["coppice/web-g1-0000000a"]


def test_a_tree_that_is_refused_is_not_known_afterwards(zfs_pool, kept):
    foreign = {"foreign": {"bin/true": FREEBSD_PROGRAM}}
    with pytest.raises(PlatformIncompatible):
        import_(zfs_pool, kept, LayeredSource(foreign), refuse_foreign=True)
    keys = [state.key for state in kept.store.states()]
    assert len(keys) == 1
    assert not keys[0].startswith("whole")
    assert zfs_pool.find_all() == []


# --- what is of no use ---------------------------------------------------------------------------


def spoil(texts, digest):
    path = texts.place / f"{digest.removeprefix('sha256:')}.zst"
    path.write_bytes(path.read_bytes()[:-3])


def test_what_is_damaged_is_as_if_it_were_not_there(zfs_pool, kept):
    first, _ = import_(zfs_pool, kept, LayeredSource(WEB))
    base, lib, web, whole = kept.store.states()
    spoil(kept.notes, whole.note)
    spoil(kept.manifests, web.tree_digest)
    kept.notes.forget(lib.note)
    source = LayeredSource(WEB)
    made, _ = import_(zfs_pool, kept, source, "other", import_id="0000000b")
    assert source.applied == ["lib", "web"]
    assert made.tree_digest == first.tree_digest
    # What was made anew is found from now on, beside the damaged ones of the same keys.
    source = LayeredSource(WEB)
    import_(zfs_pool, kept, source, "third", import_id="0000000c")
    assert source.applied == []
    assert base.key


def test_states_of_another_form_are_unknown(zfs_pool, kept, monkeypatch):
    import_(zfs_pool, kept, LayeredSource(WEB))
    monkeypatch.setattr(layered, "FORM", layered.FORM + 1)
    source = LayeredSource(WEB)
    import_(zfs_pool, kept, source, "other", import_id="0000000b")
    assert source.applied == list(WEB)


@pytest.mark.parametrize("what", ["note", "tree-digest"])
def test_what_is_not_about_this_state_is_not_believed(zfs_pool, kept, what):
    """Whoever may set a property of a snapshot does not choose what is recorded of it."""
    import_(zfs_pool, kept, LayeredSource(WEB))
    import_(zfs_pool, kept, LayeredSource({"x": {"x": "x"}}), "x", import_id="0000000b")
    states = kept.store.states()
    mine = next(one for one in states if one.key.startswith("whole") and "0a-" in one.name)
    other = next(one for one in states if one.key.startswith("whole") and "0b-" in one.name)
    value = other.note if what == "note" else other.tree_digest
    sh("zfs", "set", f"coppice:{what}={value}", mine.name)
    source = LayeredSource(WEB)
    import_(zfs_pool, kept, source, "other", import_id="0000000c")
    assert source.applied == []  # the layers are known still
    assert len([one for one in kept.store.states() if one.key == mine.key]) == 2


# --- at the same time ----------------------------------------------------------------------------


def test_images_that_come_at_once_share_what_they_have_in_common(zfs_pool, kept):
    both = threading.Barrier(2)
    sources = [LayeredSource(WEB), LayeredSource(DB), LayeredSource(WEB)]

    def one(number):
        if number < 2:
            both.wait()
        return import_(zfs_pool, kept, sources[number], f"t{number}", import_id=f"0000000{number}")

    with ThreadPoolExecutor(3) as threads:
        made = [job[0] for job in threads.map(one, range(3))]
    applied = sorted(name for source in sources for name in source.applied)
    assert applied == ["base", "db", "lib", "web"]
    assert made[0].tree_digest == made[2].tree_digest != made[1].tree_digest


def test_nobody_is_waited_for_in_vain(zfs_pool, kept):
    resolved = LayeredSource(WEB).resolve()
    impatient = layered.Kept(
        store=kept.store,
        manifests=kept.manifests,
        notes=kept.notes,
        engine="hand",
        patience=0.1,
        make_room=lambda _transferred: None,
    )
    with kept.store.alone(resolved.chain_ids[0].removeprefix("sha256:"), patience=0):
        source = LayeredSource(WEB)
        import_(zfs_pool, impatient, source)
    assert source.applied == list(WEB)


def test_a_state_that_is_removed_meanwhile_is_made_again(zfs_pool, kept):
    import_(zfs_pool, kept, LayeredSource(WEB))
    zfs_pool.destroy("coppice/web-g1-0000000a")
    real, gone = kept.store.states, []
    (image,) = kept.store.images()

    def states():
        found = real()
        if not gone:
            gone.append(True)
            kept.store.remove(image.name)
        return found

    kept.store.states = states
    source = LayeredSource(WEB)
    made, _ = import_(zfs_pool, kept, source, import_id="0000000b")
    assert source.applied == list(WEB)
    assert "srv/web" in files(zfs_pool, made)


def test_the_claims_are_free_after_a_failure(zfs_pool, kept):
    with pytest.raises(CoppiceError):
        import_(zfs_pool, kept, LayeredSource(WEB, fails_after=0))
    for chain in LayeredSource(WEB).resolve().chain_ids:
        with kept.store.alone(chain.removeprefix("sha256:"), patience=0):
            pass
