"""Files are read again: what differs is named, stops launches, and goes when it is mended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from deploy import images
from templates_app.errors import GateRefused, GenerationNotFound, PoolUnavailable
from templates_app.models import Finding, Generation
from templates_app.names import Platform
from templates_app.services import (
    archive,
    comparison,
    destroy,
    generations,
    imports,
    launches,
    noticed,
    readmodels,
    reload,
    verifying,
)
from templates_app.services.verifying import verify
from templates_app.trust import compare, tree
from tests import layouts, ordinary
from tests.services.conftest import WHO, forging, hand_make, import_it, types


@pytest.fixture
def any_database(swap_database, sqlite_url) -> Iterator[str]:
    """On SQLite alone: what the events do to the rows, tests/store has on both."""
    with swap_database(sqlite_url):
        yield sqlite_url


@pytest.fixture
def web(driver, shelf):
    shelf.files |= {"bin/su": "su", "etc/passwd": "root"}
    return import_it().event


def changed(event) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.path: (one.change, one.grave) for one in event.differences}


def mend(driver, event) -> None:
    with forging(driver, event.dataset) as files:
        (files / "bin/su").chmod(0o644)
        (files / "etc/motd").write_text("one")
        (files / "etc/passwd").write_text("root")
        (files / "etc/new").unlink()


def test_files_that_are_as_they_were(driver, web):
    seen = []
    event = verify(name="web", context=WHO, on_progress=lambda *done: seen.append(done)).event
    assert (event.result, event.detail, event.differences) == ("matches", "", ())
    assert event.found_digest == event.tree_digest == web.tree_digest
    assert (event.entries, event.size_bytes, event.snapshot_guid) == (5, 9, web.snapshot_guid)
    assert seen[-1] == (5, 9)
    assert types() == ["imported", "verified"]
    assert noticed.findings() == []
    assert readmodels.check() == (2, [])


def test_files_that_differ_are_named_and_stop_launches_until_they_match(driver, web, settings):
    with forging(driver, web.dataset) as files:
        (files / "bin/su").chmod(0o4755)
        (files / "etc/motd").write_text("two")
        (files / "etc/passwd").unlink()
        (files / "etc/new").write_text("new")
    event = verify(name="web", context=WHO).event
    assert event.result == "differs"
    assert next(iter(changed(event))) == "./bin/su"
    assert changed(event) == {
        "./bin/su": ("changed", ("set-id",)),
        "./etc/motd": ("changed", ()),
        "./etc/new": ("added", ()),
        "./etc/passwd": ("removed", ()),
    }
    assert (event.added, event.removed, event.changed, event.grave) == (1, 1, 2, 1)
    assert event.detail == (
        "1 added, 1 removed, 2 changed: ./bin/su, ./etc/motd, ./etc/new, ./etc/passwd"
    )
    (finding,) = noticed.findings()
    assert (finding.code, finding.subject, finding.generation) == ("tree_changed", web.dataset, 1)
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    decision = launches.gate_decision(name="web")
    assert "finding_open" in decision.failed_codes
    with pytest.raises(GateRefused):
        launches.create_sandbox(template="web", name="one", context=WHO)
    # A look that sees it again leaves it open; one that no longer does clears it.
    verify(name="web", context=WHO)
    assert [row.pk for row in noticed.findings()] == [finding.pk]
    mend(driver, web)
    assert verify(name="web", context=WHO).event.result == "matches"
    assert noticed.findings() == []
    assert "finding_open" not in launches.gate_decision(name="web").failed_codes
    assert readmodels.check()[1] == []


def test_extended_attributes_are_seen_whatever_was_read_before(driver, shelf):
    """zfs-fuse says of a file without any that the whole of a read-only file system keeps none."""

    def attribute() -> None:
        os.setxattr(shelf.into / "etc/passwd", "user.origin", b"image")

    shelf.files |= {"a-first": "plain", "etc/passwd": "root"}
    shelf.during = attribute
    web = import_it().event
    assert b"# xattr user.origin" in archive.manifest(Generation.objects.get())
    assert verify(name="web", context=WHO).event.result == "matches"
    with forging(driver, web.dataset) as files:
        os.removexattr(files / "etc/passwd", "user.origin")
    event = verify(name="web", context=WHO).event
    assert [one.fields[0].name for one in event.differences] == ["xattr user.origin"]


def test_what_no_template_may_hold_differs_too(driver, web):
    with forging(driver, web.dataset) as files:
        os.mknod(files / "etc/socket", 0o140600)
    event = verify(name="web", context=WHO).event
    assert (event.result, event.detail) == ("differs", "./etc/socket is a socket.")
    assert changed(event) == {"./etc/socket": ("added", ())}


def test_what_cannot_be_read_is_recorded_and_clears_nothing(driver, web):
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("two")
    verify(name="web", context=WHO)
    for one in (*driver.dependents(relative(driver, web)), web.dataset):
        if driver.kind == "zfs":
            driver.destroy(relative(driver, one))
    if driver.kind == "dir":
        shutil.rmtree(f"{web.dataset}@base")
    event = verify(name="web", context=WHO).event
    assert event.result == "unreadable"
    assert event.detail.startswith("template_missing: ")
    assert {row.code for row in noticed.findings()} == {"tree_changed", "not_verified"}
    assert readmodels.check()[1] == []


def test_a_reload_that_cannot_read_the_files_leaves_open_what_was_wrong_with_them(
    driver, web, monkeypatch
):
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("two")
    reload.reload(context=WHO, verify=True)
    assert "tree_changed" in {row.code for row in noticed.findings()}

    def broken(*_, **__):
        raise PoolUnavailable("./etc/motd cannot be read: Input/output error.")

    monkeypatch.setattr(tree, "scan", broken)
    reload.reload(context=WHO, verify=True)
    assert {"tree_changed", "not_verified"} <= {row.code for row in noticed.findings()}
    assert readmodels.check()[1] == []


def test_a_reload_leaves_open_what_it_did_not_look_into(driver, web, monkeypatch):
    """Its dataset was away when the others were read, or somebody else has read it since."""
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("two")
    verify(name="web", context=WHO)
    with monkeypatch.context() as away:
        away.setattr(comparison.Look, "readable", lambda _: iter(()))
        reload.reload(context=WHO, verify=True)
    assert "tree_changed" in {row.code for row in noticed.findings()}
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("one")
    reload.reload(context=WHO, verify=True)
    assert "tree_changed" not in {row.code for row in noticed.findings()}
    really = verifying.findings_of

    def changed_meanwhile(rows):
        found = really(rows)
        with forging(driver, web.dataset) as files:
            (files / "etc/motd").write_text("three")
        verify(name="web", context=WHO)
        return found

    monkeypatch.setattr(verifying, "findings_of", changed_meanwhile)
    reload.reload(context=WHO, verify=True)
    assert "tree_changed" in {row.code for row in noticed.findings()}
    assert readmodels.check()[1] == []


def relative(driver, what) -> str:
    full = what if isinstance(what, str) else what.dataset
    return full.removeprefix(driver.full_name("x").removesuffix("x"))


def test_a_lost_manifest_names_no_paths_and_is_made_again_where_all_matches(driver, web):
    archive.archive().manifests.forget(web.tree_digest)
    assert verify(name="web", context=WHO).event.result == "matches"
    assert archive.archive().manifests.get(web.tree_digest) is not None
    archive.archive().manifests.forget(web.tree_digest)
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("two")
    event = verify(name="web", context=WHO).event
    assert (event.result, event.differences) == ("differs", ())
    assert "Which paths differ cannot be said" in event.detail


def test_what_the_import_could_not_bring_over_is_passed_over(driver, web):
    """As of an import by a server that is not root: the manifest has the image's owners."""
    with forging(driver, web.dataset) as files:
        os.chown(files / "etc/motd", 1000, 1000)
    assert verify(name="web", context=WHO).event.grave == 1
    reason = f"{compare.SKIPPED['owners']} (1 entries)"
    row = Generation.objects.get()
    row.deviations = [{"path": ".", "reason": reason, "sha256": None}]
    event = verifying.look(row)
    assert (event.result, event.excepted) == ("matches", ("owners",))
    assert event.sentence().endswith("as they were recorded, all but owners")
    archive.archive().manifests.forget(web.tree_digest)
    assert verifying.look(row).result == "unreadable"


