"""What start-up finishes or undoes after a crash. Every step is idempotent."""

from __future__ import annotations

import logging

from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver, alias_name
from templates_app.errors import CoppiceError, Interrupted
from templates_app.events import Imported, ImportFailed, Meta
from templates_app.models import Generation, Lease, Template
from templates_app.services import common, leases
from templates_app.sources import leftovers

logger = logging.getLogger("coppice.recovery")


def recover(*, context: Meta, dry_run: bool = False) -> list[str]:
    """End dead imports, finish half-done destroys and alias moves. Returns one sentence each."""
    done: list[str] = []
    for row in Lease.objects.order_by("template_name"):
        if dry_run:
            with leases.dead(row) as dead:
                if dead:
                    done.append(f"would end the dead import {row.import_id} of {row.template_name}")
        elif end_if_dead(row, context=context):
            done.append(f"ended the dead import {row.import_id} of {row.template_name}")
    driver = common.driver()
    done += _finish_destroys(driver, dry_run)
    done += _point_aliases(driver, dry_run)
    if not dry_run:
        alive = set(Lease.objects.values_list("import_id", flat=True))
        done += [f"removed {name}, left by a dead process" for name in driver.sweep()]
        done += leftovers.clean_all(common.source_context(), alive=alive)
    for sentence in done:
        logger.warning("recovery: %s", sentence)
    return done


def end_if_dead(row: Lease, *, context: Meta) -> bool:
    """If the holder is dead: undo what it left, say so in the log, remove the lease."""
    with leases.dead(row) as dead:
        if not dead:
            return False
        undone = leftovers.clean(common.source_context(), row.import_id)
        finished = any(
            isinstance(one.event, Imported) for one in store.about("import", row.import_id)
        )
        if not finished:
            _undo_dataset(row, undone)
            failed = ImportFailed(
                template=row.template_name,
                import_id=row.import_id,
                reference=row.reference,
                stage=row.stage,
                code=Interrupted.code,
                reason=None,
                detail=f"The process that ran it on {row.node} died.",
                digest=None,
                undone=tuple(undone),
                leftovers=(),
            )
            store.append([failed], meta=context)
        # Finished: it died between its event and its alias; _point_aliases does the rest.
        Lease.objects.filter(pk=row.pk, import_id=row.import_id).delete()
    return True


def _undo_dataset(row: Lease, undone: list[str]) -> None:
    if not row.dataset:
        return
    driver = common.driver()
    driver.destroy(row.dataset)
    undone.append(f"dataset {row.dataset}")
    # A hand-made dataset that the dead import had moved out of the way goes back to its place.
    state = common.state_of(row.template_name)
    if state.current is not None and state.current.adopted:
        aside = f"coppice/{row.template_name}-g0-{row.import_id}"
        if driver.snapshot(aside) is not None:
            driver.move(aside, alias_name(row.template_name))
            undone.append(f"move of {alias_name(row.template_name)}")


def _finish_destroys(driver: DatasetDriver, dry_run: bool) -> list[str]:
    """Datasets of generations that the log has as destroyed, and are still there."""
    on_pool = {found.name: found.relative for found in driver.find_all()}
    live = set(Template.objects.values_list("name", flat=True))
    done = []
    for generation in Generation.objects.filter(destroyed_position__isnull=False):
        alias = alias_name(generation.template_name)
        if generation.dataset in on_pool:
            done += _destroy(driver, on_pool[generation.dataset], dry_run)
        full_alias = driver.full_name(alias)
        if generation.template_name not in live and full_alias in on_pool:
            origin = next((f.origin for f in driver.find_all() if f.name == full_alias), None)
            if origin == generation.origin:
                done += _destroy(driver, alias, dry_run)
    return done


def _destroy(driver: DatasetDriver, relative: str, dry_run: bool) -> list[str]:
    if dry_run:
        return [f"would remove {relative}, destroyed by the log"]
    try:
        driver.destroy(relative)
    except CoppiceError as error:
        return [f"could not remove {relative}, destroyed by the log: {error.detail}"]
    return [f"removed {relative}, destroyed by the log"]


def _point_aliases(driver: DatasetDriver, dry_run: bool) -> list[str]:
    """Aliases that do not follow the log: moved now."""
    origins = {found.name: found.origin for found in driver.find_all() if found.base}
    done = []
    for template in Template.objects.filter(missing=False).select_related("current"):
        generation = template.current
        alias = driver.full_name(alias_name(template.name))
        if generation.adopted or origins.get(alias) == generation.origin:
            continue
        if dry_run:
            done.append(f"would point the alias of {template.name} at {generation.origin}")
            continue
        try:
            lifecycle.launchable(common.state_of(template.name))
            driver.point(alias_name(template.name), common.relative(driver, generation.dataset))
        except CoppiceError as error:
            done.append(f"could not point the alias of {template.name}: {error.detail}")
        else:
            done.append(f"pointed the alias of {template.name} at {generation.origin}")
    return done
