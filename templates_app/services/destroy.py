"""Destroy a template: with all its generations, or (retire) without those that are in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from django.db import transaction

from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver, alias_name
from templates_app.errors import CoppiceError, ImportInProgress, TemplateInUse
from templates_app.events import Destroyed, Meta, Recorded
from templates_app.models import Lease, Sandbox
from templates_app.names import TemplateName
from templates_app.services import common, dead_imports, ready, removal

logger = logging.getLogger("coppice.destroy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A generation that stays for what is cloned from it."""

    generation: int
    dataset: str  # full name
    clones: list[str]  # full names


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a destroy does, or would do. ``datasets``: full names of what goes, in that order."""

    datasets: list[str]
    kept: list[Kept]


def preview(*, name: str, retire: bool = False, unless: Callable[[], None] = lambda: None) -> Plan:
    """What :func:`destroy` would do now, and what it raises but ImportInProgress."""
    template = TemplateName.parse(name)
    state = common.state_of(template.text)
    lifecycle.current(state)
    unless()
    return _plan(common.driver(), state, retire)


def destroy(
    *,
    name: str,
    context: Meta,
    retire: bool = False,
    unless: Callable[[], None] = lambda: None,
) -> Recorded:
    """Remove a template with all its generations; returns the ``destroyed`` event.

    With ``retire`` the name is free at once, and generations that something is cloned from stay
    until nothing is: a sweep removes them then. ``unless`` raises where the template is not what
    the caller has seen; nothing can change between its look and the event. Raises
    TemplateNotFound, TemplateInUse (with the clones) and ImportInProgress.
    """
    template = TemplateName.parse(name)
    stream = f"template:{template}"
    version, seen = store.stream_version(stream), store.size()
    state = common.state_of(template.text)
    generation = lifecycle.current(state)
    unless()
    if (lease := Lease.objects.filter(pk=template.text).first()) is not None:
        if not dead_imports.end_if_dead(lease, context=context):
            raise ImportInProgress(f"An import of {template} is running.")
        # Ending it has written into the stream: all is read anew, with the version it belongs to.
        return destroy(name=name, context=context, retire=retire, unless=unless)
    driver = common.driver()
    plan = _plan(driver, state, retire)
    stay = [one.generation for one in plan.kept]
    event = Destroyed(
        template=template.text,
        generation=generation.number,
        datasets=tuple(plan.datasets),
        manifest_digest=generation.manifest_digest,
        kept=tuple(sorted({*stay, *(one.number for one in lifecycle.kept(state))})),
    )
    with transaction.atomic():
        (recorded,) = store.append([event], meta=context, expected={stream: version})
        # Under the log's lock: somebody may have launched it since we looked at the pool.
        launched = Sandbox.objects.filter(
            template_name=template.text, destroyed_at__isnull=True, position__gt=seen
        )
        gone = launched.exclude(generation__in=stay)
        if late := sorted(gone.values_list("dataset", flat=True)):
            raise _in_use(template.text, late)
    own = _own(state)
    origins = {one.origin for one in own.generations.values()}
    ready.clear(driver, origins.__contains__)
    if any(one.generation == generation.number for one in plan.kept):
        _put_aside(driver, own)
    for full in plan.datasets:
        relative = common.relative(driver, full)
        try:
            removal.remove(driver, own, relative)
        except CoppiceError as error:
            # The log has it as destroyed; recovery removes what a last-moment clone kept.
            logger.warning("%s is left for recovery: %s", relative, error.detail)
    return recorded


def _own(state: lifecycle.TemplateState) -> lifecycle.TemplateState:
    """The template without generations that are kept of an earlier one of its name."""
    return replace(state, generations={one.number: one for one in lifecycle.own(state)})


def _plan(driver: DatasetDriver, state: lifecycle.TemplateState, retire: bool) -> Plan:
    own = _own(state)
    datasets = removal.datasets(driver, own)
    clones = removal.clones(driver, datasets)
    if clones and not retire:
        raise _in_use(state.name, clones)
    kept = _kept(driver, own) if clones else []
    # Its number, 0, and often its place are those of whatever is made by hand there next.
    if by_hand := [one for one in kept if own.generations[one.generation].adopted]:
        clones = by_hand[0].clones
        raise TemplateInUse(
            f"Generation 0 of {state.name} was made by hand, and cannot be kept for its"
            f" {len(clones)} clone(s) without its name.",
            extra={"clones": clones},
        )
    stay = {one.dataset for one in kept}
    if driver.dependents(alias_name(state.name)):
        stay.add(driver.full_name(alias_name(state.name)))  # it is moved aside for them
    full = [driver.full_name(relative) for relative in datasets]
    return Plan(datasets=[one for one in full if one not in stay], kept=kept)


def _kept(driver: DatasetDriver, own: lifecycle.TemplateState) -> list[Kept]:
    kept = []
    for one in own.generations.values():
        users = removal.users(driver, own.name, common.relative(driver, one.dataset))
        if users:
            kept.append(Kept(generation=one.number, dataset=one.dataset, clones=users))
    return kept


def _put_aside(driver: DatasetDriver, own: lifecycle.TemplateState) -> None:
    """The alias of a generation that stays does not stand under the name any more."""
    leading = [common.relative(driver, one.dataset) for one in own.generations.values()]
    try:
        driver.unpoint(alias_name(own.name), leading, aside=True)
    except CoppiceError as error:
        logger.warning("the alias of %s is left for recovery: %s", own.name, error.detail)


def _in_use(name: str, clones: list[str]) -> TemplateInUse:
    return TemplateInUse(
        f"{name} cannot be destroyed: {len(clones)} clone(s) depend on it.",
        hint="Destroy the clones first: coppice sandbox destroy ID. Or take the name away and keep"
        f" the bytes until the last clone is gone: coppice tpl destroy {name} --retire",
        extra={"clones": clones},
    )