def test_the_first_twenty_are_told_and_all_are_counted(driver, web):
    with forging(driver, web.dataset) as files:
        for number in range(30):
            (files / f"new{number:02}-{'x' * 200}").write_text("x")
        os.mknod(files / "zz", 0o020600, os.makedev(1, 3))
    event = verify(name="web", context=WHO).event
    assert (event.added, len(event.differences)) == (31, 20)
    assert event.differences[0].path == "./zz"


def test_an_older_generation_and_a_hand_made_one(driver, web, shelf):
    shelf.files["etc/motd"] = "two"
    import_it(force=True)
    hand_make(driver, "db")
    reload.reload(context=WHO)
    with forging(driver, web.dataset) as files:
        (files / "etc/motd").write_text("three")
    assert verify(name="web", context=WHO).event.result == "matches"
    assert verify(name="web", number=1, context=WHO).event.result == "differs"
    assert verify(name="db", context=WHO).event.result == "matches"
    assert verifying.standing() == [("db", 0), ("web", 1), ("web", 2)]
    assert verifying.standing(name="web") == [("web", 1), ("web", 2)]
    # The current one may be launched, the other one may not be gone back to.
    assert "finding_open" not in launches.gate_decision(name="web").failed_codes
    rows = generations.generations(name="web")
    assert [row.generation.number for row in rows] == [2, 1]
    assert Finding.objects.get(code="tree_changed").generation == 1


