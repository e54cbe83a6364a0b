"""Layer states on ZFS: image datasets below ``coppice-layers``, a snapshot for each state.

Why they stand in a place of their own, and what that costs, is in docs/adr/0010-layer-states.md.
A state is whole because its snapshot and both of its user properties are one step of the pool.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from templates_app.datasets.base import BASE, Snapshot, in_use
from templates_app.datasets.layers import LAYERS, Image, State
from templates_app.datasets.locks import Locks, Taken, held
from templates_app.datasets.zfs_command import Kind, Outcome, zfs
from templates_app.datasets.zfs_pool import LOCKED_DOWN, ZfsPool, options
from templates_app.errors import Conflict, CoppiceError, TemplateMissing

logger = logging.getLogger("coppice.datasets")

TREE, NOTE = "coppice:tree-digest", "coppice:note"
#: Only while files are written, and only here: no clone inherits it from its origin. A state is on
#: the disk when its snapshot is, whatever ``sync`` says; a crash before that costs the filling,
#: which is undone anyway. xattr=sa keeps small attributes in the file's own node.
_FAST = ("sync=disabled",) + (() if sys.platform.startswith("freebsd") else ("xattr=sa",))
_KEY = re.compile(r"[0-9a-z][0-9a-z-]{0,99}")


@dataclass(slots=True)
class _Place:
    """An image dataset that is being filled."""

    full: str
    path: Path

    def keep(self, key: str, *, tree_digest: str, note: str) -> State:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of a state")
        name = f"{self.full}@{key}"
        zfs("snapshot", *options(f"{TREE}={tree_digest}", f"{NOTE}={note}"), "--", name)
        return State(key=key, name=name, tree_digest=tree_digest, note=note)


class ZfsLayers:
    """What ZfsDriver.layers is; it shares the driver's ground and its locks."""

    def __init__(
        self, pool: ZfsPool, locks: Locks, *, seconds: float, quota: tuple[str, ...] = ()
    ) -> None:
        self._pool = pool
        self._locks = locks
        self._seconds = seconds
        self._quota = quota

    @property
    def _parent(self) -> str:
        return self._pool.full_name(LAYERS)

    # --- states --------------------------------------------------------------------------------

    def states(self) -> list[State]:
        keys = f"name,{TREE},{NOTE}"
        words = ("list", "-H", "-r", "-t", "snapshot", "-o", keys, "--", self._parent)
        out = zfs(*words, expect={Kind.ABSENT})
        if not out.done:
            self._pool.assert_there()
        return [
            State(key=name.partition("@")[2], name=name, tree_digest=tree_digest, note=note)
            for name, tree_digest, note in out.rows()
            if "-" not in (tree_digest, note)  # else somebody else made it
        ]

    @contextlib.contextmanager
    def alone(self, key: str, *, patience: float) -> Iterator[None]:
        with self._locks.held(f"{LAYERS}/state-{key}", patience=patience):
            yield

    # --- filling -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def filling(self, image: str, over: State | None) -> Iterator[_Place]:
        relative = f"{LAYERS}/{image}"
        full = self._pool.full_name(relative)
        # Locked before it is made, so sweep() and remove() never take it for a dead one's.
        with self._locks.held(relative):
            self._pool.private_place(LAYERS)
            self._make(full, over)
            try:
                zfs("mount", "--", full, expect={Kind.MOUNTED})
                yield _Place(full, self._pool.mountpoint(full))
            except BaseException:
                self._give_up(full)
                raise
            zfs("unmount", "--", full, expect={Kind.UNMOUNTED})

    def _make(self, full: str, over: State | None) -> None:
        # noauto: a half-filled one is not mounted again at the next boot.
        common = ("canmount=noauto", *LOCKED_DOWN, *self._quota)
        for extra in (_FAST, ()):  # pool version 23 has neither
            verb = ["create"] if over is None else ["clone"]
            names = [full] if over is None else [over.name, full]
            expect = {Kind.EXISTS, Kind.ABSENT, *((Kind.PROPERTY,) if extra else ())}
            out = zfs(*verb, *options(*common, *extra), "--", *names, expect=expect)
            if out.kind is not Kind.PROPERTY:
                break
        if out.kind is Kind.EXISTS:
            raise Conflict(f"There is a dataset {full} already.", private=out.stderr)
        if out.kind is Kind.ABSENT:
            raise self._gone(over, out)

    def _gone(self, state: State | None, out: Outcome) -> CoppiceError:
        self._pool.assert_there()
        name = state.name if state else self._parent
        return TemplateMissing(f"There is no {name} any more.", private=out.stderr)

    def _give_up(self, full: str) -> None:
        """Undo while an error is on its way: that error is the one to be told, not ours."""
        try:
            self._put_back(full)
        except CoppiceError as left:
            logger.error("%s is left behind: %s %s", full, left.detail, left.private)

    def _put_back(self, full: str) -> None:
        """What is kept stays, all else goes."""
        zfs("unmount", "--", full, expect={Kind.UNMOUNTED, Kind.ABSENT})
        snapshots = self._snapshots(full)
        if snapshots:
            zfs("rollback", snapshots[-1], seconds=self._seconds)
        else:
            zfs("destroy", "--", full, expect={Kind.ABSENT}, seconds=self._seconds)

    def _snapshots(self, full: str) -> list[str]:
        """In the order in which they were made."""
        words = ("list", "-H", "-r", "-t", "snapshot", "-o", "name", "--", full)
        return [row[0] for row in zfs(*words, expect={Kind.ABSENT}).rows()]

    # --- generations ---------------------------------------------------------------------------

    def generation(self, state: State, relative: str) -> Snapshot:
        full = self._pool.full_name(relative)
        # canmount=off: nothing ever mounts it, and version 23 would mount a clone at once.
        words = ("clone", *options("canmount=off", *LOCKED_DOWN), "--", state.name, full)
        out = zfs(*words, expect={Kind.EXISTS, Kind.ABSENT})
        if out.kind is Kind.ABSENT:
            self._pool.private_place()  # only now: but for the first import it is there
            out = zfs(*words, expect={Kind.EXISTS, Kind.ABSENT})
        if out.kind is Kind.EXISTS:
            raise Conflict(f"There is a dataset {full} already.", private=out.stderr)
        if out.kind is Kind.ABSENT:
            raise self._gone(state, out)
        base = f"{full}@{BASE}"
        zfs("snapshot", "--", base)
        got = self._pool.properties(base, "guid", "referenced")
        if got is None:
            raise TemplateMissing(f"There is no snapshot {base}.")
        return Snapshot(name=base, guid=got["guid"], size_bytes=int(got["referenced"]))

    # --- making room ---------------------------------------------------------------------------

    def images(self) -> list[Image]:
        words = ("get", "-Hp", "-r", "-d", "1", "-o", "name,value", "used", "--", self._parent)
        out = zfs(*words, expect={Kind.ABSENT})
        if not out.done:
            self._pool.assert_there()
        used = {name: int(value) for name, value in out.rows() if "@" not in name}
        used.pop(self._parent, None)
        states: dict[str, list[State]] = {}
        for state in self.states():
            states.setdefault(state.name.partition("@")[0], []).append(state)
        clones: dict[str, list[str]] = {}
        for name, origin in self._pool.origins():
            clones.setdefault(origin.partition("@")[0], []).append(name)
        return [
            Image(
                name=full.rpartition("/")[2],
                states=tuple(states.get(full, ())),
                clones=tuple(sorted(clones.get(full, ()))),
                used_bytes=used[full],
            )
            for full in sorted(used)
        ]

    def remove(self, image: str) -> None:
        relative = f"{LAYERS}/{image}"
        full = self._pool.full_name(relative)
        with self._locks.held(relative):
            if clones := self._pool.dependents(relative):
                raise in_use(full, clones)
            # The last first, for the dataset is destroyed with them. Each by its name, never with
            # -r: what somebody clones meanwhile is refused, not destroyed.
            for name in (*reversed(self._snapshots(full)), full):
                expect = {Kind.ABSENT, Kind.CLONES, Kind.CHILDREN}
                out = zfs("destroy", "--", name, expect=expect, seconds=self._seconds)
                if out.kind in (Kind.CLONES, Kind.CHILDREN):
                    raise in_use(full, self._pool.dependents(relative))

    def sweep(self) -> list[str]:
        words = ("get", "-H", "-r", "-d", "1", "-o", "name,value", "mounted", "--", self._parent)
        out = zfs(*words, expect={Kind.ABSENT})
        if not out.done:
            self._pool.assert_there()
        kept = {state.name.partition("@")[0] for state in self.states()}
        gone = []
        for full, mounted in out.rows():
            if full == self._parent or "@" in full:
                continue
            lock = self._locks.file(f"{LAYERS}/{full.rpartition('/')[2]}")
            # A holder removes its file on the way out: one that is there and free is a dead one's.
            if full in kept and mounted != "yes" and not lock.exists():
                continue
            with contextlib.suppress(Taken), held(lock):
                self._put_back(full)
                gone.append(full)
        self._locks.tidy()  # only now: what a lock file tells has just been asked
        return gone
