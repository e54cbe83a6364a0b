"""The room that layer states take: which of them are needed, and what goes.

Nothing of it is in the log, for no template changes: an import makes again what it misses.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError

from templates_app import layered
from templates_app.datasets.base import DatasetDriver
from templates_app.datasets.layers import LAYERS, Image
from templates_app.errors import CoppiceError, PoolBusy, TemplateInUse
from templates_app.services import archive, common
from templates_app.trust.manifests import Texts

logger = logging.getLogger("coppice.layers")

#: What an import is taken to write for each byte of a layer as transferred. Only a guess: where it
#: is wrong, ZFS says that there is no space, and the import is undone.
_UNPACKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unneeded:
    """An image dataset that no template and no sandbox needs."""

    image: Image
    used_at: float  # seconds of the epoch; 0 where nothing is noted of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went, or with a dry run would have gone; and the bytes of unneeded ones that stay."""

    gone: tuple[Unneeded, ...]
    kept_bytes: int
    limit_bytes: int


def kept(pool: DatasetDriver) -> layered.Kept | None:
    """Where layer states are; None on a pool that has none."""
    if pool.layers is None:
        return None

    def make_room(transferred: int) -> None:
        _make_room(pool, found, transferred * _UNPACKED)

    found = layered.Kept(
        store=pool.layers,
        manifests=archive.archive().manifests,
        notes=Texts(settings.COPPICE_STATE_DIR / "layers"),
        engine=settings.COPPICE_ENGINE,
        patience=settings.COPPICE_LIMIT_STEP_SECONDS,
        make_room=make_room,
    )
    return found


def prune(*, everything: bool = False, dry_run: bool = False) -> Pruned:
    """Remove unneeded images, least recently used first, down to the limit; or all of them."""
    limit = settings.COPPICE_LIMIT_LAYERS_BYTES
    pool = common.driver()
    place = kept(pool)
    if place is None:
        if not dry_run:
            archive.forget_unnamed()
        return Pruned(gone=(), kept_bytes=0, limit_bytes=limit)
    unneeded = _unneeded(pool, place)
    stay = sum(one.image.used_bytes for one in unneeded)
    gone = []
    for one in unneeded:
        if stay <= limit and not everything:
            break
        if dry_run or _remove(place, one):
            gone.append(one)
            stay -= one.image.used_bytes
    if not dry_run:
        _forget_texts(place)
    return Pruned(gone=tuple(gone), kept_bytes=stay, limit_bytes=limit)


def _make_room(pool: DatasetDriver, place: layered.Kept, wanted: int) -> None:
    """``wanted`` bytes are free, as far as removing what nobody needs can bring that about."""
    if pool.space().available_bytes >= wanted:
        return
    for one in _unneeded(pool, place):
        if _remove(place, one):
            logger.warning("removed %s: the pool has little space left", one.image.name)
        if pool.space().available_bytes >= wanted:
            return


def _unneeded(pool: DatasetDriver, place: layered.Kept) -> list[Unneeded]:
    """Least recently used first, and never one before what is cloned from it."""
    images = {pool.full_name(f"{LAYERS}/{image.name}"): image for image in place.store.images()}
    clones = {full: set(image.clones) for full, image in images.items()}
    found: list[Unneeded] = []
    while True:
        free = [full for full, cloned in clones.items() if not cloned]
        if not free:
            return found
        used = {full: _used(place, images[full]) for full in free}
        first = min(free, key=lambda full: (used[full], full))
        found.append(Unneeded(image=images[first], used_at=used[first]))
        del clones[first]
        for cloned in clones.values():
            cloned.discard(first)


def _used(place: layered.Kept, image: Image) -> float:
    return max((place.notes.used(state.note) for state in image.states), default=0.0)


def _remove(place: layered.Kept, one: Unneeded) -> bool:
    """False where it is in use after all: it is being filled, or was cloned just now."""
    try:
        place.store.remove(one.image.name)
    except (TemplateInUse, PoolBusy) as used:
        logger.info("%s stays: %s", one.image.name, used.detail)
        return False
    return True


def _forget_texts(place: layered.Kept) -> None:
    """Notes without a state, and what neither a state nor an event names."""
    states = place.store.states()
    archive.forget(place.notes, {state.note for state in states})
    archive.forget_unnamed({state.tree_digest for state in states})


def prune_quietly() -> None:
    """After an import that has made states: whether it is done does not depend on this."""
    try:
        prune()
    except CoppiceError as error:
        logger.warning(
            "layer states could not be pruned: %s",
            error.detail,
            extra={"code": error.code, "private": error.private},
        )
    except (DatabaseError, OSError) as error:
        logger.warning("layer states could not be pruned: %s", error)