def test_of_what_is_gone_nothing_is_said(driver, web, monkeypatch):
    really = verifying.look

    def gone_meanwhile(row, **more):
        event = really(row, **more)
        destroy.destroy(name="web", context=WHO)
        return event

    monkeypatch.setattr(verifying, "look", gone_meanwhile)
    with pytest.raises(GenerationNotFound, match="removed while it was read"):
        verify(name="web", context=WHO)
    assert types() == ["imported", "destroyed"]
    with pytest.raises(GenerationNotFound, match="was destroyed"):
        verify(name="web", number=1, context=WHO)


def test_without_a_pool_nothing_is_said_of_files(driver, web, settings):
    if driver.kind == "dir":
        settings.COPPICE_POOL = f"dir:{settings.COPPICE_STATE_DIR.parent}/nowhere"
    else:
        settings.COPPICE_POOL = "zfs:no-such-pool/jails"
    with pytest.raises(PoolUnavailable):
        verify(name="web", context=WHO)
    assert types() == ["imported"]


# --- real images -------------------------------------------------------------------------------


def an_image() -> images.Document:
    """What is easily brought over otherwise: owners, set-id, capabilities, links, devices."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_raw=ep
    entries = [
        images.directory("etc/"),
        images.file("etc/a-first", "plain"),
        images.file("etc/motd", "hello", uid=1000, gid=1000),
        images.file("etc/shadow", "root:*", mode=0o000),
        images.file("etc/su", "#!/bin/sh\n", mode=0o4755),
        images.hardlink("etc/same", "etc/su", mode=0o4755),
        images.file("etc/ping", "ping", mode=0o755, xattrs={"security.capability": capability}),
        images.file("etc/tagged", "tagged", xattrs={"user.origin": b"image"}),
        images.symlink("etc/resolv.conf", "../run/resolv.conf"),
        images.directory("var/"),
        images.fifo("var/fifo"),
        images.device("var/null", 1, 3),
        images.directory("dev/"),
        images.device("dev/null", 1, 3),
    ]
    return images.image([images.layer(entries)], platform="linux/amd64")


def test_of_an_image_with_everything_nothing_differs(driver, tmp_path, settings):
    place = layouts.write(tmp_path / "layout", {"1": an_image()})
    settings.COPPICE_IMPORT_ROOTS = (tmp_path,)
    settings.COPPICE_PLATFORM = Platform("linux", "amd64")
    settings.COPPICE_DNS_NAMESERVER = "10.78.0.1"
    made = imports.import_template(name="web", source=f"oci-layout:{place}:1", context=WHO)
    event = verify(name="web", context=WHO).event
    assert (event.result, event.detail) == ("matches", "")
    assert (event.excepted, event.found_digest) == ((), made.event.tree_digest)
    # Also by a manifest that is made again of the files.
    archive.archive().manifests.forget(made.event.tree_digest)
    text = archive.manifest(Generation.objects.get())
    for wanted in (b"# xattr security.capability", b"# hardlink ./etc/same", b"type=char"):
        assert wanted in text


def test_of_what_an_ordinary_user_imported_all_else_is_compared():
    with ordinary.place() as place:
        layouts.write(place / "layout", {"1": an_image()})
        out = ordinary.run("tests.looked_into", place, place / "layout")
    found = json.loads(out.splitlines()[-1])
    before, after = found["said"]
    assert before["result"] == "matches", before["detail"]
    assert before["foundDigest"] != before["treeDigest"]
    assert before["excepted"] == ["attributes", "devices", "modes", "owners"]
    assert after["result"] == "differs"
    (one,) = after["differences"]
    assert one["path"] == "./etc/motd"
    assert "sha256" in {field["name"] for field in one["fields"]}
