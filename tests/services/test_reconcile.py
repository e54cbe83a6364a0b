"""Each finding provoked for real, behind Coppice's back; reported; then repaired or explained.

By zfs(8) on a real pool, by rename(2) and the like on a directory pool.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from templates_app import store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import CoppiceError, GateRefused, PoolBusy, SandboxNotFound
from templates_app.events import Reloaded
from templates_app.findings import KINDS, next_step
from templates_app.models import Finding, Generation, Template
from templates_app.services import (
    common,
    destroy,
    generations,
    launches,
    noticed,
    readmodels,
    recovery,
    reload,
)
from tests.pools import sh, stubbornly
from tests.services.conftest import WHO, import_it, standing, types


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What lies on a pool has nothing to do with the kind of database."""
    return sqlite_url


@pytest.fixture
def two(driver: DatasetDriver, shelf) -> DatasetDriver:
    """Generations 1 and 2 of web."""
    import_it()
    shelf.files["etc/motd"] = "two"
    import_it(force=True)
    return driver


# --- what somebody does by hand ------------------------------------------------------------------

Undo = Callable[[], None]


def generation(number: int = 1) -> str:
    """The full name of a generation's dataset."""
    return Generation.objects.get(pk=f"web@{number}").dataset


def zfs(*words: str | Path) -> None:
    stubbornly("zfs", *words)


def mounted(dataset: str) -> Path:
    sh("zfs", "mount", dataset)
    return Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset).strip())


def root_of(driver: DatasetDriver) -> Path:
    """Where files of the pool's root are."""
    root = driver.full_name("x").removesuffix("/x")
    if driver.kind == "dir":
        return Path(root)
    return Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", root).strip())


def hide_the_dataset(driver: DatasetDriver) -> Undo:
    name, hidden = generation(), driver.full_name("hidden")
    if driver.kind == "zfs":
        zfs("rename", name, hidden)
        return lambda: zfs("rename", hidden, name)
    Path(name).unlink()
    Path(f"{name}@base").rename(hidden)

    def back() -> None:
        Path(hidden).rename(f"{name}@base")
        Path(name).symlink_to(f"{Path(name).name}@base")

    return back


def lose_the_snapshot(driver: DatasetDriver) -> None:
    name = generation()
    if driver.kind == "zfs":
        zfs("destroy", f"{name}@base")
    else:
        Path(name).unlink()
        Path(f"{name}@base").rename(name)


def make_the_snapshot_anew(driver: DatasetDriver) -> None:
    name = generation()
    if driver.kind == "zfs":
        zfs("destroy", f"{name}@base")
        zfs("snapshot", f"{name}@base")
    else:
        os.utime(f"{name}@base/etc/motd")


def change_a_file(driver: DatasetDriver) -> None:
    name = generation()
    if driver.kind == "dir":
        Path(f"{name}@base/etc/motd").write_text("changed")
        return
    (mounted(name) / "etc/motd").write_text("changed")
    zfs("unmount", name)
    make_the_snapshot_anew(driver)


def leave_a_socket(driver: DatasetDriver) -> None:
    """What no manifest has a word for: so there was none when the template was made."""
    name = generation()
    place = mounted(name) if driver.kind == "zfs" else Path(f"{name}@base")
    here = Path.cwd()
    os.chdir(place)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("log")
    finally:
        os.chdir(here)
    if driver.kind == "zfs":
        zfs("unmount", name)
        make_the_snapshot_anew(driver)


def take_the_name_of_a_sandbox(driver: DatasetDriver) -> Undo:
    name = driver.full_name("sandbox-mine")
    if driver.kind == "zfs":
        zfs("create", name)
        return lambda: zfs("destroy", name)
    Path(name).mkdir()
    return Path(name).rmdir


