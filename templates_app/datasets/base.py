"""The port to a pool: what a dataset driver promises.

Names that go in are relative to the pool's root (``coppice/fbsd14-min-g1-3f2a9c01``,
``fbsd14-min-template``, ``sandbox-3f2a``); names that come out are full ones, as the pool's own
tools write them (``zroot/jails/fbsd14-min-template@base``). Every method is idempotent where its
description says so, has a timeout, and raises only errors of ``templates_app.errors``:
``PoolUnavailable``, ``PoolBusy``, ``OutOfSpace``, ``StorageReadOnly``, ``ProgramMissing``,
``ProgramKilled``, ``ProgramFailed``, ``TemplateInUse``, ``TemplateMissing``, ``SandboxExists``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: The parent of all generations, relative to the pool's root.
OURS = "coppice"
#: The name of the one snapshot that a template has.
BASE = "base"


def generation_name(template: str, number: int, import_id: str) -> str:
    """Relative name of a generation's dataset; ``import_id`` is eight hex digits."""
    return f"{OURS}/{template}-g{number}-{import_id}"


def alias_name(template: str) -> str:
    return f"{template}-template"


def sandbox_name(sandbox_id: str) -> str:
    return f"sandbox-{sandbox_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A file system of the pool, mounted at ``path`` where it is mounted at all."""

    name: str  # full
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    name: str  # full, with @base
    guid: str  # decimal text of an unsigned 64-bit number; another one whenever it is made anew
    size_bytes: int  # what the snapshot references


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of :meth:`DatasetDriver.find_all`."""

    relative: str
    name: str
    base: Snapshot | None  # its @base, where it has one
    origin: str | None  # full name of the snapshot that it is a clone of
    mounted: bool
    is_dataset: bool = True  # False: a plain directory where a dataset should be


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    available_bytes: int
    used_bytes: int


class DatasetDriver(Protocol):
    """Mechanism only: it knows no template, no log, no policy."""

    kind: str  # "zfs" or "dir"

    @property
    def pool(self) -> str:
        """``zfs:zroot/jails`` or ``dir:/srv/coppice``: as COPPICE_POOL has it."""

    def check(self) -> None:
        """Return if the pool is there and can be written to; raise PoolUnavailable otherwise."""

    def full_name(self, relative: str) -> str: ...

    def create(self, relative: str) -> Dataset:
        """An empty, mounted dataset below a place that only root can enter."""

    def seal(self, relative: str) -> Snapshot:
        """Make ``@base``, unmount, and keep it from being mounted at boot. Idempotent."""

    def snapshot(self, relative: str) -> Snapshot | None:
        """The live ``@base`` as it is now; None where the dataset or the snapshot is not there."""

    def reading(self, relative: str) -> AbstractContextManager[Path]:
        """A private, read-only view of ``relative@base``'s files; gone afterwards."""

    def point(self, alias: str, relative: str) -> Snapshot:
        """Make ``alias`` a clone of ``relative@base`` with its own ``@base``. Idempotent.

        An old alias is replaced; one that has clones made by hand is moved aside (below OURS) where
        the pool can do that, else TemplateInUse is raised and everything stays as it was.
        """

    def clone(self, relative: str, name: str) -> Dataset:
        """A mounted, writable clone of ``relative@base``. SandboxExists if the name is taken."""

    def move(self, relative: str, to: str) -> None:
        """Rename an unmounted dataset, or raise PoolBusy or TemplateInUse and change nothing."""

    def destroy(self, relative: str) -> None:
        """Remove the dataset with its @base. Idempotent. TemplateInUse if it has clones."""

    def dependents(self, relative: str) -> list[str]:
        """Full names of what is cloned from any snapshot of it, in name order."""

    def find_all(self) -> list[Found]:
        """Everything directly below the root and below OURS, in name order."""

    def space(self) -> Space: ...
