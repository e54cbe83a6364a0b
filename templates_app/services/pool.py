"""What compares or removes: destroy a template, reload the pool."""

from __future__ import annotations

import logging

from django.conf import settings

from templates_app import lifecycle, store
from templates_app.datasets.base import OURS, DatasetDriver, Found, alias_name
from templates_app.errors import (
    CoppiceError,
    EventConflict,
    ImportInProgress,
    MalformedName,
    TemplateInUse,
)
from templates_app.events import Adopted, Destroyed, Finding, Meta, Recorded, Reloaded
from templates_app.models import Generation, Lease, Template
from templates_app.names import TemplateName
from templates_app.services import common
from templates_app.trust import statement, tree

logger = logging.getLogger("coppice.pool")

_ALIAS_SUFFIX = alias_name("")


def destroy(*, name: str, context: Meta, dry_run: bool = False) -> Recorded | list[str]:
    """Remove a template with all its generations; returns the ``destroyed`` event.

    With ``dry_run`` returns the datasets that would go. Raises TemplateNotFound, TemplateInUse
    (with the clones) and ImportInProgress.
    """
    template = TemplateName.parse(name)
    stream = f"template:{template}"
    version = store.stream_version(stream)
    state = common.state_of(template.text)
    generation = lifecycle.current(state)
    if Lease.objects.filter(pk=template.text).exists():
        raise ImportInProgress(f"An import of {template} is running.")
    driver = common.driver()
    datasets = _datasets(driver, state)
    clones = _clones(driver, datasets)
    if clones:
        raise TemplateInUse(
            f"{template} cannot be destroyed: {len(clones)} clone(s) depend on it.",
            extra={"clones": clones},
        )
    names = [driver.full_name(relative) for relative in datasets]
    if dry_run:
        return names
    event = Destroyed(
        template=template.text,
        generation=generation.number,
        datasets=tuple(names),
        manifest_digest=generation.manifest_digest,
    )
    (recorded,) = store.append([event], meta=context, expected={stream: version})
    for relative in datasets:
        try:
            driver.destroy(relative)
        except CoppiceError as error:
            # The log has it as destroyed; recovery removes what a last-moment clone kept.
            logger.warning("%s is left for recovery: %s", relative, error.detail)
    return recorded


def _datasets(driver: DatasetDriver, state: lifecycle.TemplateState) -> list[str]:
    """Relative names in the order in which they can be destroyed: the alias is a clone."""
    generations = [common.relative(driver, g.dataset) for g in state.generations.values()]
    alias = alias_name(state.name)
    return [alias, *(relative for relative in generations if relative != alias)]


def _clones(driver: DatasetDriver, datasets: list[str]) -> list[str]:
    own = {driver.full_name(relative) for relative in datasets}
    found = {clone for relative in datasets for clone in driver.dependents(relative)}
    return sorted(found - own)


# --- reload ------------------------------------------------------------------------------------


def reload(*, context: Meta) -> Recorded:
    """Compare pool and log; adopt hand-made templates, mark vanished ones; one event says all."""
    stream = f"pool:{settings.COPPICE_NODE}"
    driver = common.driver()
    driver.check()
    for attempt in range(common.ATTEMPTS):
        version = store.stream_version(stream)
        event = _compare(driver)
        try:
            (recorded,) = store.append([event], meta=context, expected={stream: version})
        except EventConflict:
            if attempt == common.ATTEMPTS - 1:
                raise
        else:
            return recorded
    raise AssertionError("unreachable")


def _compare(driver: DatasetDriver) -> Reloaded:
    found = {one.relative: one for one in driver.find_all()}
    known = {t.name: t for t in Template.objects.select_related("current")}
    added: list[Adopted] = []
    changed: list[Adopted] = []
    missing: list[str] = []
    returned: list[str] = []
    findings: list[Finding] = []
    for name, template in sorted(known.items()):
        here = found.get(common.relative(driver, template.current.dataset))
        base = here.base if here else None
        if base is None:
            if not template.missing:
                missing.append(name)
            continue
        if base.guid == template.current.snapshot_guid:
            if template.missing:
                returned.append(name)
        elif template.current.adopted:
            changed.append(_adopt(driver, name))
        else:
            findings.append(
                Finding(
                    code="guid_changed",
                    subject=name,
                    detail=f"{base.name} has guid {base.guid}, not {template.current.snapshot_guid}"
                    " as recorded: somebody made it anew.",
                )
            )
        findings += _alias(driver, template, found)
    for relative, one in sorted(found.items()):
        hand_made = _hand_made_name(relative)
        if hand_made is None or hand_made in known:
            continue
        if not one.is_dataset:
            findings.append(
                Finding(
                    code="directory_not_dataset",
                    subject=one.name,
                    detail="It is a plain directory: nothing can be cloned from it.",
                )
            )
        elif one.base is None:
            findings.append(
                Finding(
                    code="snapshot_missing",
                    subject=one.name,
                    detail="It has no @base: make the snapshot, then reload.",
                )
            )
        elif not _is_ours(driver, one):
            added.append(_adopt(driver, hand_made))
    findings += _orphans(driver, found)
    return Reloaded(
        node=settings.COPPICE_NODE,
        pool=driver.pool,
        added=tuple(added),
        changed=tuple(changed),
        missing=tuple(missing),
        returned=tuple(returned),
        findings=tuple(findings),
    )


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


def _adopt(driver: DatasetDriver, name: str) -> Adopted:
    relative = alias_name(name)
    with driver.reading(relative) as path:
        made = tree.scan(path, limit_entries=settings.COPPICE_LIMIT_ENTRIES)
    snapshot = driver.snapshot(relative)
    if snapshot is None:
        raise EventConflict(f"{relative} vanished while it was read.")
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
    in_log = set(
        Generation.objects.filter(destroyed_position__isnull=True).values_list("dataset", flat=True)
    )
    leased = set(Lease.objects.values_list("dataset", flat=True))
    return [
        Finding(
            code="orphan_dataset",
            subject=one.name,
            detail="Neither the log nor a running import knows it.",
        )
        for relative, one in sorted(found.items())
        if relative.startswith(f"{OURS}/") and one.name not in in_log and relative not in leased
    ]
