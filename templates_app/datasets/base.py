"""The port to a pool: what a dataset driver promises.

Names that go in are relative to the pool's root (``coppice/fbsd14-min-g1-3f2a9c01``,
``fbsd14-min-template``, ``sandbox-3f2a``); names that come out are full ones, as the pool's own
tools write them (``zroot/jails/fbsd14-min-template@base``). Every method is idempotent where its
description says so, has a timeout, and raises only errors of ``templates_app.errors``:
``PoolUnavailable``, ``PoolBusy``, ``OutOfSpace``, ``StorageReadOnly``, ``ProgramMissing``,
``ProgramKilled``, ``ProgramFailed``, ``ImportTimeout``, ``TemplateInUse``, ``TemplateMissing``,
``SandboxExists``, ``AdoptedInTheWay``, ``Conflict`` (a name that should be free is taken). What is
not there is told from what cannot be seen: "absent" is an answer only while the pool itself is
there. All methods may be called from many threads and processes at once.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from templates_app.errors import CoppiceError, TemplateInUse

if TYPE_CHECKING:
    from templates_app.datasets.layers import LayerStore

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


def is_name(relative: str) -> bool:
    """Whether ``relative`` can only mean something below the pool's root."""
    parts = relative.split("/")
    odd = any(part in ("", ".", "..") or part.startswith("-") for part in parts)
    return not odd and not set(relative) & set("@#\0\n\t")


def checked(relative: str) -> str:
    """``relative`` if it is a name; ValueError otherwise.

    Names reach a driver parsed, or from its own ``find_all``; this is the second lock on the door.
    """
    if not is_name(relative):
        raise ValueError(f"{relative!r} is not a name below the pool's root")
    return relative


def in_use(what: str, clones: list[str]) -> CoppiceError:
    """The refusal that every driver gives for a dataset with clones; ``clones`` are full names."""
    return TemplateInUse(
        f"{what} has {len(clones)} clone(s): {', '.join(clones[:5])}"
        f"{', …' if len(clones) > 5 else ''}.",
        extra={"clones": clones},
    )


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
class Clone(Dataset):
    origin: Snapshot  # as it was seen after the clone had been made of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of :meth:`DatasetDriver.find_all`."""

    relative: str
    name: str
    base: Snapshot | None  # its @base, where it has one
    origin: str | None  # full name of the snapshot that it is a clone of
    mounted: bool
    is_dataset: bool = True  # False: a plain directory where a dataset should be
    moved_to: str | None = None  # its mountpoint, where that is not its place below the root


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    available_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one dataset takes of the pool's disk, in bytes."""

    relative: str
    name: str  # full
    referenced_bytes: int  # all that its files and its snapshots' hold
    unique_bytes: int  # of that, what would be free without it and whatever is cloned from it
    origin: str | None  # full name of the snapshot that it shares the rest with


class DatasetDriver(Protocol):
    """Mechanism only: it knows no template, no log, no policy."""

    kind: str  # "zfs" or "dir"

    @property
    def layers(self) -> LayerStore | None:
        """Where layer states are kept; None on a pool whose clones are full copies."""

    @property
    def pool(self) -> str:
        """``zfs:zroot/jails`` or ``dir:/srv/coppice``: as COPPICE_POOL has it."""

    def check(self) -> None:
        """Return if the pool is there and can be written to.

        PoolUnavailable or StorageReadOnly otherwise. Makes the place for :data:`OURS` if need be.
        """

    def full_name(self, relative: str) -> str: ...

    def create(self, relative: str) -> Dataset:
        """An empty, mounted dataset below OURS, a place that only root can enter. Conflict."""

    def writing(self, relative: str) -> AbstractContextManager[None]:
        """To be held while a created dataset is filled, so that :meth:`seal` waits less.

        May raise, in the end, what the disk said: PoolUnavailable, OutOfSpace, StorageReadOnly.
        """

    def seal(self, relative: str) -> Snapshot:
        """Make ``@base``, unmount, and keep it from being mounted at boot. Idempotent.

        TemplateMissing if there is no such dataset; PoolBusy if its files stay in use.
        """

    def snapshot(self, relative: str) -> Snapshot | None:
        """The live ``@base`` as it is now; None where the dataset or the snapshot is not there."""

    def reading(self, relative: str) -> AbstractContextManager[Path]:
        """A private view of ``relative@base``'s files, for reading; gone afterwards.

        While it lasts the dataset cannot be destroyed. TemplateMissing.
        """

    def point(self, alias: str, relative: str) -> None:
        """Make ``alias`` a clone of ``relative@base`` with its own ``@base``. Idempotent.

        An old alias is replaced; one that has clones made by hand is moved aside (below OURS) where
        the pool can do that, else TemplateInUse is raised and everything stays as it was.
        What this driver did not make is never touched: AdoptedInTheWay. TemplateMissing.
        """

    def stranger(self, alias: str) -> bool:
        """Whether something that this driver did not make stands where ``alias`` would be."""

    def unpoint(self, alias: str, relatives: Collection[str], *, aside: bool = False) -> None:
        """``alias`` is gone if it leads to one of the generations ``relatives``. Idempotent.

        What leads elsewhere, or was not made by this driver, is not touched. TemplateInUse if
        somebody cloned from it by hand; with ``aside`` only where the pool cannot move it, as
        :meth:`point` does.
        """

    def clone(self, relative: str, name: str, *, drawn: bool = False) -> Clone:
        """A mounted, writable clone of ``relative@base``; never a half one.

        Its ``origin`` says which snapshot it was made of: looked at afterwards, when that cannot
        be replaced any more without the clone in its way (``dir:``: without its being seen).
        ``drawn``: ``name`` was drawn for it, so whatever is called so is this clone.
        SandboxExists if the name is taken, TemplateMissing if there is no such ``@base``.
        """

    def cloned(self, relative: str, name: str) -> Clone | None:
        """The clone of ``relative@base`` called ``name`` as it is now.

        None if what is called so is none of it, or cannot be used (not mounted, read-only).
        """

    def move(self, relative: str, to: str) -> None:
        """Rename a dataset with its ``@base``; its guid stays, and clones follow.

        PoolBusy or TemplateInUse where the pool refuses, and then nothing has changed. Conflict if
        ``to`` is taken, TemplateMissing if there is no ``relative``.
        """

    def destroy(self, relative: str) -> None:
        """Remove the dataset with its snapshots. Idempotent.

        TemplateInUse if it has clones or datasets below it, PoolBusy if its files are in use; then
        nothing has changed.
        """

    def dependents(self, relative: str) -> list[str]:
        """Full names of what is cloned from any snapshot of it, in name order.

        Aliases are clones too. Empty where there is no such dataset.
        """

    def all_clones(self) -> dict[str, list[str]]:
        """The clones of each dataset that has some, all by full names; as :meth:`dependents`."""

    def place_back(self, relative: str) -> None:
        """The dataset has its place below the pool's root again, and is not mounted. Idempotent.

        PoolBusy if its files are in use elsewhere, and then nothing has changed.
        """

    def find_all(self) -> list[Found]:
        """Everything directly below the root and below OURS, in name order.

        Without the driver's own temporary things: those are for :meth:`sweep`.
        """

    def sweep(self) -> list[str]:
        """Remove temporary things whose process is dead; their names. For start-up recovery."""

    def space(self) -> Space: ...

    def usage(self) -> list[Usage]:
        """What :meth:`find_all` finds, without plain directories and links, in name order.

        ``dir:`` reads every tree for it, and cannot tell blocks that files share (reflinks): such
        a file counts in each tree.
        """
