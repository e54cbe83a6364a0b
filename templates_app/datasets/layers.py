"""The port to layer states: what a pool with cheap clones promises besides.

A **state** is a snapshot of a tree as it is after one of an image's layers, found by a **key** (of
the layers that are in it; what the key is made of is the caller's affair). States of one image lie
in one **image dataset**, below :data:`LAYERS`; an image over a known base is a clone of the base's
state, and a generation is a clone of the last. Nothing of it is a template: the log knows no state,
and all of them may be removed at any time, for the price of a slower import.

Errors are those of :mod:`templates_app.datasets.base`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from templates_app.datasets.base import Snapshot

#: The parent of all image datasets, relative to the pool's root.
LAYERS = "coppice-layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One that is whole: both digests are set in the same step in which its snapshot is made."""

    key: str  # letters, digits and dashes
    name: str  # full name of the snapshot
    tree_digest: str
    note: str  # sha256 of what is noted elsewhere about it

    @property
    def image(self) -> str:
        """The image dataset's own name, without its place."""
        return self.name.partition("@")[0].rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image dataset, for those who make room."""

    name: str  # as State.image
    states: tuple[State, ...]
    clones: tuple[str, ...]  # full names of what is cloned from its states
    used_bytes: int  # what would be free without it


class Filling(Protocol):
    """An image dataset while somebody fills it."""

    @property
    def path(self) -> Path: ...

    def keep(self, key: str, *, tree_digest: str, note: str) -> State:
        """Make a state of what the files are now. They must not be written to meanwhile."""


class LayerStore(Protocol):
    """Of one pool. For many threads and processes at once."""

    def states(self) -> list[State]:
        """All that are whole. Two may have one key: either will do."""

    def alone(self, key: str, *, patience: float) -> AbstractContextManager[None]:
        """Be the only one who makes the state of ``key``; PoolBusy after ``patience`` seconds."""

    def filling(self, image: str, over: State | None) -> AbstractContextManager[Filling]:
        """A new image dataset: empty, or a clone of a state; mounted, private, unmounted after.

        Where the block fails, what is not kept is gone, and a dataset without any state too.
        TemplateMissing if ``over`` is not there any more, Conflict if ``image`` is taken.
        """

    def generation(self, state: State, relative: str) -> Snapshot:
        """A dataset below ``coppice/`` that is a clone of ``state``, sealed, never mounted.

        Conflict if it is taken; TemplateMissing if the state is not there any more.
        """

    def images(self) -> list[Image]:
        """All image datasets, in name order."""

    def remove(self, image: str) -> None:
        """Remove an image dataset with its states. Idempotent.

        TemplateInUse if something is cloned from it, PoolBusy if it is being filled; nothing has
        changed then.
        """

    def sweep(self) -> list[str]:
        """Undo what dead processes were filling; full names of what was removed or put back."""
