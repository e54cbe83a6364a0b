"""The ``zfs:`` driver. What lies on the pool, and why, is in docs/reference/pools.md.

Differences between the implementations that shaped this file:

* pool version 23 mounts a new clone even where ``canmount=noauto`` is given; OpenZFS does not;
* it refuses to rename a dataset while mounted clones of it live ("dataset is busy", for ever);
* FreeBSD refuses ``devices=off`` (device nodes outside devfs are dead there anyway);
* a clone inherits from the place where it stands, never from its origin, so what a generation is
  restricted with while it is filled (no set-id, no exec) does not reach a sandbox.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from templates_app.datasets.base import (
    BASE,
    OURS,
    Clone,
    Dataset,
    Found,
    Snapshot,
    Space,
    Usage,
    in_use,
)
from templates_app.datasets.layers import LayerStore
from templates_app.datasets.locks import Locks, Taken, held
from templates_app.datasets.zfs_command import Kind, Outcome, error, zfs
from templates_app.datasets.zfs_early import EarlyLook
from templates_app.datasets.zfs_layers import ZfsLayers
from templates_app.datasets.zfs_pool import LOCKED_DOWN, READING, ZfsPool, as_path, options
from templates_app.errors import (
    AdoptedInTheWay,
    Conflict,
    CoppiceError,
    PoolBusy,
    PoolUnavailable,
    SandboxExists,
    StorageReadOnly,
    TemplateInUse,
    TemplateMissing,
)

logger = logging.getLogger("coppice.datasets")

_OF_CLONES = ("origin", "guid", "referenced", "mountpoint", "mounted", "readonly")
#: Set on the aliases that we made: the only datasets outside OURS that point() may destroy.
ALIAS_MARK = "coppice:alias"


@dataclass(frozen=True, slots=True)
class _Alias:
    """What stands where an alias goes."""

    origin: str
    ours: bool  # point() made it


class ZfsDriver:
    kind = "zfs"

    def __init__(
        self, root: str, *, step_seconds: float, state_dir: Path, quota_bytes: int = 0
    ) -> None:
        self.root = root
        self._pool = ZfsPool(root)
        self._seconds = step_seconds
        self._locks = Locks(state_dir / "pool-locks", root)
        # Of files alone: not of snapshots, nor of what is cloned from them.
        self._quota = (f"refquota={quota_bytes}",) if quota_bytes else ()
        self.layers: LayerStore | None = ZfsLayers(
            self._pool, self._locks, seconds=step_seconds, quota=self._quota
        )

    @property
    def pool(self) -> str:
        return f"zfs:{self.root}"

    def full_name(self, relative: str) -> str:
        return self._pool.full_name(relative)

    def check(self) -> None:
        self._pool.check()

    def space(self) -> Space:
        return self._pool.space()

    def usage(self) -> list[Usage]:
        return self._pool.usage()

    def find_all(self) -> list[Found]:
        return self._pool.find_all()

    def dependents(self, relative: str) -> list[str]:
        return self._pool.dependents(relative)

    def all_clones(self) -> dict[str, list[str]]:
        return self._pool.all_clones()

    def place_back(self, relative: str) -> None:
        full = self.full_name(relative)
        self._unmount(full)  # first: else it would be mounted anew in its place
        zfs("inherit", "mountpoint", full)

    # --- generations ---------------------------------------------------------------------------

    def create(self, relative: str) -> Dataset:
        full = self.full_name(relative)
        if not relative.startswith(f"{OURS}/"):
            raise ValueError(f"{relative!r} is not below {OURS}")
        self._pool.private_place()
        # noauto from the start: a half-made generation is not mounted again at the next boot.
        words = options("canmount=noauto", *LOCKED_DOWN, *self._quota)
        out = zfs("create", *words, "--", full, expect=_TAKEN)
        if not out.done:
            raise Conflict(f"There is a dataset {full} already.", private=out.stderr)
        try:
            zfs("mount", "--", full, expect={Kind.MOUNTED})
            return Dataset(name=full, path=self._pool.mountpoint(full))
        except BaseException:
            self._give_up(relative)
            raise

    def writing(self, relative: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # ZFS writes every few seconds; a snapshot waits for it

    def seal(self, relative: str) -> Snapshot:
        full = self.full_name(relative)
        got = self._pool.properties(full, "mounted", "canmount")
        if got is None:
            self._pool.assert_there()
            raise TemplateMissing(f"There is no dataset {full}.")
        if got["mounted"] == "yes":
            # First of all: the unmount is what brings written pages from the kernel to the pool.
            self._unmount(full)
        if got["canmount"] != "noauto":
            zfs("set", "canmount=noauto", full)  # no "--": older versions take it for a dataset
        zfs("snapshot", "--", f"{full}@{BASE}", expect={Kind.EXISTS})
        return self._sealed(relative)

    def snapshot(self, relative: str) -> Snapshot | None:
        name = f"{self.full_name(relative)}@{BASE}"
        got = self._pool.properties(name, "guid", "referenced")
        if got is None:
            self._pool.assert_there()
            return None
        return _snapshot(name, got)

    def _sealed(self, relative: str) -> Snapshot:
        found = self.snapshot(relative)
        if found is None:
            raise TemplateMissing(f"There is no snapshot {self.full_name(relative)}@{BASE}.")
        return found

    def _unmount(self, full: str) -> None:
        zfs("unmount", "--", full, expect={Kind.UNMOUNTED, Kind.ABSENT})

    @contextlib.contextmanager
    def reading(self, relative: str) -> Iterator[Path]:
        base = f"{self.full_name(relative)}@{BASE}"
        view = f"{OURS}/{READING}{secrets.token_hex(8)}"
        # Locked before it is made, so sweep() never takes a living view for a dead one.
        with self._locks.held(view):
            self._pool.private_place()
            try:
                # Not readonly=on: there zfs-fuse says of the first file without extended
                # attributes that the whole file system keeps none, and the kernel believes it.
                words = options("canmount=noauto", *LOCKED_DOWN)
                out = zfs("clone", *words, "--", base, self.full_name(view), expect={Kind.ABSENT})
                if not out.done:
                    raise self._source_missing(relative, out)
                zfs("mount", "--", self.full_name(view), expect={Kind.MOUNTED})
                yield self._pool.mountpoint(self.full_name(view))
            except BaseException:
                self._give_up(view)
                raise
            self.destroy(view)

    # --- the alias -----------------------------------------------------------------------------

    def point(self, alias: str, relative: str) -> None:
        full, wanted = self.full_name(alias), f"{self.full_name(relative)}@{BASE}"
        # Recovery, reload and an import may come to the same alias at the same moment.
        with self._locks.held(alias, patience=self._seconds):
            # canmount=off: nothing ever mounts it, and version 23 would mount a clone at once.
            clone = ("clone", *options("canmount=off", f"{ALIAS_MARK}={relative}"), "--")
            # Tried before anything is looked at: a new template has no alias yet.
            out = zfs(*clone, wanted, full, expect={Kind.EXISTS, Kind.ABSENT})
            if out.kind is Kind.ABSENT:
                raise self._source_missing(relative, out)
            if out.kind is Kind.EXISTS:
                found = self._aliases(full, wanted)
                if wanted not in found:
                    raise self._source_missing(relative, out)
                if (old := found.get(full)) is not None:
                    if old.origin == wanted and f"{full}@{BASE}" in found:
                        return
                    if not old.ours:
                        raise AdoptedInTheWay(f"The dataset {full} was not made by Coppice.")
                    self._remove_alias(alias, alone=set(found) == {full, f"{full}@{BASE}", wanted})
                zfs(*clone, wanted, full)
            zfs("snapshot", "--", f"{full}@{BASE}")

    def _aliases(self, *names: str) -> dict[str, _Alias]:
        """Those of ``names`` that are there, with all directly below them: one call, for 3 ms."""
        keys = f"origin,{ALIAS_MARK}"
        words = ("get", "-H", "-r", "-d", "1", "-o", "name,property,value,source", keys)
        got: dict[str, dict[str, tuple[str, str]]] = {}
        # Status 1 says that one is absent; the others are told all the same.
        for name, key, value, source in zfs(*words, "--", *names, expect={Kind.ABSENT}).rows():
            got.setdefault(name, {})[key] = (value, source)
        # "received" after a restore by zfs send -R. Inherited ones say nothing of this dataset.
        return {
            name: _Alias(one["origin"][0], one[ALIAS_MARK][1] in ("local", "received"))
            for name, one in got.items()
        }

    def stranger(self, alias: str) -> bool:
        found = self._aliases(self.full_name(alias)).get(self.full_name(alias))
        return found is not None and not found.ours

    def unpoint(self, alias: str, relatives: Collection[str], *, aside: bool = False) -> None:
        origins = {f"{self.full_name(relative)}@{BASE}" for relative in relatives}
        with self._locks.held(alias, patience=self._seconds):
            found = self._aliases(self.full_name(alias)).get(self.full_name(alias))
            if found is not None and found.ours and found.origin in origins:
                self._remove_alias(alias, alone=False) if aside else self.destroy(alias)

    def _remove_alias(self, alias: str, *, alone: bool) -> None:
        """``alone``: nothing but its @base is below it, so ZFS refuses at once or not at all."""
        full = self.full_name(alias)
        refused = {Kind.ABSENT, Kind.CLONES, Kind.CHILDREN, Kind.BUSY}
        if alone and all(
            zfs("destroy", "--", name, expect=refused, patience=0).done
            for name in (f"{full}@{BASE}", full)
        ):
            return
        try:
            self.destroy(alias)
        except TemplateInUse as held_by:
            if "clones" not in held_by.extra:
                raise
            self._move_aside(alias)

    def _move_aside(self, alias: str) -> None:
        """Give the clones that somebody made by hand their origin below OURS."""
        for number in range(1, 1000):
            aside = f"{OURS}/{alias}-aside-{number}"
            try:
                self.move(alias, aside)
            except Conflict as conflict:
                if isinstance(conflict, TemplateInUse):
                    raise
                continue
            logger.warning("%s has clones made by hand: it is %s now", alias, aside)
            return
        raise PoolBusy(f"All names for moving {self.full_name(alias)} aside are taken.")

    # --- sandboxes, and every dataset ----------------------------------------------------------

    def clone(self, relative: str, name: str, *, drawn: bool = False) -> Clone:
        base, full = f"{self.full_name(relative)}@{BASE}", self.full_name(name)
        look = partial(self._pool.look, (full, base), *_OF_CLONES)
        with EarlyLook(self.root, name, base, look, drawn=drawn) as early:
            self._make_clone(relative, name, early.step)
        try:
            return self._as_clone(base, full, early.seen())
        except BaseException:
            self._give_up(name)
            raise

    def cloned(self, relative: str, name: str) -> Clone | None:
        base, full = f"{self.full_name(relative)}@{BASE}", self.full_name(name)
        both = self._pool.look((full, base), *_OF_CLONES)
        if both.get(full, {}).get("origin") != base:
            self._pool.assert_there()
            return None
        got = both[full]
        usable = got["mounted"] == "yes" and got["readonly"] == "off"
        return self._as_clone(base, full, both) if usable else None

    def _as_clone(self, base: str, full: str, both: dict[str, dict[str, str]]) -> Clone:
        got = both.get(full) or self._pool.no_root()
        path = as_path(full, got["mountpoint"])
        if got["mounted"] != "yes":
            raise PoolUnavailable(f"{full} was cloned, but is not mounted.")
        if got["readonly"] == "on":
            raise StorageReadOnly(f"{full} would be read-only: it inherits readonly=on.")
        if (seen := both.get(base)) is None:  # renamed: with a clone it cannot be destroyed
            raise TemplateMissing(f"There is no snapshot {base} any more.")
        return Clone(name=full, path=path, origin=_snapshot(base, seen))

    def _make_clone(self, relative: str, name: str, beside: Callable[[], None]) -> None:
        base, full = f"{self.full_name(relative)}@{BASE}", self.full_name(name)
        expect = {Kind.EXISTS, Kind.ABSENT, Kind.OCCUPIED, Kind.NO_PLACE}
        try:
            words = ("clone", *options(*self._quota), "--", base, full)
            out = zfs(*words, expect=expect, beside=beside)
        except BaseException:
            # OpenZFS says "made, but not mounted" with the reason of the mount.
            got = self._pool.properties(full, "origin", "mounted")
            if got == {"origin": base, "mounted": "no"}:
                self._give_up(name)
            raise
        if out.kind is Kind.ABSENT:
            raise self._source_missing(relative, out)
        if out.kind is Kind.EXISTS:
            raise SandboxExists(f"There is a dataset {full} already.")
        if out.kind is Kind.OCCUPIED:
            self._give_up(name)
            raise SandboxExists(f"Files lie where {full} would be mounted.", private=out.stderr)
        if out.kind is Kind.NO_PLACE:
            self._give_up(name)
            self._pool.check()
            raise PoolUnavailable(f"There can be no mount point for {full}.", private=out.stderr)

    def _source_missing(self, relative: str, out: Outcome) -> CoppiceError:
        if self.snapshot(relative) is None:
            return TemplateMissing(f"There is no snapshot {self.full_name(relative)}@{BASE}.")
        return error(out, "clone")

    def move(self, relative: str, to: str) -> None:
        full, target = self.full_name(relative), self.full_name(to)
        if to.startswith(f"{OURS}/"):
            self._pool.private_place()
        got = self._pool.properties(full, "mounted", "canmount")
        if got is not None and got["mounted"] == "yes":
            # Left to itself, the rename unmounts too; version 23 then meets its own lazy unmount
            # and says busy, however often it is asked.
            self._unmount(full)
        try:
            self._rename(relative, full, target)
        except BaseException:
            if got is not None and got["mounted"] == "yes":
                self._mount(full)
            raise
        if got is not None and got["canmount"] == "on" and not to.startswith(f"{OURS}/"):
            self._mount(target)

    def _rename(self, relative: str, full: str, target: str) -> None:
        # Version 23 never renames while mounted clones live, so waiting long is no use then.
        clones = self.dependents(relative)
        patience = 0.5 if clones else None
        expect = {Kind.ABSENT, Kind.EXISTS, Kind.BUSY}
        out = zfs("rename", "--", full, target, expect=expect, patience=patience)
        if out.kind is Kind.ABSENT:
            self._pool.assert_there()
            raise TemplateMissing(f"There is no dataset {full}.", private=out.stderr)
        if out.kind is Kind.EXISTS:
            raise Conflict(f"There is a dataset {target} already.")
        if out.kind is Kind.BUSY:
            if clones:
                raise in_use(full, clones)
            raise error(out, "rename", "for seconds")

    def _mount(self, full: str) -> None:
        zfs("mount", "--", full, expect={Kind.MOUNTED, Kind.OCCUPIED})

    def destroy(self, relative: str) -> None:
        full = self.full_name(relative)
        words = ["list", "-H", "-r", "-t", "filesystem,volume,snapshot", "-o", "name,mounted", "--"]
        out = zfs(*words, full, expect={Kind.ABSENT})
        if not out.done:
            self._pool.assert_there()
            return
        names = [name for name, _ in out.rows()]
        if below := [name for name in names if name.startswith(f"{full}/") and "@" not in name]:
            raise TemplateInUse(
                f"There are datasets below {full}.",
                hint="Destroy or move them by hand first.",
                extra={"children": below},
            )
        if clones := self.dependents(relative):
            raise in_use(full, clones)
        mounted = [full, "yes"] in out.rows()
        try:
            if mounted:
                self._unmount(full)
            # Each by its name, never with -r: what somebody makes meanwhile is refused, and stays.
            for name in (name for name in names if name.startswith(f"{full}@")):
                self._destroy_one(name, relative)
            self._destroy_one(full, relative)
        except CoppiceError:
            if mounted:
                with contextlib.suppress(CoppiceError):  # the first one is to be told
                    self._mount(full)
            raise

    def _destroy_one(self, name: str, relative: str) -> None:
        expect = {Kind.ABSENT, Kind.CLONES, Kind.CHILDREN}
        out = zfs("destroy", "--", name, expect=expect, seconds=max(self._seconds, 60.0))
        if out.kind is Kind.CLONES:
            raise in_use(self.full_name(relative), self.dependents(relative))
        if out.kind is Kind.CHILDREN:
            raise PoolBusy(f"Somebody made something below {name} at the same moment.")

    def _give_up(self, relative: str) -> None:
        """Undo while an error is on its way: that error is the one to be told, not ours."""
        try:
            self.destroy(relative)
        except CoppiceError as left:
            logger.error("%s is left behind: %s %s", relative, left.detail, left.private)

    def sweep(self) -> list[str]:
        gone = []
        for relative in self._pool.views():
            try:
                with held(self._locks.file(relative)):
                    self.destroy(relative)
            except Taken:
                continue  # somebody alive is reading there
            gone.append(self.full_name(relative))
        return gone


def _snapshot(name: str, got: dict[str, str]) -> Snapshot:
    return Snapshot(name=name, guid=got["guid"], size_bytes=int(got["referenced"]))


_TAKEN = frozenset({Kind.EXISTS})
