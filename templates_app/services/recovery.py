"""What start-up finishes or undoes after a crash. Every step is idempotent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from django.db.models import Q

from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver, Found, alias_name, sandbox_name
from templates_app.errors import CoppiceError, SandboxBusy
from templates_app.events import Meta, SandboxDestroyed
from templates_app.models import Generation, Lease, Sandbox, Template
from templates_app.services import (
    common,
    dead_imports,
    generations,
    intents,
    layers,
    leases,
    ledger_files,
    ready,
    removal,
)
from templates_app.sources import leftovers

logger = logging.getLogger("coppice.recovery")


def recover(*, context: Meta, dry_run: bool = False) -> list[str]:
    """End dead imports and launches, finish half-done destroys and alias moves.

    Returns one sentence each, also for what could not be done: that stops nothing else.
    """
    done: list[str] = []
    for row in Lease.objects.order_by("template_name"):
        with _said(done, f"end the import {row.import_id} of {row.template_name}"):
            if dry_run:
                with leases.dead(row) as dead:
                    if dead:
                        done.append(_would_end(row))
            elif dead_imports.end_if_dead(row, context=context):
                done.append(f"ended the dead import {row.import_id} of {row.template_name}")
    driver = common.driver()
    for note in ready.notes():
        name = sandbox_name(note.sandbox_id)
        with _said(done, f"give back {name}"):
            if ready.give_back(driver, note, sure=True, dry_run=dry_run):
                would = "would remove" if dry_run else "removed"
                done.append(f"{would} {name}, which waited for a launch")
    found = driver.find_all()
    for import_id in leases.without_a_lease():
        with _said(done, f"undo the import {import_id}"):
            undone = dead_imports.undo_abandoned(driver, found, import_id, dry_run=dry_run)
            would = "would undo" if dry_run else "undone"
            done += [f"{would}: {one}, of an import that has no lease any more" for one in undone]
    _finish_launches(driver, done, dry_run)
    _finish_endings(driver, context, done, dry_run)
    finish_destroys(driver, found, done, dry_run)
    _point_aliases(driver, found, done, dry_run)
    if not dry_run:
        with _said(done, "sweep the pool"):
            done += [f"removed {name}, left by a dead process" for name in driver.sweep()]
        with _said(done, "sweep the layer states"):
            swept = driver.layers.sweep() if driver.layers is not None else []
            done += [f"removed what a dead import was filling in {name}" for name in swept]
        with _said(done, "prune the layer states"):
            gone = layers.prune().gone
            done += [f"removed {one.image.name}, which no template needs" for one in gone]
        with _said(done, "sweep the checkpoints"):
            done += [f"removed {name}, a half-written checkpoint" for name in ledger_files.sweep()]
        with _said(done, "clear container storage"):
            alive = set(Lease.objects.values_list("import_id", flat=True))
            done += leftovers.clean_all(common.source_context(), alive=alive)
        intents.tidy_locks()
    for sentence in done:
        logger.warning("recovery: %s", sentence)
    return done


def _would_end(row: Lease) -> str:
    return f"would end the dead import {row.import_id} of {row.template_name}"


@contextmanager
def _said(done: list[str], what: str) -> Iterator[None]:
    """A failure in the block is a sentence of ``done``, and the block's end."""
    try:
        yield
    except CoppiceError as error:
        logger.warning("could not %s", what, extra={"code": error.code, "private": error.private})
        done.append(f"could not {what}: {error.detail}")
    except OSError as error:
        done.append(f"could not {what}: {error.strerror or type(error).__name__}")


