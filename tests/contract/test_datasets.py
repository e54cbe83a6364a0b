"""What the port to pools promises, on each kind of pool: a real ZFS, and plain directories."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from templates_app.datasets import from_pool
from templates_app.datasets.base import DatasetDriver, Snapshot, generation_name
from templates_app.datasets.zfs_command import mounting
from templates_app.errors import (
    AdoptedInTheWay,
    Conflict,
    CoppiceError,
    OutOfSpace,
    PoolUnavailable,
    ProgramMissing,
    SandboxExists,
    StorageReadOnly,
    TemplateInUse,
    TemplateMissing,
    TreeRefused,
)
from tests.pools import sh, stubbornly
from tests.trees import describe, fill

ONE = generation_name("web", 1, "0000000a")
TWO = generation_name("web", 2, "0000000b")
ALIAS = "web-template"


def make(pool: DatasetDriver, relative: str = ONE, text: str = "one") -> Snapshot:
    """A sealed generation with one small file."""
    dataset = pool.create(relative)
    (dataset.path / "version").write_text(text)
    return pool.seal(relative)


def mountpoint(pool: DatasetDriver, relative: str = "") -> Path:
    """Where the operator finds it, asked of the pool and not of the driver."""
    root = pool.pool.partition(":")[2]
    if pool.kind == "dir":
        return Path(root, relative)
    name = f"{root}/{relative}".rstrip("/")
    return Path(sh("zfs", "get", "-H", "-o", "value", "mountpoint", name).strip())


def hand_make(pool: DatasetDriver, name: str, *, base: bool = True) -> None:
    """A template of an operator, as such are made without us."""
    if pool.kind == "zfs":
        sh("zfs", "create", pool.full_name(name))
        (mountpoint(pool, name) / "version").write_text("by hand")
        if base:
            sh("zfs", "snapshot", f"{pool.full_name(name)}@base")
    else:
        place = mountpoint(pool) / (f"{name}@base" if base else name)
        place.mkdir()
        (place / "version").write_text("by hand")


def remake(pool: DatasetDriver, relative: str) -> None:
    """Somebody destroys and makes ``@base`` anew, with the same files."""
    full = pool.full_name(relative)
    if pool.kind == "zfs":
        stubbornly("zfs", "destroy", f"{full}@base")
        sh("zfs", "snapshot", f"{full}@base")
    else:
        sh("cp", "-a", f"{full}@base", f"{full}.copy")
        sh("rm", "-r", f"{full}@base")
        sh("mv", f"{full}.copy", f"{full}@base")


def names(pool: DatasetDriver) -> list[str]:
    return [found.relative for found in pool.find_all()]


def when_there_is_space(work: Callable[[], Any]) -> Any:
    """ZFS gives freed blocks back a few transaction groups later, of which each may take 30 s."""
    until = time.monotonic() + 120
    while True:
        try:
            return work()
        except OutOfSpace:
            assert time.monotonic() < until
            time.sleep(0.2)


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Results or errors of ``work(0…)``, all begun at the same moment."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except CoppiceError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


class TestAPool:
    def test_it_takes_files_from_an_empty_place_to_a_sandbox(self, pool):
        pool.check()
        dataset = pool.create(ONE)
        assert dataset.name == pool.full_name(ONE)
        assert list(dataset.path.iterdir()) == []
        (dataset.path / "version").write_text("one")
        sealed = pool.seal(ONE)
        assert sealed.name == f"{pool.full_name(ONE)}@base"
        assert 0 < int(sealed.guid) < 2**64
        assert sealed.size_bytes >= 3
        assert pool.snapshot(ONE) == sealed
        sandbox = pool.clone(ONE, "sandbox-1")
        assert sandbox.name == pool.full_name("sandbox-1")
        assert sandbox.origin == sealed
        assert (sandbox.path / "version").read_text() == "one"

    def test_names_are_the_pools_own(self, pool):
        root = pool.pool.removeprefix(f"{pool.kind}:")
        assert pool.full_name(ALIAS) == f"{root}/{ALIAS}"
        make(pool)
        pool.point(ALIAS, ONE)
        assert pool.snapshot(ALIAS).name == f"{root}/{ALIAS}@base"

    @pytest.mark.parametrize(
        "odd", ["../x", "a/../../x", "/etc", "x@base", "-r", "", "a//b", "a\n"]
    )
    def test_a_name_that_leads_elsewhere_is_never_used(self, pool, odd):
        for method in (pool.create, pool.seal, pool.snapshot, pool.destroy, pool.full_name):
            with pytest.raises(ValueError, match="not a name"):
                method(odd)

    def test_only_the_owner_can_enter_where_generations_are_filled(self, pool):
        place = pool.create(ONE).path.parent
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        place.chmod(0o755)
        pool.create(TWO)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700

    def test_create_refuses_a_name_that_is_taken(self, pool):
        make(pool)
        with pytest.raises(Conflict):
            pool.create(ONE)
        assert (pool.clone(ONE, "sandbox-1").path / "version").read_text() == "one"

    # --- what a clone is -----------------------------------------------------------------------

    def test_a_clone_has_everything_that_was_sealed(self, pool):
        dataset = pool.create(ONE)
        fill(dataset.path)
        before = describe(dataset.path)
        assert before["bin/su"]["mode"] == "-rwsr-sr-x"
        assert before["bin/su"]["links"] == ("bin/su", "bin/sudo", "usr/include/dev/su")
        assert before["etc/version"]["owner"] == (1234, 5678)
        assert "user.note" in before["etc/version"]["xattrs"]
        assert "system.posix_acl_access" in before["etc/version"]["xattrs"]
        assert "security.capability" in before["usr/include/dev/ad.h"]["xattrs"]
        pool.seal(ONE)
        clone = pool.clone(ONE, "sandbox-1").path
        assert describe(clone) == before
        assert (clone / "var/hole").stat().st_blocks * 512 < 1024 * 1024
        with pool.reading(ONE) as view:
            assert describe(view) == before

    def test_a_clone_under_a_drawn_name_says_too_what_it_was_made_of(self, pool):
        """A driver may look at it early; ZFS does from the second one on."""
        sealed = make(pool)
        for number in range(4):
            assert pool.clone(ONE, f"sandbox-{number}", drawn=True).origin == sealed
        for number in range(4):
            pool.destroy(f"sandbox-{number}")
        remake(pool, ONE)
        anew = pool.clone(ONE, "sandbox-5", drawn=True)
        assert anew.origin == pool.snapshot(ONE) != sealed
        assert anew.path == mountpoint(pool, "sandbox-5")
        assert (anew.path / "version").read_text() == "one"

    def test_a_clone_is_found_again_as_it_is_now(self, pool):
        make(pool)
        make(pool, TWO)
        assert pool.cloned(ONE, "sandbox-1") is None
        made = pool.clone(ONE, "sandbox-1")
        assert pool.cloned(ONE, "sandbox-1") == made
        assert pool.cloned(TWO, "sandbox-1") is None
        pool.clone(TWO, "sandbox-2")
        assert pool.cloned(ONE, "sandbox-2") is None
        pool.destroy("sandbox-1")
        assert pool.cloned(ONE, "sandbox-1") is None

    def test_writing_into_a_clone_changes_nothing_else(self, pool):
        sealed = make(pool)
        first, second = (pool.clone(ONE, f"sandbox-{n}").path for n in (1, 2))
        (first / "version").write_text("changed")
        (first / "more").write_text("more")
        assert (second / "version").read_text() == "one"
        assert sorted(path.name for path in second.iterdir()) == ["version"]
        assert pool.snapshot(ONE) == sealed
        with pool.reading(ONE) as view:
            assert (view / "version").read_text() == "one"

    def test_a_clone_never_takes_a_name_that_is_taken(self, pool):
        make(pool)
        (pool.clone(ONE, "sandbox-1").path / "mine").write_text("mine")
        with pytest.raises(SandboxExists):
            pool.clone(ONE, "sandbox-1")
        assert (mountpoint(pool, "sandbox-1") / "mine").read_text() == "mine"

    def test_a_clone_never_covers_somebodys_directory(self, pool):
        make(pool)
        place = mountpoint(pool) / "sandbox-1"
        place.mkdir()
        (place / "mine").write_text("mine")
        with pytest.raises(SandboxExists):
            pool.clone(ONE, "sandbox-1")
        assert (place / "mine").read_text() == "mine"
        assert pool.dependents(ONE) == []

    # --- sealing -------------------------------------------------------------------------------

    def test_sealing_twice_is_sealing_once(self, pool):
        assert make(pool) == pool.seal(ONE)

    def test_a_seal_that_was_cut_short_is_finished(self, pool):
        dataset = pool.create(ONE)
        (dataset.path / "version").write_text("one")
        if pool.kind == "zfs":  # killed after the snapshot, before the rest
            sh("zfs", "set", "canmount=on", dataset.name)
            sh("zfs", "snapshot", f"{dataset.name}@base")
            guid = sh("zfs", "get", "-Hp", "-o", "value", "guid", f"{dataset.name}@base").strip()
            assert pool.seal(ONE).guid == guid
            got = sh("zfs", "get", "-H", "-o", "value", "mounted,canmount", dataset.name)
            assert got.split() == ["no", "noauto"]
        else:
            dataset.path.rename(f"{dataset.path}@base")
            guid = pool.seal(ONE).guid
            assert dataset.path.readlink() == Path(f"{dataset.path.name}@base")
        assert pool.snapshot(ONE).guid == guid

    def test_a_snapshot_that_was_made_anew_has_another_guid(self, pool):
        old = make(pool)
        remake(pool, ONE)
        new = pool.snapshot(ONE)
        assert new.name == old.name
        assert new.guid != old.guid

    # --- what is not there ---------------------------------------------------------------------

    def test_what_is_absent_is_said_to_be_absent(self, pool):
        make(pool, TWO)
        assert pool.snapshot(ONE) is None
        assert pool.dependents(ONE) == []
        pool.destroy(ONE)
        pool.create(ONE)
        assert pool.snapshot(ONE) is None
        pool.destroy(ONE)
        for call in (
            lambda: pool.seal(ONE),
            lambda: pool.clone(ONE, "sandbox-1"),
            lambda: pool.point(ALIAS, ONE),
            lambda: pool.move(ONE, "coppice/elsewhere"),
            lambda: pool.reading(ONE).__enter__(),
        ):
            with pytest.raises(TemplateMissing):
                call()
        assert names(pool) == [TWO]

    def test_a_pool_that_is_gone_is_not_an_empty_pool(self, pool, pool_state):
        gone = from_pool(f"{pool.pool}-gone", step_seconds=10, state_dir=pool_state)
        for call in (
            gone.check,
            gone.space,
            gone.find_all,
            lambda: gone.create(ONE),
            lambda: gone.seal(ONE),
            lambda: gone.snapshot(ONE),
            lambda: gone.point(ALIAS, ONE),
            lambda: gone.clone(ONE, "sandbox-1"),
            lambda: gone.move(ONE, TWO),
            lambda: gone.destroy(ONE),
            lambda: gone.reading(ONE).__enter__(),
        ):
            with pytest.raises(PoolUnavailable):
                call()

    # --- destroying ----------------------------------------------------------------------------

    def test_destroying_is_refused_while_clones_live(self, pool):
        sealed = make(pool)
        pool.point(ALIAS, ONE)
        pool.clone(ONE, "sandbox-b")
        pool.clone(ONE, "sandbox-a")
        clones = [pool.full_name(name) for name in ("sandbox-a", "sandbox-b", ALIAS)]
        assert pool.dependents(ONE) == clones
        with pytest.raises(TemplateInUse) as refusal:
            pool.destroy(ONE)
        assert refusal.value.extra["clones"] == clones
        assert pool.snapshot(ONE) == sealed
        for name in ("sandbox-a", "sandbox-b", ALIAS):
            pool.destroy(name)
        assert pool.dependents(ONE) == []
        pool.destroy(ONE)
        pool.destroy(ONE)
        assert pool.snapshot(ONE) is None
        assert names(pool) == []

    def test_a_half_made_generation_can_be_destroyed(self, pool):
        dataset = pool.create(ONE)
        fill(dataset.path)
        pool.destroy(ONE)
        assert names(pool) == []
        assert not dataset.path.exists()

    def test_a_sandbox_is_destroyed_with_all_that_was_made_in_it(self, pool):
        dataset = pool.create(ONE)
        fill(dataset.path)
        pool.seal(ONE)
        clone = pool.clone(ONE, "sandbox-1").path
        other = mountpoint(pool) / "other"
        other.mkdir()
        (other / "mine").write_text("mine")
        (clone / "etc/link").symlink_to(other)
        pool.destroy("sandbox-1")
        assert not clone.exists()
        assert (other / "mine").read_text() == "mine"
        pool.clone(ONE, "sandbox-1")

    def test_what_is_no_dataset_is_never_destroyed(self, pool):
        place = mountpoint(pool) / "sandbox-1"
        place.mkdir()
        (place / "mine").write_text("mine")
        pool.destroy("sandbox-1")
        assert (place / "mine").read_text() == "mine"

    # --- the alias -----------------------------------------------------------------------------

    def test_pointing_twice_changes_nothing(self, pool):
        make(pool)
        pool.point(ALIAS, ONE)
        first = pool.snapshot(ALIAS)
        before = pool.find_all()
        pool.point(ALIAS, ONE)
        assert pool.snapshot(ALIAS) == first
        assert pool.find_all() == before
        assert pool.snapshot(ALIAS) == first

    def test_pointing_on_leaves_clones_of_the_old_generation_alone(self, pool):
        make(pool)
        make(pool, TWO, "two")
        pool.point(ALIAS, ONE)
        old = pool.clone(ONE, "sandbox-1").path
        pool.point(ALIAS, TWO)
        assert (old / "version").read_text() == "one"
        with pool.reading(ALIAS) as view:
            assert (view / "version").read_text() == "two"
        assert pool.dependents(ONE) == [pool.full_name("sandbox-1")]
        assert pool.dependents(TWO) == [pool.full_name(ALIAS)]

    def test_a_gateway_can_clone_the_alias_by_convention(self, pool):
        make(pool)
        pool.point(ALIAS, ONE)
        assert (pool.clone(ALIAS, "sandbox-1").path / "version").read_text() == "one"

    @pytest.mark.parametrize("died", ["after the old one went", "in the middle of the new one"])
    def test_a_move_of_the_alias_that_was_cut_short_is_finished(self, pool, died):
        make(pool)
        make(pool, TWO, "two")
        pool.point(ALIAS, ONE)
        full = pool.full_name(ALIAS)
        if pool.kind == "zfs":
            stubbornly("zfs", "destroy", "-r", full)
            if died == "in the middle of the new one":
                options = ("-o", "canmount=off", "-o", f"coppice:alias={TWO}")
                sh("zfs", "clone", *options, f"{pool.full_name(TWO)}@base", full)
        else:
            Path(f"{full}@base").unlink()
            if died == "in the middle of the new one":
                Path(f"{full}@base").symlink_to(f"{TWO}@base")
        pool.point(ALIAS, TWO)
        pointed = pool.snapshot(ALIAS)
        assert pool.snapshot(ALIAS) == pointed
        assert pool.dependents(TWO) == [full]
        assert pool.dependents(ONE) == []
        with pool.reading(ALIAS) as view:
            assert (view / "version").read_text() == "two"

    @pytest.mark.parametrize("base", [True, False])
    def test_a_hand_made_template_is_never_destroyed_by_pointing(self, pool, base):
        make(pool)
        hand_make(pool, ALIAS, base=base)
        before = pool.find_all()
        with pytest.raises(AdoptedInTheWay):
            pool.point(ALIAS, ONE)
        assert pool.find_all() == before
        place = mountpoint(pool) / (f"{ALIAS}@base" if base and pool.kind == "dir" else ALIAS)
        assert (place / "version").read_text() == "by hand"

    # --- moving --------------------------------------------------------------------------------

    def test_a_hand_made_template_moves_out_of_the_way_and_back(self, pool):
        make(pool)
        hand_make(pool, ALIAS)
        aside = generation_name("web", 0, "0000000c")
        before, everything = pool.snapshot(ALIAS), pool.find_all()
        pool.move(ALIAS, aside)
        moved = pool.snapshot(aside)
        assert (moved.guid, moved.size_bytes) == (before.guid, before.size_bytes)
        assert pool.snapshot(ALIAS) is None
        pool.point(ALIAS, ONE)
        assert (pool.clone(aside, "sandbox-1").path / "version").read_text() == "by hand"
        pool.destroy("sandbox-1")
        pool.destroy(ALIAS)
        pool.move(aside, ALIAS)
        assert pool.snapshot(ALIAS) == before
        assert [f.relative for f in pool.find_all()] == [f.relative for f in everything]

    def test_moving_keeps_clones_and_never_takes_a_taken_name(self, pool):
        make(pool)
        make(pool, TWO)
        before = pool.find_all()
        with pytest.raises(Conflict):
            pool.move(ONE, TWO)
        assert pool.find_all() == before
        pool.point(ALIAS, ONE)
        pool.move(ONE, "coppice/elsewhere")
        assert pool.dependents("coppice/elsewhere") == [pool.full_name(ALIAS)]
        assert pool.dependents(ONE) == []
        with pool.reading(ALIAS) as view:
            assert (view / "version").read_text() == "one"

    # --- reading -------------------------------------------------------------------------------

    def test_a_view_is_gone_afterwards_however_it_ended(self, pool):
        make(pool)
        before = pool.find_all()
        with pool.reading(ONE) as view:
            assert (view / "version").read_text() == "one"
            assert pool.find_all() == before
            with pytest.raises(TemplateInUse):
                pool.destroy(ONE)
            assert pool.sweep() == []
        with pytest.raises(KeyboardInterrupt), pool.reading(ONE) as view:
            raise KeyboardInterrupt
        assert pool.dependents(ONE) == []
        assert pool.find_all() == before
        assert pool.sweep() == []
        pool.destroy(ONE)

    # --- looking around ------------------------------------------------------------------------

    def test_it_finds_everything_and_says_what_it_is(self, pool):
        sealed = make(pool)
        pool.create(TWO)
        pool.point(ALIAS, ONE)
        alias = pool.snapshot(ALIAS)
        pool.clone(ONE, "sandbox-1")
        hand_make(pool, "hand-template")
        plain = mountpoint(pool) / "classic-template"
        plain.mkdir()
        (plain / "file").write_text("the classic mistake")
        found = {one.relative: one for one in pool.find_all()}
        assert list(found) == sorted(
            [ONE, TWO, ALIAS, "sandbox-1", "hand-template", "classic-template"]
        )
        origin = f"{pool.full_name(ONE)}@base"
        assert (found[ONE].base, found[ONE].origin, found[ONE].mounted) == (sealed, None, False)
        assert (found[TWO].base, found[TWO].mounted) == (None, True)
        assert (found[ALIAS].base, found[ALIAS].origin) == (alias, origin)
        assert not found[ALIAS].mounted
        assert (found["sandbox-1"].origin, found["sandbox-1"].mounted) == (origin, True)
        assert found["hand-template"].base == pool.snapshot("hand-template")
        assert found["hand-template"].origin is None
        assert {name for name, one in found.items() if not one.is_dataset} == {"classic-template"}
        assert all(one.name == pool.full_name(name) for name, one in found.items())

    def test_space_is_counted_in_bytes(self, pool):
        before = pool.space()
        assert before.available_bytes > 10**8
        dataset = pool.create(ONE)
        (dataset.path / "data").write_bytes(os.urandom(20_000_000))
        sealed = pool.seal(ONE)
        assert 20_000_000 <= sealed.size_bytes < 22_000_000
        assert pool.space().used_bytes >= 20_000_000

    # --- many at once --------------------------------------------------------------------------

    def test_sixteen_imports_begin_at_once_on_a_fresh_pool(self, pool):
        wanted = [generation_name(f"t{n}", 1, f"{n:08x}") for n in range(16)]
        made = at_once(16, lambda n: pool.create(wanted[n]))
        assert [dataset.name for dataset in made] == [pool.full_name(name) for name in wanted]
        assert names(pool) == sorted(wanted)

    def test_sixteen_clones_at_once(self, pool):
        make(pool)
        made = at_once(16, lambda n: pool.clone(ONE, f"sandbox-{n}"))
        assert [(one.path / "version").read_text() for one in made] == ["one"] * 16
        assert len(pool.dependents(ONE)) == 16
        assert at_once(16, lambda n: pool.destroy(f"sandbox-{n}")) == [None] * 16
        assert names(pool) == [ONE]

    def test_of_sixteen_clones_with_one_name_one_is_made(self, pool):
        make(pool)
        made = at_once(16, lambda n: pool.clone(ONE, "sandbox-1"))
        assert sorted(type(one).__name__ for one in made) == ["Clone", *["SandboxExists"] * 15]
        assert (mountpoint(pool, "sandbox-1") / "version").read_text() == "one"

    def test_an_alias_that_many_move_at_once_ends_whole(self, pool):
        made = {ONE: make(pool), TWO: make(pool, TWO, "two")}
        done = at_once(8, lambda n: pool.point(ALIAS, (ONE, TWO)[n % 2]))
        assert done == [None] * 8
        (alias,) = (one for one in pool.find_all() if one.relative == ALIAS)
        assert alias.base == pool.snapshot(ALIAS)
        assert alias.origin in {snapshot.name for snapshot in made.values()}

    # --- what is wrong with the storage --------------------------------------------------------

    def test_a_full_pool_is_said_to_be_full_and_nothing_is_left(self, tiny_pool):
        pool = tiny_pool
        dataset = pool.create(ONE)
        (dataset.path / "data").write_bytes(os.urandom(300_000))
        pool.seal(ONE)
        before = pool.find_all()
        filler = mountpoint(pool) / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(os.urandom(1 << 16))
        with pytest.raises(OutOfSpace):
            if pool.kind == "zfs":
                pool.create(TWO)
            else:
                pool.clone(ONE, "sandbox-1")
        filler.unlink()
        assert pool.find_all() == before
        assert pool.sweep() == []
        made = when_there_is_space(lambda: pool.clone(ONE, "sandbox-1"))
        assert (made.path / "data").stat().st_size == 300_000

    def test_an_alias_is_removed_only_if_it_leads_to_what_was_said_and_is_ours(self, pool):
        assert not pool.stranger(ALIAS)
        make(pool)
        make(pool, TWO)
        pool.point(ALIAS, ONE)
        before = pool.find_all()
        assert not pool.stranger(ALIAS)
        pool.unpoint(ALIAS, {TWO})
        assert pool.find_all() == before
        pool.unpoint(ALIAS, {ONE, TWO})
        pool.unpoint(ALIAS, {ONE, TWO})
        assert names(pool) == [ONE, TWO]
        hand_make(pool, ALIAS)
        assert pool.stranger(ALIAS)
        before = pool.find_all()
        pool.unpoint(ALIAS, {ONE, TWO})
        assert pool.find_all() == before

    def test_a_read_only_pool_is_said_to_be_read_only(self, tiny_pool):
        pool = tiny_pool
        make(pool)
        before = pool.find_all()
        if pool.kind == "zfs":
            sh("zfs", "set", "readonly=on", pool.root)
        else:
            sh("mount", "-o", "remount,ro", pool.root)
        for call in (
            pool.check,
            lambda: pool.create(TWO),
            lambda: pool.clone(ONE, "sandbox-1"),
        ):
            with pytest.raises(StorageReadOnly):
                call()
        assert pool.find_all() == before

    def test_a_missing_program_is_named(self, pool, monkeypatch, tmp_path):
        make(pool)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ProgramMissing, match="'zfs'" if pool.kind == "zfs" else "'cp'"):
            pool.clone(ONE, "sandbox-1")
        monkeypatch.undo()
        assert names(pool) == [ONE]
        assert pool.sweep() == []


def test_an_unknown_kind_of_pool_is_refused(tmp_path):
    for pool in ("btrfs:/x", "zroot/jails", "dir:", ""):
        with pytest.raises(PoolUnavailable):
            from_pool(pool, step_seconds=1, state_dir=tmp_path)


@pytest.mark.parametrize("more", [0, 100], ids=["nameable here", "not even here"])
def test_a_path_that_would_have_no_room_in_a_sandbox_is_refused(dir_pool, more):
    top = dir_pool.create(ONE).path
    room = os.pathconf(top, "PC_PATH_MAX") - 2 - len(os.fsencode(top))  # a slash; what ends it
    first = b"/".join([b"d" * 100] * 5)
    os.makedirs(os.fsencode(top) + b"/" + first)  # noqa: PTH103 - bytes
    rest = b"f" * 200 + b"/" + b"/".join([b"e" * 100] * 40)
    descriptor = os.open(os.fsencode(top) + b"/" + first, os.O_RDONLY)
    length = len(first)
    for part in rest.split(b"/"):
        part = part[: max(0, room + more - length - 1)]
        if part:
            os.mkdir(part, dir_fd=descriptor)
            inner = os.open(part, os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor, length = inner, length + 1 + len(part)
    os.close(descriptor)
    assert length == room + more
    with pytest.raises(TreeRefused) as refusal:
        dir_pool.seal(ONE)
    assert refusal.value.extra["rule"] == "path-length"
    dir_pool.destroy(ONE)
    assert names(dir_pool) == []


def test_a_root_that_is_not_mounted_is_no_pool(zfs_pool):
    """What is made in its directory then would keep it from ever being mounted again."""
    make(zfs_pool)
    place = mountpoint(zfs_pool)
    stubbornly("zfs", "unmount", zfs_pool.root)
    for call in (zfs_pool.check, lambda: zfs_pool.create(TWO)):
        with pytest.raises(PoolUnavailable, match="not mounted"):
            call()
    assert list(place.iterdir()) == []
    sh("zfs", "mount", zfs_pool.root)
    zfs_pool.check()


def test_an_alias_is_never_mounted_and_its_clones_are(zfs_pool):
    make(zfs_pool)
    zfs_pool.point(ALIAS, ONE)
    got = sh("zfs", "get", "-H", "-o", "value", "mounted,canmount", zfs_pool.full_name(ALIAS))
    assert got.split() == ["no", "off"]
    sh("zfs", "clone", f"{zfs_pool.full_name(ALIAS)}@base", zfs_pool.full_name("by-hand"))
    assert (mountpoint(zfs_pool, "by-hand") / "version").read_text() == "one"


def test_an_alias_that_was_restored_from_a_stream_is_still_ours(zfs_pool, tmp_path):
    make(zfs_pool)
    make(zfs_pool, TWO)
    zfs_pool.point(ALIAS, ONE)
    full = zfs_pool.full_name(ALIAS)
    stream = tmp_path / "stream"
    with stream.open("wb") as file:
        subprocess.run(["zfs", "send", "-R", f"{full}@base"], stdout=file, check=True)
    stubbornly("zfs", "destroy", "-r", full)
    with stream.open("rb") as file, mounting(60):
        subprocess.run(["zfs", "receive", full], stdin=file, check=True)
    assert not zfs_pool.stranger(ALIAS)
    zfs_pool.point(ALIAS, TWO)
    with zfs_pool.reading(ALIAS) as view:
        assert (view / "version").exists()
    assert zfs_pool.dependents(TWO) == [full]
