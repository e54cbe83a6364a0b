"""What compares or removes: destroy a template, reload the pool."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from templates_app import lifecycle, store
from templates_app.datasets.base import OURS, DatasetDriver, Found, alias_name, sandbox_name
from templates_app.errors import (
    CoppiceError,
    EventConflict,
    ImportInProgress,
    MalformedName,
    TemplateInUse,
    TemplateMissing,
)
from templates_app.events import Adopted, Destroyed, Finding, Meta, Recorded, Reloaded
from templates_app.models import Event, Generation, Lease, Sandbox, Template
from templates_app.names import TemplateName
from templates_app.services import common, intents, recovery, removal
from templates_app.trust import statement, tree

logger = logging.getLogger("coppice.pool")

_ALIAS_SUFFIX = alias_name("")


def destroy(
    *,
    name: str,
    context: Meta,
    dry_run: bool = False,
    unless: Callable[[], None] = lambda: None,
) -> Recorded | list[str]:
    """Remove a template with all its generations; returns the ``destroyed`` event.

    With ``dry_run`` returns the datasets that would go. ``unless`` raises where the template is
    not what the caller has seen; nothing can change between its look and the event. Raises
    TemplateNotFound, TemplateInUse (with the clones) and ImportInProgress.
    """
    template = TemplateName.parse(name)
    stream = f"template:{template}"
    version, seen = store.stream_version(stream), store.size()
    state = common.state_of(template.text)
    generation = lifecycle.current(state)
    unless()
    lease = Lease.objects.filter(pk=template.text).first()
    if lease is not None and not dry_run:
        if not recovery.end_if_dead(lease, context=context):
            raise ImportInProgress(f"An import of {template} is running.")
        # Ending it has written into the stream: all is read anew, with the version it belongs to.
        return destroy(name=name, context=context, unless=unless)
    driver = common.driver()
    datasets = removal.datasets(driver, state)
    if clones := removal.clones(driver, datasets):
        raise _in_use(template.text, clones)
    names = [driver.full_name(relative) for relative in datasets]
    if dry_run:
        return names
    event = Destroyed(
        template=template.text,
        generation=generation.number,
        datasets=tuple(names),
        manifest_digest=generation.manifest_digest,
    )
    with transaction.atomic():
        (recorded,) = store.append([event], meta=context, expected={stream: version})
        # Under the log's lock: somebody may have launched it since we looked at the pool.
        launched = Sandbox.objects.filter(
            template_name=template.text, destroyed_at__isnull=True, position__gt=seen
        )
        if late := sorted(launched.values_list("dataset", flat=True)):
            raise _in_use(template.text, late)
    for relative in datasets:
        try:
            removal.remove(driver, state, relative)
        except CoppiceError as error:
            # The log has it as destroyed; recovery removes what a last-moment clone kept.
            logger.warning("%s is left for recovery: %s", relative, error.detail)
    return recorded


def _in_use(name: str, clones: list[str]) -> TemplateInUse:
    return TemplateInUse(
        f"{name} cannot be destroyed: {len(clones)} clone(s) depend on it.",
        extra={"clones": clones},
    )


# --- reload ------------------------------------------------------------------------------------


def reload(*, context: Meta) -> Recorded:
    """Compare pool and log; adopt hand-made templates, mark vanished ones; one event says all."""
    stream = f"pool:{settings.COPPICE_NODE}"
    driver = common.driver()
    driver.check()
    for attempt in range(common.ATTEMPTS):
        version, seen = store.stream_version(stream), store.size()
        event = _compare(driver)
        names = [one.template for one in (*event.added, *event.changed)]
        try:
            with transaction.atomic():
                # Comparing takes its time. What was imported, signed or destroyed meanwhile must
                # not be judged by how it was before.
                store.lock()
                _unmoved([*names, *event.missing, *event.returned], seen)
                (recorded,) = store.append([event], meta=context, expected={stream: version})
        except EventConflict:
            if attempt == common.ATTEMPTS - 1:
                raise
        else:
            return recorded
    raise AssertionError("unreachable")


def _unmoved(names: list[str], seen: int) -> None:
    streams = [f"template:{name}" for name in names]
    if moved := Event.objects.filter(stream__in=streams, position__gt=seen).first():
        raise EventConflict(f"{moved.stream} has changed while the pool was looked at.")


def _compare(driver: DatasetDriver) -> Reloaded:
    # The log before the pool: an import makes its dataset first and its event last, so what is in
    # the log now is on the pool already. What is being imported is not judged at all.
    known = {t.name: t for t in Template.objects.select_related("current")}
    leased = set(Lease.objects.values_list("template_name", flat=True))
    found = {one.relative: one for one in driver.find_all()}
    new = _Difference()
    for name, template in sorted(known.items()):
        if name not in leased:
            _look_at_known(driver, template, found, new)
    for relative, one in sorted(found.items()):
        hand_made = _hand_made_name(relative)
        if hand_made is not None and hand_made not in known and hand_made not in leased:
            _look_at_unknown(driver, hand_made, one, new)
    new.findings += _orphans(driver, found)
    return Reloaded(
        node=settings.COPPICE_NODE,
        pool=driver.pool,
        added=tuple(new.added),
        changed=tuple(new.changed),
        missing=tuple(new.missing),
        returned=tuple(new.returned),
        findings=tuple(new.findings),
    )


@dataclass(slots=True)
class _Difference:
    added: list[Adopted] = field(default_factory=list)
    changed: list[Adopted] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def find(self, code: str, subject: str, detail: str) -> None:
        self.findings.append(Finding(code=code, subject=subject, detail=detail))


def _look_at_known(
    driver: DatasetDriver, template: Template, found: dict[str, Found], new: _Difference
) -> None:
    name, recorded = template.name, template.current.snapshot_guid
    here = found.get(common.relative(driver, template.current.dataset))
    base = here.base if here else None
    if base is None:
        if not template.missing:
            new.missing.append(name)
        return
    if base.guid == recorded:
        if template.missing:
            new.returned.append(name)
    elif template.current.adopted:
        _adopt(driver, name, new, new.changed)
    else:
        detail = f"{base.name} has guid {base.guid}, not {recorded} as recorded: it was made anew."
        new.find("guid_changed", name, detail)
    new.findings += _alias(driver, template, found)


def _look_at_unknown(driver: DatasetDriver, name: str, one: Found, new: _Difference) -> None:
    if not one.is_dataset:
        detail = "It is a plain directory: nothing can be cloned from it."
        new.find("directory_not_dataset", one.name, detail)
    elif one.base is None:
        detail = "It has no @base: make the snapshot, then reload."
        new.find("snapshot_missing", one.name, detail)
    elif not _is_ours(driver, one):
        _adopt(driver, name, new, new.added)


def _hand_made_name(relative: str) -> str | None:
    """The template's name, where a dataset's name is ``<name>-template``."""
    if "/" in relative or not relative.endswith(_ALIAS_SUFFIX):
        return None
    try:
        return TemplateName.parse(relative.removesuffix(_ALIAS_SUFFIX)).text
    except MalformedName:
        return None


def _is_ours(driver: DatasetDriver, one: Found) -> bool:
    """Whether it is an alias that we made: a clone of something below coppice/."""
    return bool(one.origin and one.origin.startswith(driver.full_name(OURS) + "/"))


def _adopt(driver: DatasetDriver, name: str, new: _Difference, into: list[Adopted]) -> None:
    """One that cannot be adopted is a finding, and keeps no other from being adopted."""
    try:
        into.append(_adopted(driver, name))
    except CoppiceError as error:
        new.find("not_adopted", name, f"{error.code}: {error.detail}")


def _adopted(driver: DatasetDriver, name: str) -> Adopted:
    relative = alias_name(name)
    with driver.reading(relative) as path:
        made = tree.scan(path, limit_entries=settings.COPPICE_LIMIT_ENTRIES)
    snapshot = driver.snapshot(relative)
    if snapshot is None:
        raise TemplateMissing(f"{relative} vanished while it was read.")
    text = statement.build_adopted(template=name, tree_digest=made.digest)
    return Adopted(
        template=name,
        dataset=driver.full_name(relative),
        snapshot=snapshot.name,
        snapshot_guid=snapshot.guid,
        size_bytes=snapshot.size_bytes,
        entries=made.entries,
        tree_digest=made.digest,
        statement=text.decode("ascii"),
        statement_digest=statement.digest(text),
    )


def _alias(driver: DatasetDriver, template: Template, found: dict[str, Found]) -> list[Finding]:
    """The alias follows the log: move it where it does not, or say why it cannot be moved."""
    generation = template.current
    alias = found.get(alias_name(template.name))
    if generation.adopted or (alias and alias.base and alias.origin == generation.origin):
        return []
    try:
        driver.point(alias_name(template.name), common.relative(driver, generation.dataset))
    except CoppiceError as error:
        return [Finding(code="alias_stale", subject=template.name, detail=error.detail)]
    return []


def _orphans(driver: DatasetDriver, found: dict[str, Found]) -> list[Finding]:
    # In this order: what was being made when we looked at the pool has a lease or a note still, or
    # else an event by now.
    leased = set(Lease.objects.values_list("dataset", flat=True))
    launching = {sandbox_name(sandbox_id) for sandbox_id in intents.noted()}
    in_log = set(
        Generation.objects.filter(destroyed_position__isnull=True).values_list("dataset", flat=True)
    )
    live = set(Sandbox.objects.filter(destroyed_at__isnull=True).values_list("dataset", flat=True))
    orphans = []
    for relative, one in sorted(found.items()):
        if relative.startswith(f"{OURS}/"):
            known = one.name in in_log or relative in leased
            if not known and not removal.is_aside(relative):
                detail = "Neither the log nor a running import knows it."
                orphans.append(Finding(code="orphan_dataset", subject=one.name, detail=detail))
        elif relative.startswith(sandbox_name("")) and _is_ours(driver, one):
            known = one.name in live or relative in launching
            if not known and not relative.endswith(_ALIAS_SUFFIX):
                detail = "It is a clone of a generation, but the log knows no such sandbox."
                orphans.append(Finding(code="orphan_sandbox", subject=one.name, detail=detail))
    return orphans