def make_a_plain_directory(driver: DatasetDriver) -> Undo:
    plain = root_of(driver) / "plain-template"
    plain.mkdir()
    (plain / "motd").write_text("in no dataset of its own")

    def remove() -> None:
        (plain / "motd").unlink()
        plain.rmdir()

    return remove


def make_a_stranger(driver: DatasetDriver) -> Undo:
    name = driver.full_name("coppice/stranger")
    if driver.kind == "zfs":
        zfs("create", name)
        return lambda: zfs("destroy", name)
    Path(name).mkdir()
    return Path(name).rmdir


def clone_like_a_launch(driver: DatasetDriver) -> Undo:
    driver.clone(common.relative(driver, generation(2)), "sandbox-unknown")
    return lambda: driver.destroy("sandbox-unknown")


def lose_a_sandbox(driver: DatasetDriver) -> Undo:
    launches.create_sandbox(template="web", name="lost", context=WHO)
    driver.destroy("sandbox-lost")
    return lambda: launches.destroy_sandbox(sandbox_id="lost", context=WHO) and None


def lose_the_alias(driver: DatasetDriver) -> None:
    alias = driver.full_name("web-template")
    if driver.kind == "zfs":
        zfs("destroy", "-r", alias)
    else:
        Path(alias).unlink()
        Path(f"{alias}@base").unlink()


def lead_the_alias_back(driver: DatasetDriver) -> None:
    driver.point("web-template", common.relative(driver, generation(1)))


def clone_the_alias(driver: DatasetDriver) -> Undo:
    name = driver.full_name("by-hand")
    zfs("clone", f"{driver.full_name('web-template')}@base", name)
    return lambda: zfs("destroy", name)


def move_the_mountpoint(driver: DatasetDriver) -> None:
    zfs("set", f"mountpoint={root_of(driver)}/elsewhere", generation())


def move_the_aliass_mountpoint(driver: DatasetDriver) -> None:
    zfs("set", "mountpoint=none", driver.full_name("web-template"))


@dataclass(frozen=True)
class Case:
    code: str
    provoke: Callable[[DatasetDriver], Undo | None]
    repaired: bool = False  # by --fix
    also: tuple[str, ...] = ()  # what else such a thing is
    kinds: tuple[str, ...] = ("zfs", "dir")
    verify: bool = False


CASES = [
    Case("dataset_missing", hide_the_dataset),
    Case("snapshot_missing", lose_the_snapshot),
    Case("guid_changed", make_the_snapshot_anew),
    Case("tree_changed", change_a_file, also=("guid_changed",), verify=True),
    Case("tree_changed", leave_a_socket, also=("guid_changed",), verify=True),
    Case("unknown_dataset", take_the_name_of_a_sandbox),
    Case("directory_not_dataset", make_a_plain_directory),
    Case("orphan_dataset", make_a_stranger),
    Case("orphan_sandbox", clone_like_a_launch),
    Case("sandbox_missing", lose_a_sandbox),
    Case("alias_stale", lose_the_alias, repaired=True),
    Case("alias_stale", lead_the_alias_back, repaired=True),
    # A clone of an alias is a copy on a directory pool, and a mountpoint is there no property.
    Case("alias_has_clones", clone_the_alias, kinds=("zfs",)),
    Case("mountpoint_moved", move_the_mountpoint, repaired=True, kinds=("zfs",)),
    Case("mountpoint_moved", move_the_aliass_mountpoint, repaired=True, kinds=("zfs",)),
]


def codes(event: Reloaded) -> list[str]:
    return [one.code for one in event.findings]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.provoke.__name__}")
