"""The ground that the ``dir:`` driver stands on: the root directory and what is ours in it.

::

    ROOT/coppice/              generations; mode 0700
    ROOT/.coppice/pool-id      tells this pool from an empty mount point; mode 0700, all of it
    ROOT/.coppice/clones/      one note for each sandbox: what it was cloned from
    ROOT/.coppice/work/        copies in the making
    ROOT/.coppice/trash/       trees on their way out
    ROOT/.coppice/locks/
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from templates_app.datasets import trees
from templates_app.datasets.base import BASE, OURS, checked
from templates_app.datasets.locks import PATIENCE, Taken, held, lock_file, tidy
from templates_app.errors import CoppiceError, PoolBusy, PoolUnavailable, StorageReadOnly

INNER = ".coppice"


class DirectoryPool:
    """The root directory, looked at anew at each use."""

    def __init__(self, root: Path, *, seconds: float, state_dir: Path) -> None:
        self.root = root
        self.seconds = seconds
        self.inner = root / INNER
        self._state = state_dir
        self._known = state_dir / "pools" / quote(str(root), safe="")

    def path(self, relative: str) -> Path:
        return self.root / checked(relative)

    def based(self, relative: str) -> Path:
        return self.root / f"{checked(relative)}@{BASE}"

    # --- is this our pool? ---------------------------------------------------------------------

    def assert_there(self) -> None:
        """PoolUnavailable if the root is not there, or is not what it was: a disk not mounted.

        Without this an empty mount point would read as "all templates are gone".
        """
        with trees.disk_errors("The pool's directory cannot be read"):
            if not self.root.is_dir():
                raise PoolUnavailable("The pool's directory does not exist.")
            known, found = _read(self._known), _read(self.inner / "pool-id")
        if known and known != found:
            raise PoolUnavailable(
                "The pool's directory is not the one that this server used: is its disk mounted?",
                hint="Mount it. If the pool was replaced on purpose, remove the note of it below"
                " `pools` in the state directory.",
            )

    def prepare(self) -> None:
        """See to it that the places of ours are there, and private. Idempotent."""
        with trees.disk_errors("The pool's directory cannot be made"):
            inside = self.root.is_relative_to(self._state)
            if inside and not self.root.exists() and not self._known.exists():
                self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.assert_there()
        with trees.disk_errors("The pool's directory cannot be written to"):
            if not os.access(self.root, os.W_OK):
                if os.statvfs(self.root).f_flag & os.ST_RDONLY:
                    raise StorageReadOnly("The pool's file system is read-only.")
                raise PoolUnavailable("The server's user may not write to the pool's directory.")
            for place in (self.root / OURS, self.inner):
                _make_private(place)
            for name in ("clones", "work", "trash", "locks"):
                (self.inner / name).mkdir(mode=0o700, exist_ok=True)
            self._know()

    def _know(self) -> None:
        identity = self.inner / "pool-id"
        if not identity.exists():
            fresh = self.inner / "work" / f"pool-id.{secrets.token_hex(8)}"
            fresh.write_text(secrets.token_hex(16))
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(fresh, identity)
            fresh.unlink()
        if not self._known.exists():
            self._known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._known, _read(identity), self._known.parent)

    # --- locks ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(
        self, relative: str, *, shared: bool = False, taken: CoppiceError | None = None
    ) -> Iterator[None]:
        """Hold the name ``relative``; after some seconds ``taken`` (PoolBusy) is raised."""
        path = lock_file(self.inner / "locks", relative)
        with contextlib.ExitStack() as stack:
            with trees.disk_errors("A lock cannot be made in the pool"):
                try:
                    stack.enter_context(held(path, shared=shared, patience=PATIENCE))
                except Taken:
                    raise taken or PoolBusy(f"Somebody else works on {relative}.") from None
            yield

    @contextlib.contextmanager
    def temporary(self, kind: str) -> Iterator[Path]:
        """A new, empty directory in ``work`` or ``trash``, gone afterwards.

        Its lock is taken before it is made, so sweep() knows a living one from a dead one.
        """
        name = secrets.token_hex(8)
        path = self.inner / kind / name
        with self.lock(f"{kind}.{name}"):
            try:
                with trees.disk_errors("The pool's directory cannot be written to"):
                    path.mkdir(mode=0o700)
                yield path
            finally:
                if path.exists():
                    trees.remove(path, seconds=self.seconds)

    def sweep(self) -> list[str]:
        self.assert_there()
        gone = []
        for kind in ("work", "trash"):
            place = self.inner / kind
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                lock = lock_file(self.inner / "locks", f"{kind}.{path.name}")
                with contextlib.suppress(Taken), held(lock):
                    trees.remove(path, seconds=self.seconds)
                    gone.append(f"{self.root}/{INNER}/{kind}/{path.name}")
        self._sweep_notes()
        tidy(self.inner / "locks")
        return gone

    def _sweep_notes(self) -> None:
        """Of clones that are gone, or that never came to stand where their note says."""
        place = self.inner / "clones"
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = unquote(path.stem)
            with contextlib.suppress(Taken), held(lock_file(self.inner / "locks", name)):
                if self.origin_of(name) is None:
                    path.unlink(missing_ok=True)

    # --- what was cloned from what -------------------------------------------------------------

    def note_clone(self, name: str, origin: str, tree: Path, work: Path) -> None:
        """Write down that ``tree``, soon to be ``name``, is a clone of ``origin@base``.

        With its inode number: a directory that somebody makes later under this name is none.
        """
        note = {"origin": origin, "inode": tree.stat(follow_symlinks=False).st_ino}
        replace_file(self._note(name), json.dumps(note), work)

    def forget_clone(self, name: str) -> None:
        self._note(name).unlink(missing_ok=True)

    def origin_of(self, name: str) -> str | None:
        """The relative name that the living clone ``name`` comes from."""
        try:
            note = json.loads(self._note(name).read_text())
            there = self.path(name).stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(there.st_mode) or there.st_ino != note["inode"]:
            return None
        return str(note["origin"])

    def clones(self) -> dict[str, str]:
        """Each living clone, and the relative name that it comes from."""
        place = self.inner / "clones"
        names = [unquote(path.stem) for path in place.iterdir()] if place.is_dir() else []
        found = {name: self.origin_of(name) for name in sorted(names)}
        return {name: origin for name, origin in found.items() if origin is not None}

    def _note(self, name: str) -> Path:
        return self.inner / "clones" / f"{quote(name, safe='')}.json"

    def aliases(self) -> dict[str, str]:
        """Each alias that is ours, and the relative name of the generation it leads to."""
        found = {}
        for path in self.root.iterdir():
            if path.name.endswith(f"@{BASE}") and (target := leads_to(path)) is not None:
                found[path.name.removesuffix(f"@{BASE}")] = target
        return found


def leads_to(link: Path) -> str | None:
    """The generation that a symlink in the root leads to; None for all else (not ours)."""
    if not link.is_symlink():
        return None
    target = str(link.readlink())
    if not target.startswith(f"{OURS}/") or not target.endswith(f"@{BASE}"):
        return None
    return target.removesuffix(f"@{BASE}")


def replace_file(path: Path, text: str, work: Path) -> None:
    """Readers see the old contents or the new, and a crash leaves one of them.

    ``work``: where what a crash leaves besides is swept away; on the same file system.
    """
    fresh = work / f"{path.name}.{secrets.token_hex(8)}"
    with fresh.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def replace_link(link: Path, target: str, work: Path) -> None:
    """``link`` leads to ``target``; rename(2) puts it in place of an older link."""
    fresh = work / f"link.{secrets.token_hex(8)}"
    fresh.symlink_to(target)
    fresh.rename(link)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _make_private(place: Path) -> None:
    place.mkdir(mode=0o700, exist_ok=True)
    there = place.stat(follow_symlinks=False)
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
        raise PoolUnavailable(f"{place.name} in the pool is not a directory of the server's user.")
    if stat.S_IMODE(there.st_mode) != 0o700:
        place.chmod(0o700)
