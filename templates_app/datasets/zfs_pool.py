"""The ground that the ``zfs:`` driver stands on: the root dataset and what lies below it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from templates_app.datasets.base import BASE, OURS, Found, Snapshot, Space, Usage, checked
from templates_app.datasets.layers import LAYERS
from templates_app.datasets.zfs_command import Kind, zfs
from templates_app.errors import PoolUnavailable, StorageReadOnly

#: Names of views that are open for reading. Template names have no dot.
READING = "reading."
#: Of datasets that hold what nobody has judged yet. snapdir: with "visible", which may be
#: inherited, .zfs would stand among the image's files.
LOCKED_DOWN = ("setuid=off", "exec=off", "atime=off", "snapdir=hidden") + (
    () if sys.platform.startswith("freebsd") else ("devices=off",)
)


def options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


class ZfsPool:
    """The root dataset, asked of ZFS at each use: nothing of the pool is remembered here."""

    def __init__(self, root: str) -> None:
        self.root = root

    def full_name(self, relative: str) -> str:
        return f"{self.root}/{checked(relative)}"

    def check(self) -> None:
        if not os.access(self.private_place(), os.W_OK):
            raise StorageReadOnly(f"The file system of {self.root} cannot be written to.")

    def space(self) -> Space:
        got = self.properties(self.root, "available", "used") or self.no_root()
        return Space(available_bytes=int(got["available"]), used_bytes=int(got["used"]))

    def _below(self, depth: int, keys: str) -> dict[str, dict[str, str]]:
        """Properties of what lies at most ``depth`` below the root, by relative name."""
        words = ("get", "-Hp", "-r", "-d", str(depth), "-o", "name,property,value", keys)
        out = zfs(*words, "--", self.root, expect={Kind.ABSENT})
        if not out.done:
            self.no_root()
        got: dict[str, dict[str, str]] = {}
        for name, key, value in out.rows():
            got.setdefault(name.removeprefix(self.root).lstrip("/"), {})[key] = value
        return got

    def usage(self) -> list[Usage]:
        got = self._below(2, "type,used,usedbychildren,referenced,origin")
        return [
            Usage(
                relative=relative,
                name=f"{self.root}/{relative}",
                # Not yet in a dataset that was unmounted a moment ago, but in its @base.
                referenced_bytes=max(
                    int(one["referenced"]),
                    int(got.get(f"{relative}@{BASE}", {}).get("referenced", 0)),
                ),
                unique_bytes=int(one["used"]) - int(one["usedbychildren"]),
                origin=None if one["origin"] in ("-", "") else one["origin"],
            )
            for relative, one in sorted(got.items())
            if _is_listed(relative) and not _is_view(relative) and one["type"] == "filesystem"
        ]

    def no_root(self) -> dict[str, str]:
        raise PoolUnavailable(f"The dataset {self.root} does not exist, or its pool is not there.")

    def assert_there(self) -> None:
        """Called where something is absent: that is an answer only if the root is there."""
        if self.properties(self.root, "type") is None:
            self.no_root()

    def properties(self, name: str, *keys: str) -> dict[str, str] | None:
        """Values of ``keys``, numbers exact; None if there is no ``name``."""
        words = ("get", "-Hp", "-o", "property,value", ",".join(keys), "--", name)
        out = zfs(*words, expect={Kind.ABSENT})
        return {row[0]: row[1] for row in out.rows()} if out.done else None

    def look(self, names: Sequence[str], *keys: str) -> dict[str, dict[str, str]]:
        """Values of ``keys`` of those ``names`` that are there, in one call: each costs 3 ms.

        They are looked at in this order.
        """
        words = ("get", "-Hp", "-o", "name,property,value", ",".join(keys), "--", *names)
        got: dict[str, dict[str, str]] = {}
        # Status 1 says that one is absent; the others are told all the same.
        for name, key, value in zfs(*words, expect={Kind.ABSENT}).rows():
            got.setdefault(name, {})[key] = value
        return got

    def mountpoint(self, name: str) -> Path:
        got = self.properties(name, "mountpoint") or self.no_root()
        return as_path(name, got["mountpoint"])

    def private_place(self, name: str = OURS) -> Path:
        """Make what datasets of ours live below, and see to it that nobody else can enter it.

        Returns where the root is mounted.
        """
        ours = f"{self.root}/{name}"
        both = self.look((self.root, ours), "type", "mountpoint", "canmount", "mounted", "readonly")
        # Each time: where the root is not mounted, directories that are made here would lie
        # beneath its mount point and keep it from being mounted.
        above = self._checked_root(both.get(self.root) or self.no_root())
        got = both.get(ours)
        if got is None:
            # EXISTS: another import made it at the same moment.
            zfs("create", "-o", "canmount=off", "--", ours, expect={Kind.EXISTS})
            got = self.properties(ours, "mountpoint", "readonly") or self.no_root()
        if got["readonly"] == "on":
            raise StorageReadOnly(f"The dataset {ours} has readonly=on.")
        _make_private(as_path(ours, got["mountpoint"]))
        return above

    def _checked_root(self, got: dict[str, str]) -> Path:
        if got["type"] != "filesystem":
            raise PoolUnavailable(f"{self.root} is a {got['type']}, not a file system.")
        path = as_path(self.root, got["mountpoint"])
        if got["canmount"] != "off" and got["mounted"] != "yes":
            # Directories made now would lie beneath the mount and keep it from coming back.
            hint = f"Run: zfs mount {self.root}"
            raise PoolUnavailable(f"{self.root} is not mounted.", hint=hint)
        if got["readonly"] == "on":
            raise StorageReadOnly(f"The dataset {self.root} has readonly=on.")
        return path

    def views(self) -> list[str]:
        """Relative names of all views that are there, whoever made them."""
        words = ("list", "-H", "-r", "-t", "filesystem", "-o", "name", "--", f"{self.root}/{OURS}")
        out = zfs(*words, expect={Kind.ABSENT})
        if not out.done:
            self.assert_there()
            return []
        names = [row[0].removeprefix(f"{self.root}/") for row in out.rows()]
        return [name for name in names if _is_view(name)]

    def dependents(self, relative: str) -> list[str]:
        prefix = f"{self.full_name(relative)}@"
        return sorted(name for name, origin in self.origins() if origin.startswith(prefix))

    def all_clones(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, origin in sorted(self.origins()):
            if origin not in ("-", ""):
                found.setdefault(origin.partition("@")[0], []).append(name)
        return found

    def origins(self) -> list[tuple[str, str]]:
        """Each dataset of the whole pool with its origin: a clone may be made anywhere in it.

        Pool version 23 has no ``clones`` property.
        """
        pool = self.root.partition("/")[0]
        words = ("list", "-H", "-r", "-t", "filesystem,volume", "-o", "name,origin", "--", pool)
        out = zfs(*words, expect={Kind.ABSENT})
        if not out.done:
            self.no_root()
        return [(name, origin) for name, origin in out.rows()]

    def find_all(self) -> list[Found]:
        got = self._below(3, "type,guid,referenced,origin,mounted,mountpoint")
        found = [
            self._found(relative, got)
            for relative in got
            if _is_listed(relative) and not _is_view(relative)
        ]
        try:
            found += self._plain_directories(got)
        except OSError as failed:
            raise PoolUnavailable(
                f"The directories of {self.root} cannot be read.", private=str(failed)
            ) from failed
        return sorted(found, key=lambda one: one.relative)

    def _found(self, relative: str, got: dict[str, dict[str, str]]) -> Found:
        own, base = got[relative], got.get(f"{relative}@{BASE}")
        name = f"{self.root}/{relative}"
        snapshot = None
        if base is not None:
            size = int(base["referenced"])
            snapshot = Snapshot(name=f"{name}@{BASE}", guid=base["guid"], size_bytes=size)
        return Found(
            relative=relative,
            name=name,
            base=snapshot,
            origin=None if own["origin"] in ("-", "") else own["origin"],
            mounted=own["mounted"] == "yes",
            moved_to=_moved_to(relative, own, got[""]),
        )

    def _plain_directories(self, got: dict[str, dict[str, str]]) -> list[Found]:
        """Directories that hold files where only datasets should be.

        Empty ones are what unmounted and destroyed datasets leave behind.
        """
        taken = {one["mountpoint"] for one in got.values()}
        found = []
        for prefix, name in (("", ""), (f"{OURS}/", OURS)):
            place = got.get(name, {}).get("mountpoint", "-")
            if not place.startswith("/") or not Path(place).is_dir():
                continue
            for entry in Path(place).iterdir():
                relative = f"{prefix}{entry.name}"
                if relative in got or relative == OURS or str(entry) in taken:
                    continue
                if entry.is_symlink() or not entry.is_dir() or not any(entry.iterdir()):
                    continue
                found.append(
                    Found(
                        relative=relative,
                        name=f"{self.root}/{relative}",
                        base=None,
                        origin=None,
                        mounted=False,
                        is_dataset=False,
                    )
                )
        return found


def _is_listed(relative: str) -> bool:
    """A dataset directly below the root or OURS; not a snapshot (@), not a bookmark (#).

    Nor the place of layer states: they belong to no template, and layers.py looks after them.
    """
    if "@" in relative or "#" in relative or relative in ("", OURS, LAYERS):
        return False
    return "/" not in relative.removeprefix(f"{OURS}/")


def _moved_to(relative: str, own: dict[str, str], root: dict[str, str]) -> str | None:
    """The mountpoint, if it is not where a dataset stands that inherits it from the root."""
    if own["type"] != "filesystem" or not root["mountpoint"].startswith("/"):
        return None
    place = root["mountpoint"].rstrip("/") + f"/{relative}"
    return own["mountpoint"] if own["mountpoint"] != place else None


def _is_view(relative: str) -> bool:
    return relative.startswith(f"{OURS}/{READING}")


def as_path(name: str, mountpoint: str) -> Path:
    if not mountpoint.startswith("/"):  # legacy, none, or - of a volume
        raise PoolUnavailable(
            f"{name} has mountpoint={mountpoint}; Coppice needs one that ZFS mounts by itself.",
            hint=f"Run: zfs set mountpoint=/PATH {name}",
        )
    return Path(mountpoint)


def _make_private(path: Path) -> None:
    """``path`` is a directory that only its owner, who is us, can enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = path.stat(follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
            raise PoolUnavailable(f"The place of {OURS} is not a directory of the server's user.")
        if stat.S_IMODE(there.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as failed:
        raise PoolUnavailable(
            f"The place of {OURS} cannot be made or entered.", private=str(failed)
        ) from failed