def test_it_is_reported_and_then_repaired_or_explained(two: DatasetDriver, case: Case):
    if two.kind not in case.kinds:
        # That it cannot be made there is what pools.md says; nothing is left to look at.
        assert "zfs" in case.kinds and two.kind == "dir"
        return
    undo = case.provoke(two)
    pool, log = standing(two), store.size()

    # First a dry run: it says all, and changes nothing.
    dry = reload.preview(verify=case.verify)
    assert sorted(codes(dry)) == sorted([case.code, *case.also])
    would = reload.preview(fix=True, verify=case.verify)
    assert [one.code for one in would.fixed] == ([case.code] if case.repaired else [])
    assert (standing(two), store.size()) == (pool, log)

    # Then the event, which is where the rows come from.
    event = reload.reload(context=WHO, verify=case.verify).event
    assert event.findings == dry.findings
    assert sorted(row.code for row in noticed.findings()) == sorted([case.code, *case.also])
    assert standing(two) == pool

    # What touches a generation stops its launches.
    found = next(one for one in event.findings if one.code == case.code)
    if found.generation is not None and KINDS[case.code].blocks:
        state = common.state_of("web").generations[found.generation]
        decision = launches.decide("web", state, launches.live(two, state))
        assert "finding_open" in decision.failed_codes and not decision.signed

    fixed = reload.reload(context=WHO, fix=True, verify=case.verify).event
    if case.repaired:
        assert [one.code for one in fixed.fixed] == [case.code]
        assert noticed.findings() == []
    else:
        assert fixed.fixed == () and fixed.findings == event.findings
        step = next_step(found.code, template=found.template, subject=found.subject)
        assert step and "{" not in step
    if undo is not None:
        undo()
        assert reload.reload(context=WHO, verify=True).event.findings == ()
        assert noticed.findings() == []
        assert Finding.objects.count() == len(event.findings)  # the history stays
    with two.reading("web-template") as path:
        assert (path / "etc/motd").read_text() == "two"
    assert readmodels.check()[1] == []


def test_every_finding_is_provoked_here_or_where_it_belongs():
    """With the hand-made, and with verifications: what cannot be read."""
    provoked = {case.code for case in CASES} | {"not_adopted", "not_verified"}
    assert provoked == set(KINDS)


def test_a_changed_file_is_named(two: DatasetDriver):
    change_a_file(two)
    event = reload.reload(context=WHO, verify=True).event
    (found,) = (one for one in event.findings if one.code == "tree_changed")
    assert found.detail == "0 added, 0 removed, 1 changed: ./etc/motd"
    assert (found.template, found.generation) == ("web", 1)


def test_a_look_that_reads_no_file_leaves_what_only_such_a_look_can_find(two: DatasetDriver):
    change_a_file(two)
    reload.reload(context=WHO, verify=True)
    reload.reload(context=WHO)
    assert {row.code for row in noticed.findings()} == {"tree_changed", "guid_changed"}


def test_what_stops_launches_stops_a_rollback_too(two: DatasetDriver, settings):
    make_the_snapshot_anew(two)
    reload.reload(context=WHO)
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    with pytest.raises(GateRefused) as refused:
        generations.rollback(name="web", context=WHO)
    checks = {check["name"]: check for check in refused.value.extra["decision"]["checks"]}
    assert checks["no_blocking_finding"]["code"] == "finding_open"
    # The current generation is not touched by it.
    state = common.state_of("web").current
    decision = launches.decide("web", state, launches.live(two, state))
    assert "finding_open" not in decision.failed_codes


def test_what_an_import_left_that_failed_is_removed_and_nothing_else(two: DatasetDriver, shelf):
    def fail() -> None:
        raise KeyboardInterrupt

    shelf.during = fail
    with pytest.raises(KeyboardInterrupt):
        import_it(force=True)
    failed = list(store.read())[-1].event
    left, other = (f"coppice/web-g3-{one}" for one in (failed.import_id, "00c0ffee"))
    for name in (left, other):  # as if undoing had failed
        two.create(name)
        two.seal(name)
    would = reload.preview(fix=True)
    assert [(one.subject, one.done) for one in would.fixed] == [
        (two.full_name(left), "Would remove it.")
    ]
    event = reload.reload(context=WHO, fix=True).event
    assert [(one.subject, one.done) for one in event.fixed] == [(two.full_name(left), "Removed.")]
    assert [one.subject for one in event.findings] == [two.full_name(other)]
    assert left not in standing(two) and other in standing(two)


