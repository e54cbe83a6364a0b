"""Reload: pool and log are reconciled; one event says how they differed and what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db import transaction

from templates_app import findings, store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import EventConflict
from templates_app.events import DomainEvent, Finding, Fixed, Meta, Recorded, Reloaded
from templates_app.models import Event
from templates_app.services import common, comparison, noticed, repairs, verifying

#: Generations, by template and number.
_Generations = set[tuple[str, int | None]]
#: What was repaired, by code and subject.
_Mended = dict[tuple[str, str], Fixed]


def reload(*, context: Meta, fix: bool = False, verify: bool = False) -> Recorded:
    """Compare pool and log; adopt hand-made templates, mark vanished ones; one event says all.

    ``fix`` repairs what is safe first; ``verify`` looks into the files of every generation, which
    takes as long as reading them. What the pool raises.
    """
    driver = common.driver()
    driver.check()
    return _reconcile(driver, fix=fix, verify=verify, mended={}, context=context)


@common.decided_anew
def _reconcile(
    driver: DatasetDriver, *, fix: bool, verify: bool, mended: _Mended, context: Meta
) -> Recorded:
    """``mended`` has, and gets, what was repaired before the pool was compared once more."""
    stream = f"pool:{settings.COPPICE_NODE}"
    version, seen = store.stream_version(stream), store.size()
    event, names, skipped = _compare(driver, fix=fix, verify=verify, mended=mended)
    with transaction.atomic():
        # Comparing takes its time. What was imported, signed or destroyed meanwhile must not be
        # judged by how it was before.
        store.lock()
        _unmoved(names, seen)
        if verify:
            event = _with_left_open(event, skipped, seen)
        (recorded,) = store.append([event], meta=context, expected={stream: version})
    return recorded


def preview(*, fix: bool = False, verify: bool = False) -> Reloaded:
    """What :func:`reload` would find and repair now. Nothing changes, no event is written."""
    driver = common.driver()
    driver.check()
    look = comparison.Look(driver)
    new = look.difference()
    would: list[tuple[Finding, repairs.Repair]] = []
    for finding in look.judged if fix else ():
        if (chosen := repairs.repair(driver, look.found, finding)) is not None:
            would.append((finding, chosen))
    if verify:
        new.findings += verifying.findings_of(look.readable())
    keys = {(finding.code, finding.subject) for finding, _ in would}
    new.findings = [one for one in new.findings if (one.code, one.subject) not in keys]
    return _event(driver, new, [_fixed(one, how.would) for one, how in would], verify)


def explained(event: DomainEvent, position: int | None = None) -> dict[str, Any]:
    """The event's data and position; each finding with whether it stops launches, and what to do.

    ``position`` is None of a preview. TypeError for any other event than ``reloaded``.
    """
    if not isinstance(event, Reloaded):
        raise TypeError(f"{event.type} is no reload")
    data = event.to_json()
    for shown, found in zip(data["findings"], event.findings, strict=True):
        shown["blocks"] = findings.stops(found.code, generation=found.generation)
        shown["nextStep"] = findings.next_step(
            found.code, template=found.template, subject=found.subject
        )
    return {**data, "position": position}


def _unmoved(names: Iterable[str], seen: int) -> None:
    streams = [f"template:{name}" for name in names]
    if moved := Event.objects.filter(stream__in=streams, position__gt=seen).first():
        raise EventConflict(f"{moved.stream} has changed while the pool was looked at.")


def _with_left_open(event: Reloaded, skipped: _Generations, seen: int) -> Reloaded:
    """The same, with what is open of files that nobody looked into now, or that somebody else has
    looked into since ``seen``: it is not cleared by a look at others. The log is locked."""
    told = {(one.code, one.subject) for one in event.findings}
    replaced = {one.template for one in event.changed}
    left = [
        noticed.again(row)
        for row in noticed.open_rows().filter(code__in=findings.DEEP)
        if (row.code, row.subject) not in told
        and row.template_name not in replaced
        and ((row.template_name, row.generation) in skipped or row.seen_position > seen)
    ]
    return dataclasses.replace(event, findings=(*event.findings, *left))


def _compare(
    driver: DatasetDriver, *, fix: bool, verify: bool, mended: _Mended
) -> tuple[Reloaded, set[str], _Generations]:
    """The event, the templates that it says something of, the generations whose files were not
    looked into."""
    why: dict[tuple[str, str], str] = {}
    if fix:
        look = comparison.Look(driver)
        look.difference(adopt=False)
        done, why = repairs.mend(driver, look.found, look.judged)
        mended |= {(one.code, one.subject): _fixed(one, how.done) for one, how in done}
    look = comparison.Look(driver)
    new = look.difference()
    skipped: _Generations = {(one.template_name, one.number) for one in look.standing}
    if verify:
        readable = list(look.readable())
        skipped -= {(one.template_name, one.number) for one in readable}
        new.findings += verifying.findings_of(readable)
    new.findings = [_with_reason(one, why.get((one.code, one.subject))) for one in new.findings]
    # What was repaired, and is broken again, is a finding.
    left = {(one.code, one.subject) for one in new.findings}
    fixed = [one for key, one in mended.items() if key not in left]
    return _event(driver, new, fixed, verify), new.names(), skipped


def _event(
    driver: DatasetDriver, new: comparison.Difference, fixed: list[Fixed], verify: bool
) -> Reloaded:
    return Reloaded(
        node=settings.COPPICE_NODE,
        pool=driver.pool,
        added=tuple(new.added),
        changed=tuple(new.changed),
        missing=tuple(new.missing),
        returned=tuple(new.returned),
        findings=tuple(new.findings),
        fixed=tuple(fixed),
        verified=verify,
    )


def _fixed(finding: Finding, done: str) -> Fixed:
    return Fixed(
        code=finding.code,
        subject=finding.subject,
        done=done,
        template=finding.template,
        generation=finding.generation,
    )


def _with_reason(finding: Finding, why: str | None) -> Finding:
    if why is None:
        return finding
    return dataclasses.replace(finding, detail=f"{finding.detail} Not repaired: {why}")