def _finish_launches(driver: DatasetDriver, done: list[str], dry_run: bool) -> None:
    """Clones of launches whose process died before their event."""
    for sandbox_id, origin in intents.noted().items():
        relative = sandbox_name(sandbox_id)
        with (
            _said(done, f"end the launch of sandbox {sandbox_id}"),
            suppress(SandboxBusy),  # it is alive
            intents.alone(sandbox_id, patience=0),
        ):
            # Looked at within: a launch may have made its clone since the pool was looked at last.
            one = next((one for one in driver.find_all() if one.relative == relative), None)
            store.settled()
            known = Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).exists()
            # By its origin too: what somebody else made under this name is not ours.
            if one is not None and one.origin == origin and not known:
                if dry_run:
                    done.append(f"would remove {relative}, a clone that no event knows")
                    continue
                driver.destroy(relative)
                done.append(f"removed {relative}, a clone that no event knows")
            if not dry_run:
                intents.forget(sandbox_id)


def _finish_endings(driver: DatasetDriver, context: Meta, done: list[str], dry_run: bool) -> None:
    """Ends of sandboxes whose process died before their event: nobody can use what is left."""
    for sandbox_id, version in intents.ending().items():
        with (
            _said(done, f"finish the end of sandbox {sandbox_id}"),
            suppress(SandboxBusy),  # it is alive
            intents.alone(sandbox_id, patience=0),
        ):
            store.settled()
            row = Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).first()
            if version != store.stream_version(f"sandbox:{sandbox_id}"):
                row = None  # nothing was begun yet, or it is a later sandbox of that name
            if dry_run:
                if row is not None:
                    done.append(f"would finish the end of sandbox {sandbox_id}")
                continue
            if row is not None:
                driver.destroy(common.relative(driver, row.dataset))
                event = SandboxDestroyed(
                    sandbox=row.id, template=row.template_name, dataset=row.dataset
                )
                store.append([event], meta=context)
                done.append(f"finished the end of sandbox {sandbox_id}")
            intents.forget(sandbox_id)


def finish_destroys(
    driver: DatasetDriver, found: list[Found], done: list[str], dry_run: bool
) -> None:
    """Remove what is still there of templates and generations that the log has as gone."""
    on_pool = {one.name: one for one in found}
    live = set(Template.objects.values_list("name", flat=True))
    for generation in Generation.objects.filter(
        Q(destroyed_position__isnull=False) | Q(kept_position__isnull=False)
    ):
        alias = alias_name(generation.template_name)
        one = on_pool.get(driver.full_name(alias))
        gone = generation.template_name not in live
        if gone and one is not None and one.origin == generation.origin:
            relative = common.relative(driver, generation.dataset)
            work = partial(driver.unpoint, alias, [relative], aside=True)
            _remove(done, alias, dry_run, work)
        if generation.destroyed_position is None:
            continue  # it stays for its clones; a sweep removes it after them
        one = on_pool.get(generation.dataset)
        if one is None or not removal.is_it(generation, one):
            continue  # under an adopted one's name an operator may have made another since
        _remove(done, one.relative, dry_run, partial(driver.destroy, one.relative))


def _remove(done: list[str], relative: str, dry_run: bool, work: Callable[[], None]) -> None:
    if dry_run:
        done.append(f"would remove {relative}, destroyed by the log")
        return
    with _said(done, f"remove {relative}, destroyed by the log"):
        work()
        done.append(f"removed {relative}, destroyed by the log")


def _point_aliases(
    driver: DatasetDriver, found: list[Found], done: list[str], dry_run: bool
) -> None:
    """Aliases that do not follow the log: moved now. Then old ones that nobody needs: removed."""
    origins = {one.name: one.origin for one in found if one.base}
    for template in Template.objects.filter(missing=False).select_related("current"):
        generation = template.current
        alias = driver.full_name(alias_name(template.name))
        if generation.adopted or origins.get(alias) == generation.origin:
            continue
        what = f"the alias of {template.name} at {generation.origin}"
        if dry_run:
            done.append(f"would point {what}")
            continue
        with _said(done, f"point {what}"):
            lifecycle.launchable(common.state_of(template.name))
            generations.lead_alias(driver, template.name)  # of now: another process may be faster
            done.append(f"pointed {what}")
    with _said(done, "remove old aliases"):
        for aside in () if dry_run else removal.asides(driver, found):
            driver.destroy(aside)
            done.append(f"removed {aside}, an old alias that nothing is cloned from")
