"""Imports whose process is dead, or was given up: ended in the log, and undone on the pool.

What an import left on the pool is removed only by a server that has its state directory: that one
knows by the lock file that nobody writes there any more. So who takes over the lease of another
server says so in the log; the other one, when it wakes up or starts again, undoes what it made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.db import transaction

from templates_app import store
from templates_app.datasets.base import OURS, DatasetDriver, Found, alias_name, generation_name
from templates_app.errors import Interrupted
from templates_app.events import Imported, ImportFailed, Meta
from templates_app.models import Lease
from templates_app.services import common, leases
from templates_app.services.leases import Death
from templates_app.sources import leftovers

#: Datasets of an import: its generation, and what it moved out of its way (number 0).
_MADE = re.compile(rf"{OURS}/(?P<name>.+)-g(?P<number>[0-9]+)-(?P<import_id>[0-9a-f]{{8}})")


def end_if_dead(row: Lease, *, context: Meta) -> bool:
    """If the holder is dead: undo what it left, say so in the log, remove the lease."""
    with leases.dead(row) as death:
        if death is None:
            return False
        undone: list[str] = []
        if death is Death.DIED:
            undone = leftovers.clean(common.source_context(), row.import_id)
            store.settled()
            if not _finished(row.import_id) and row.dataset:
                _undo(common.driver(), row.template_name, row.import_id, [row.dataset], undone)
        # At once: a process that dies here leaves both or none. Under the log's lock, so that a
        # holder that was only silent has its event in the log before this, or never.
        with transaction.atomic():
            store.lock()
            if not leases.take_away(row, death):
                return False
            # Else it died between its event and its alias, which recovery moves; or when it had
            # failed, and said so.
            if not store.about("import", row.import_id, types=(Imported.type, ImportFailed.type)):
                store.append([_failure(row, death, undone)], meta=context)
        if death is Death.DIED:
            leases.forget(row.import_id)
    return True


def undo_abandoned(
    driver: DatasetDriver, found: Iterable[Found], import_id: str, *, dry_run: bool
) -> list[str]:
    """Undo what an import of this state directory left that has no lease any more; what was undone.

    Another server took the lease over; this one died just before it had it, or just after; or it
    could not undo all when the import failed.
    """
    undone: list[str] = []
    with leases.claimed(import_id) as free:
        # Asked now: it may have begun since it was found.
        if not free or Lease.objects.filter(import_id=import_id).exists():
            return []
        made = [match for one in found if (match := _MADE.fullmatch(one.relative))]
        mine = [match for match in made if match["import_id"] == import_id]
        store.settled()
        if mine and not _finished(import_id):
            datasets = [match[0] for match in mine if match["number"] != "0"]
            if dry_run:
                undone += [f"dataset {dataset}" for dataset in datasets]
            else:
                _undo(driver, mine[0]["name"], import_id, datasets, undone)
        if not dry_run:
            leases.forget(import_id)
    return undone


def _finished(import_id: str) -> bool:
    return bool(store.about("import", import_id, types=(Imported.type,)))


def _undo(
    driver: DatasetDriver, template: str, import_id: str, datasets: list[str], undone: list[str]
) -> None:
    for dataset in datasets:
        driver.destroy(dataset)
        undone.append(f"dataset {dataset}")
    # A hand-made dataset that the dead import had moved out of the way goes back to its place.
    state = common.state_of(template)
    if state.current is not None and state.current.adopted:
        aside = generation_name(template, 0, import_id)
        if driver.snapshot(aside) is not None:
            driver.move(aside, alias_name(template))
            undone.append(f"move of {alias_name(template)}")


def _failure(row: Lease, death: Death, undone: list[str]) -> ImportFailed:
    detail = f"The process that ran it on {row.node} died."
    if death is Death.SILENT:
        detail = f"Nothing was heard of {row.node}, which ran it: its lease was taken over."
    return ImportFailed(
        template=row.template_name,
        import_id=row.import_id,
        reference=row.reference,
        stage=row.stage,
        code=Interrupted.code,
        reason=None,
        detail=detail,
        digest=None,
        undone=tuple(undone),
        leftovers=(),
    )
