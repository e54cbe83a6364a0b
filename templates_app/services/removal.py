"""Which datasets of a template may be removed: those that the log knows, and nobody else's.

An adopted (hand-made) generation stands under a name that an operator chose and can use again, so
there the snapshot's guid decides, not the name.
"""

from __future__ import annotations

import re

from templates_app.datasets.base import OURS, DatasetDriver, Found, alias_name
from templates_app.lifecycle import GenerationState, TemplateState
from templates_app.models import Generation
from templates_app.services import common, ready

#: What datasets/zfs.py calls an alias that it moves out of the way.
_ASIDE = re.compile(rf"{OURS}/(.+){alias_name('')}-aside-[0-9]+")


def is_it(generation: GenerationState | Generation, one: Found | None) -> bool:
    """Whether what stands at the generation's name is that generation, as far as can be told."""
    if not generation.adopted:
        return True  # its name has the import's id: nobody else uses it
    return one is not None and one.base is not None and one.base.guid == generation.snapshot_guid


def datasets(driver: DatasetDriver, state: TemplateState) -> list[str]:
    """Relative names in the order in which they can be destroyed: the alias is a clone."""
    alias = alias_name(state.name)
    found = driver.find_all()
    on_pool = {one.name: one for one in found}
    standing = [g for g in state.generations.values() if is_it(g, on_pool.get(g.dataset))]
    generations = [common.relative(driver, g.dataset) for g in standing]
    ours = [] if alias in generations or driver.stranger(alias) else [alias]
    old = [one for one in asides(driver, found) if aside_of(one) == state.name]
    return [*ours, *old, *generations]


def asides(driver: DatasetDriver, found: list[Found]) -> list[str]:
    """Old aliases that were kept because somebody had cloned from them by hand, and are free now.

    One that still has clones is not ours to remove, and keeps its generation in use.
    """
    kept = [one.relative for one in found if aside_of(one.relative)]
    return [aside for aside in kept if not driver.dependents(aside)]


def is_aside(relative: str) -> bool:
    return aside_of(relative) is not None


def aside_of(relative: str) -> str | None:
    """The template whose alias it was."""
    match = _ASIDE.fullmatch(relative)
    return match and match[1]


def remove(driver: DatasetDriver, state: TemplateState, relative: str) -> None:
    """Remove one of :func:`datasets`. What the pool raises."""
    generations = {common.relative(driver, g.dataset) for g in state.generations.values()}
    if relative == alias_name(state.name) and relative not in generations:
        driver.unpoint(relative, generations)
    else:
        driver.destroy(relative)


def clones(driver: DatasetDriver, relatives: list[str]) -> list[str]:
    """Full names of what is cloned from these datasets and is none of them, nor waits ready."""
    own = {driver.full_name(relative) for relative in relatives} | ready.names(driver)
    found = {clone for relative in relatives for clone in driver.dependents(relative)}
    return sorted(found - own)


def users(driver: DatasetDriver, name: str, relative: str) -> list[str]:
    """What keeps a generation of ``name`` in use, full names: its clones, and those of aliases.

    Not what waits ready for a launch: that is given back for whoever needs it gone.
    """
    spare = ready.names(driver)
    found: list[str] = []
    for full in driver.dependents(relative):
        clone = common.relative(driver, full)
        alias = clone == alias_name(name) or is_aside(clone)
        found += driver.dependents(clone) if alias else [full]
    return sorted(set(found) - spare)
