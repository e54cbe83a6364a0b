"""What lies on the pool under names of Coppice's, and is nothing that the log knows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from templates_app import store
from templates_app.datasets.base import OURS, DatasetDriver, Found, alias_name, sandbox_name
from templates_app.errors import MalformedName
from templates_app.events import Finding, ImportFailed
from templates_app.models import Generation, Lease, Sandbox
from templates_app.names import TemplateName
from templates_app.services import intents, ready, removal

#: datasets.base.generation_name, taken apart. Imports count from 1: what is called g0 was made by
#: hand, and only moved aside by an import.
_GENERATION = re.compile(rf"{OURS}/(?P<template>.+)-g[1-9][0-9]*-(?P<import_id>[0-9a-f]{{8}})")


def is_ours(driver: DatasetDriver, one: Found) -> bool:
    """Whether it is a clone that Coppice, or somebody by hand, made of something below OURS."""
    return bool(one.origin and one.origin.startswith(driver.full_name(OURS) + "/"))


def noted() -> set[str]:
    """Relative names of the clones that launches are about, and of those that wait for one.

    In this order: what waits gets the note of a launch before it loses its own.
    """
    return {sandbox_name(sandbox_id) for sandbox_id in [*ready.ids(), *intents.noted()]}


def strangers(
    driver: DatasetDriver, found: dict[str, Found], sandboxes: Collection[str]
) -> Iterator[Finding]:
    """Orphans among the generations, and what holds the names of sandboxes and templates.

    ``sandboxes``: full names of those that the log had, and relative ones of those that were noted,
    before the pool was looked at. The notes are asked after it again, and the log last: what was
    being made then has a lease or a note still, or else an event by now.
    """
    known = {*sandboxes, *noted()}
    leased = set(Lease.objects.values_list("dataset", flat=True))
    in_log = dict(Generation.objects.values_list("dataset", "destroyed_position"))
    live = Sandbox.objects.filter(destroyed_at__isnull=True)
    known.update(live.values_list("dataset", flat=True))
    for relative, one in sorted(found.items()):
        if relative.startswith(f"{OURS}/"):
            if relative not in leased and not removal.is_aside(relative):
                yield from _among_generations(one, in_log)
        elif relative.endswith(alias_name("")):
            yield from _odd_name(relative, one)
        elif relative.startswith(sandbox_name("")) and not {one.name, relative} & known:
            yield _as_sandbox(driver, one)


def _among_generations(one: Found, in_log: dict[str, int | None]) -> Iterator[Finding]:
    if not one.is_dataset:
        if one.name not in in_log:
            detail = "It stands among the generations."
            yield Finding(code="directory_not_dataset", subject=one.name, detail=detail)
    elif one.name not in in_log:
        failed = left_by(one)
        detail = "Neither the log nor a running import knows it."
        if failed is not None:
            detail = f"An import of {failed} that failed (by the log) left it."
        yield Finding(code="orphan_dataset", subject=one.name, detail=detail)
    elif (position := in_log[one.name]) is not None:
        detail = f"Event {position} has it as gone."
        yield Finding(code="orphan_dataset", subject=one.name, detail=detail)


def left_by(one: Found) -> str | None:
    """The template whose import made this dataset and failed, by the log; else None."""
    match = _GENERATION.fullmatch(one.relative)
    if match is None:
        return None
    ended = store.about("import", match["import_id"])
    failed = bool(ended) and all(isinstance(event.event, ImportFailed) for event in ended)
    return match["template"] if failed else None


def _odd_name(relative: str, one: Found) -> Iterator[Finding]:
    """``<x>-template`` where x can be no template's name: it is never adopted."""
    try:
        TemplateName.parse(relative.removesuffix(alias_name("")))
    except MalformedName as error:
        yield Finding(code="unknown_dataset", subject=one.name, detail=error.detail)


def _as_sandbox(driver: DatasetDriver, one: Found) -> Finding:
    if one.is_dataset and is_ours(driver, one):
        detail = f"It is a clone of {one.origin}."
        return Finding(code="orphan_sandbox", subject=one.name, detail=detail)
    detail = "It is no clone of a generation: no sandbox can have this name."
    return Finding(code="unknown_dataset", subject=one.name, detail=detail)