def test_what_the_log_has_as_gone_is_removed_unless_something_is_cloned_from_it(
    two: DatasetDriver, monkeypatch
):
    with monkeypatch.context() as full:

        def refuse(*_: object) -> None:
            raise PoolBusy("Not now.")

        full.setattr(type(two), "destroy", refuse)
        full.setattr(type(two), "unpoint", refuse)
        destroy.destroy(name="web", context=WHO)
    first = common.relative(two, generation(1))
    two.clone(first, "by-hand")
    event = reload.reload(context=WHO, fix=True).event
    assert [one.subject for one in event.findings] == [generation(1)]
    assert first in standing(two)
    assert reload.preview(fix=True).fixed == ()
    two.destroy("by-hand")
    assert [one.subject for one in reload.reload(context=WHO, fix=True).event.fixed] == [
        generation(1)
    ]
    assert standing(two) == []
    assert recovery.recover(context=WHO) == []


def test_a_repair_that_fails_is_a_finding_with_the_reason(two: DatasetDriver, monkeypatch):
    lose_the_alias(two)

    def refuse(*_: object) -> None:
        raise PoolBusy("Somebody sits on it.")

    monkeypatch.setattr(type(two), "point", refuse)
    event = reload.reload(context=WHO, fix=True).event
    assert event.fixed == ()
    (found,) = event.findings
    assert found.code == "alias_stale"
    assert found.detail.endswith("Not repaired: Somebody sits on it.")


def test_a_stranger_in_the_place_of_the_alias_is_left_alone(two: DatasetDriver):
    lose_the_alias(two)
    name = two.full_name("web-template")
    if two.kind == "zfs":
        zfs("create", name)
        zfs("snapshot", f"{name}@base")
    else:
        Path(f"{name}@base").mkdir()
    event = reload.reload(context=WHO, fix=True).event
    assert [(one.code, one.template) for one in event.findings] == [("unknown_dataset", "web")]
    assert two.stranger("web-template")


def test_what_is_in_an_imports_hands_is_not_judged_and_not_cleared(two: DatasetDriver, shelf):
    lose_the_alias(two)
    reload.reload(context=WHO)
    seen = []

    def look() -> None:
        seen.append(reload.reload(context=WHO, fix=True).event)
        assert "web-template" not in standing(two)

    shelf.during = look
    import_it(force=True)
    assert codes(seen[0]) == ["alias_stale"] and seen[0].fixed == ()
    assert reload.reload(context=WHO).event.findings == ()


def test_a_destroyed_template_and_a_retired_generation_leave_no_finding(two: DatasetDriver):
    make_the_snapshot_anew(two)
    lose_the_alias(two)
    reload.reload(context=WHO)
    assert len(noticed.findings()) == 2
    destroy.destroy(name="web", context=WHO)
    assert noticed.findings() == []
    assert readmodels.check()[1] == []
    with pytest.raises(SandboxNotFound):
        launches.destroy_sandbox(sandbox_id="x", context=WHO)


def test_a_dry_run_writes_nothing_where_a_hand_made_template_waits(driver: DatasetDriver):
    from tests.services.conftest import hand_make

    hand_make(driver, "house")
    would = reload.preview(fix=True)
    assert [one.template for one in would.added] == ["house"]
    assert types() == [] and not Template.objects.exists()


def test_a_pool_that_does_not_answer_is_no_finding(two: DatasetDriver, monkeypatch):
    def gone(*_: object) -> None:
        raise CoppiceError("The pool is gone.")

    monkeypatch.setattr(type(two), "find_all", gone)
    log = store.size()
    with pytest.raises(CoppiceError):
        reload.reload(context=WHO, fix=True)
    assert store.size() == log
