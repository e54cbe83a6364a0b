"""The ``dir:`` driver: the same words on plain directories, for where there is no ZFS.

What lies where, and what it cannot do that ZFS can, is in docs/reference/pools.md. In short: a
sealed generation is the directory ``coppice/NAME@base`` with a symlink ``NAME`` beside it, the
alias is two symlinks into ``coppice/``, a clone is a full copy. A snapshot's guid is computed from
what lstat(2) says of every entry, so there is no stored one that could be lost or be wrong.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from templates_app.datasets import trees
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
    is_name,
)
from templates_app.datasets.directory_pool import INNER, DirectoryPool, leads_to, replace_link
from templates_app.datasets.layers import LayerStore
from templates_app.errors import (
    AdoptedInTheWay,
    Conflict,
    PoolBusy,
    SandboxExists,
    TemplateInUse,
    TemplateMissing,
)

#: Bytes of a path that may stand between the root and a file of a tree.
_ROOM = 160


class DirectoryDriver:
    kind = "dir"
    layers: LayerStore | None = None  # a clone is a full copy here: starting from one saves nothing

    def __init__(self, root: str, *, step_seconds: float, state_dir: Path) -> None:
        self.root = Path(root)
        self._pool = DirectoryPool(self.root, seconds=step_seconds, state_dir=state_dir)

    @property
    def pool(self) -> str:
        return f"dir:{self.root}"

    def full_name(self, relative: str) -> str:
        return str(self._pool.path(relative))

    def check(self) -> None:
        self._pool.prepare()

    def sweep(self) -> list[str]:
        with trees.disk_errors("The pool cannot be swept"):
            return self._pool.sweep()

    def space(self) -> Space:
        self._pool.assert_there()
        with trees.disk_errors("The pool's file system does not answer"):
            now = os.statvfs(self.root)
        return Space(
            available_bytes=now.f_bavail * now.f_frsize,
            used_bytes=(now.f_blocks - now.f_bfree) * now.f_frsize,
        )

    # --- generations ---------------------------------------------------------------------------

    def create(self, relative: str) -> Dataset:
        path = self._pool.path(relative)
        if not relative.startswith(f"{OURS}/"):
            raise ValueError(f"{relative!r} is not below {OURS}")
        self._pool.prepare()
        with self._pool.lock(relative), trees.disk_errors("The dataset cannot be made"):
            if _is_there(path) or _is_there(self._pool.based(relative)):
                raise Conflict(f"There is a dataset {path} already.")
            path.mkdir(mode=0o755)
        return Dataset(name=str(path), path=path)

    def writing(self, relative: str) -> contextlib.AbstractContextManager[None]:
        return trees.written_out_meanwhile(self._pool.path(relative))

    def seal(self, relative: str) -> Snapshot:
        path, based = self._pool.path(relative), self._pool.based(relative)
        self._pool.prepare()
        with self._pool.lock(relative), trees.disk_errors("The dataset cannot be sealed"):
            if not based.is_dir():
                if path.is_symlink() or not path.is_dir():
                    raise TemplateMissing(f"There is no dataset {path}.")
                self._refuse_mounts(path)
                path.rename(based)
            if not _is_there(path):
                path.symlink_to(based.name)
            begun = time.monotonic()
            with ThreadPoolExecutor(1) as meanwhile:
                # To write a tree out changes nothing that look() sees.
                seen = meanwhile.submit(trees.look, based)
                # The event that makes this generation current survives a power failure; so must
                # every file of it, and its name. Until then nothing knows it but its lease, by
                # which recovery removes it.
                trees.make_durable(based)
            made = seen.result()
            # Here as well as in a sandbox, and in a copy on its way there.
            if not trees.fits(made.longest, self.root, _ROOM):
                raise trees.too_long(made.longest)
            # What somebody changes from now on has another ctime than what look() sees.
            time.sleep(max(0.0, begun + trees.TICK - time.monotonic()))
        return Snapshot(name=str(based), guid=made.guid, size_bytes=made.size_bytes)

    def snapshot(self, relative: str) -> Snapshot | None:
        self._pool.assert_there()
        based = self._pool.based(relative)
        with trees.disk_errors("The snapshot cannot be read"):
            try:
                seen = trees.look(based.resolve(strict=True))
            except (FileNotFoundError, NotADirectoryError):
                if based.is_dir():
                    raise PoolBusy(f"{based} changed while it was read.") from None
                return None
        return Snapshot(name=str(based), guid=seen.guid, size_bytes=seen.size_bytes)

    def _sealed(self, relative: str) -> Snapshot:
        found = self.snapshot(relative)
        if found is None:
            raise TemplateMissing(f"There is no snapshot {self._pool.based(relative)}.")
        return found

    def _source(self, relative: str) -> tuple[str, Path]:
        """Through an alias to the generation behind it: its relative name, and its tree."""
        based = self._pool.based(relative)
        if not based.is_dir():
            self._pool.assert_there()
            raise TemplateMissing(f"There is no snapshot {based}.")
        generation = leads_to(based)
        return (generation or relative), based.resolve()

    @contextlib.contextmanager
    def reading(self, relative: str) -> Iterator[Path]:
        self._pool.prepare()
        real, _ = self._source(relative)
        with self._pool.lock(real, shared=True):
            yield self._source(relative)[1]

    # --- the alias -----------------------------------------------------------------------------

    def point(self, alias: str, relative: str) -> None:
        self._pool.prepare()
        path, based = self._pool.path(alias), self._pool.based(alias)
        with (
            self._pool.lock(alias),
            self._pool.lock(relative, shared=True),
            self._pool.temporary("work") as work,
            trees.disk_errors("The alias cannot be moved"),
        ):
            self._source(relative)
            for link in (based, path):
                if _is_there(link) and leads_to(link) is None:
                    raise AdoptedInTheWay(f"{link} was not made by Coppice.")
            for link in (based, path):
                if leads_to(link) != relative:
                    replace_link(link, f"{relative}@{BASE}", work)
            trees.write_names(self.root)

    def stranger(self, alias: str) -> bool:
        self._pool.assert_there()
        links = (self._pool.path(alias), self._pool.based(alias))
        return any(_is_there(link) and leads_to(link) is None for link in links)

    def unpoint(self, alias: str, relatives: Collection[str], *, aside: bool = False) -> None:
        self._pool.prepare()
        path, based = self._pool.path(alias), self._pool.based(alias)
        with self._pool.lock(alias), trees.disk_errors("The alias cannot be removed"):
            # @base first: whoever looks for a template finds none from then on.
            for link in (based, path):
                if leads_to(link) in relatives:
                    link.unlink()
            trees.write_names(self.root)

    def usage(self) -> list[Usage]:
        clones = self._pool.clones()
        found = []
        for one in self.find_all():
            based, path = self._pool.based(one.relative), self._pool.path(one.relative)
            if not one.is_dataset or leads_to(based) is not None:
                continue  # an alias has no files of its own
            with trees.disk_errors("The pool cannot be read"):
                try:
                    everything, alone = trees.allocated(based if based.is_dir() else path)
                except FileNotFoundError:
                    continue  # it was destroyed meanwhile
            origin = clones.get(one.relative)
            found.append(
                Usage(
                    relative=one.relative,
                    name=one.name,
                    referenced_bytes=everything,
                    unique_bytes=alone,
                    origin=f"{self.full_name(origin)}@{BASE}" if origin else None,
                )
            )
        return found

    # --- sandboxes, and every dataset ----------------------------------------------------------

    def clone(self, relative: str, name: str, *, drawn: bool = False) -> Clone:
        self._pool.prepare()
        path = self._pool.path(name)
        real, _ = self._source(relative)
        taken = SandboxExists(f"Somebody else makes {path} at this moment.")
        with (
            self._pool.lock(name, taken=taken),
            self._pool.lock(real, shared=True),
            self._pool.temporary("work") as work,
            trees.disk_errors("The clone cannot be made"),
        ):
            source = self._source(relative)[1]
            if _is_there(path) or _is_there(self._pool.based(name)):
                raise SandboxExists(f"There is a dataset {path} already.")
            trees.copy(source, work / "tree", seconds=self._pool.seconds)
            # After the copy: who changed a file meanwhile has changed the snapshot's guid, too.
            origin = self._sealed(relative)
            # First the note: a clone that is there is never without one.
            self._pool.note_clone(name, real, work / "tree", work)
            (work / "tree").rename(path)
        return Clone(name=str(path), path=path, origin=origin)

    def cloned(self, relative: str, name: str) -> Clone | None:
        self._pool.prepare()
        path = self._pool.path(name)
        real, _ = self._source(relative)
        if self._pool.clones().get(name) != real or not _is_there(path):
            return None
        return Clone(name=str(path), path=path, origin=self._sealed(relative))

    def move(self, relative: str, to: str) -> None:
        self._pool.prepare()
        with (
            self._pool.lock(relative),
            self._pool.lock(to),
            self._pool.temporary("work") as work,
            trees.disk_errors("The dataset cannot be moved"),
        ):
            path, based = self._pool.path(relative), self._pool.based(relative)
            if not _is_there(path) and not _is_there(based):
                raise TemplateMissing(f"There is no dataset {path}.")
            if _is_there(self._pool.path(to)) or _is_there(self._pool.based(to)):
                raise Conflict(f"There is a dataset {self._pool.path(to)} already.")
            if leads_to(based) is not None:
                raise Conflict(f"{path} is an alias: it is pointed, not moved.")
            self._refuse_mounts(path)
            self._refuse_mounts(based)
            clones = [name for name, origin in self._pool.clones().items() if origin == relative]
            aliases = [name for name, leads in self._pool.aliases().items() if leads == relative]
            if path.is_symlink():
                path.unlink()
            if _is_there(based):
                based.rename(self._pool.based(to))
            if _is_there(path):
                path.rename(self._pool.path(to))
            elif to.startswith(f"{OURS}/"):
                self._pool.path(to).symlink_to(self._pool.based(to).name)
            for name in clones:
                self._pool.note_clone(name, to, self._pool.path(name), work)
            for alias in aliases:
                for link in (self._pool.based(alias), self._pool.path(alias)):
                    replace_link(link, f"{to}@{BASE}", work)
            trees.write_names(path.parent)
            trees.write_names(self._pool.path(to).parent)

    def destroy(self, relative: str) -> None:
        self._pool.prepare()
        path, based = self._pool.path(relative), self._pool.based(relative)
        taken = TemplateInUse(f"{path} is being read or cloned at this moment.")
        with (
            self._pool.lock(relative, taken=taken),
            self._pool.temporary("trash") as trash,
            trees.disk_errors("The dataset cannot be removed"),
        ):
            if clones := self.dependents(relative):
                raise in_use(str(path), clones)
            if not self._is_dataset(relative):
                return
            self._refuse_mounts(path)
            self._refuse_mounts(based)
            # Out of sight in one step each; a crash from here on leaves trash alone.
            for one in (based, path):
                if one.is_symlink():
                    one.unlink()
                elif _is_there(one):
                    one.rename(trash / one.name)
            self._pool.forget_clone(relative)
            trees.write_names(path.parent)

    def _is_dataset(self, relative: str) -> bool:
        """Not so for a directory that somebody put beside ours: that is never removed."""
        ours = relative.startswith(f"{OURS}/") and _is_there(self._pool.path(relative))
        based = _is_there(self._pool.based(relative))
        half_alias = leads_to(self._pool.path(relative)) is not None
        return ours or based or half_alias or self._pool.origin_of(relative) is not None

    def _refuse_mounts(self, path: Path) -> None:
        if not path.is_symlink() and (mounts := trees.mounts_below(path)):
            raise PoolBusy(
                f"{len(mounts)} file system(s) are mounted below {path}.",
                hint="Unmount them first.",
                private=", ".join(mounts),
            )

    def dependents(self, relative: str) -> list[str]:
        return self.all_clones().get(str(self.root / relative), [])

    def all_clones(self) -> dict[str, list[str]]:
        self._pool.assert_there()
        with trees.disk_errors("The pool's notes cannot be read"):
            leading = {**self._pool.clones(), **self._pool.aliases()}
        found: dict[str, list[str]] = {}
        for name, origin in sorted(leading.items()):
            found.setdefault(str(self.root / origin), []).append(str(self.root / name))
        return found

    def place_back(self, relative: str) -> None:
        """A directory has no other place than its own."""

    # --- looking around ------------------------------------------------------------------------

    def find_all(self) -> list[Found]:
        self._pool.assert_there()
        with trees.disk_errors("The pool's directory cannot be read"):
            names = {name for prefix in ("", f"{OURS}/") for name in self._names(prefix)}
            return [self._found(name) for name in sorted(names)]

    def _names(self, prefix: str) -> Iterator[str]:
        place = self.root / prefix
        for path in place.iterdir() if place.is_dir() else ():
            name = f"{prefix}{path.name.removesuffix(f'@{BASE}')}"
            if name in (OURS, INNER) or not is_name(name):
                continue
            if path.is_dir() or leads_to(path) is not None:
                yield name

    def _found(self, name: str) -> Found:
        path, based = self._pool.path(name), self._pool.based(name)
        base = self.snapshot(name)
        origin = leads_to(based) or leads_to(path) or self._pool.origin_of(name)
        return Found(
            relative=name,
            name=str(path),
            base=base,
            origin=origin and str(self._pool.based(origin)),
            mounted=base is None and path.is_dir() and not path.is_symlink(),
            is_dataset=self._is_dataset(name),
        )


def _is_there(path: Path) -> bool:
    """Also a symlink that leads nowhere is there."""
    return os.path.lexists(path)
