"""Remove generations that are not current, not retained, and that nothing is cloned from."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import CoppiceError, EventConflict, TemplateInUse
from templates_app.events import Meta, Retired
from templates_app.models import Generation, Sandbox, Template
from templates_app.services import common, generations, ready, recovery, removal

logger = logging.getLogger("coppice.sweep")


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """A generation beyond those that are retained. ``clones``: what it stays for."""

    template: str
    generation: int
    dataset: str  # full name
    clones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What went, or with a dry run would have gone; what stays for its clones; what went wrong.

    ``finished``: sentences about what earlier sweeps and destroys had to leave.
    """

    gone: list[One] = field(default_factory=list)
    in_use: list[One] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


def sweep(*, context: Meta, dry_run: bool = False) -> Swept:
    """Retire what COPPICE_RETAIN_GENERATIONS does not keep; one ``retired`` event for each.

    What cannot be done of one template is said, and keeps nothing else from being done.
    """
    driver = common.driver()
    driver.check()
    swept = Swept()
    if not dry_run:
        current = set(Template.objects.values_list("current__origin", flat=True))
        ready.clear(driver, lambda origin: origin not in current)
    recovery.finish_destroys(driver, driver.find_all(), swept.finished, dry_run)
    for name in _names():
        try:
            _sweep_template(driver, name, context, dry_run, swept)
        except CoppiceError as error:
            logger.warning("%s is not swept: %s", name, error.detail, extra={"code": error.code})
            swept.failed.append(f"{name}: {error.code}: {error.detail}")
    return swept


def _names() -> list[str]:
    """Of templates, and of those that are destroyed and have a generation that is kept."""
    kept = Generation.objects.filter(kept_position__isnull=False, destroyed_position__isnull=True)
    names = {*Template.objects.values_list("name", flat=True)}
    return sorted(names | {*kept.values_list("template_name", flat=True)})


def _sweep_template(
    driver: DatasetDriver, name: str, context: Meta, dry_run: bool, swept: Swept
) -> None:
    retain = settings.COPPICE_RETAIN_GENERATIONS
    beyond = lifecycle.sweepable(common.state_of(name), retain=retain)
    if beyond and not dry_run:
        generations.point_alias(driver, name)  # one that was left behind is a clone, too
    for generation in beyond:
        relative = common.relative(driver, generation.dataset)
        clones = removal.users(driver, name, relative)
        one = One(
            template=name,
            generation=generation.number,
            dataset=generation.dataset,
            clones=tuple(clones),
        )
        if clones:
            swept.in_use.append(one)
        elif dry_run or _retire(driver, name, generation, context):
            swept.gone.append(one)


def _retire(
    driver: DatasetDriver, name: str, generation: lifecycle.GenerationState, context: Meta
) -> bool:
    """The event, then the dataset. False where it is in use, or to be kept, after all."""
    relative = common.relative(driver, generation.dataset)
    stream = f"template:{name}"
    version, seen = store.stream_version(stream), store.size()
    state = common.state_of(name)
    # Again, from here on: a rollback may have made it current, or a launch have cloned it.
    if generation not in lifecycle.sweepable(state, retain=settings.COPPICE_RETAIN_GENERATIONS):
        return False
    for aside in removal.asides(driver, driver.find_all()):
        if driver.full_name(aside) in driver.dependents(relative):
            driver.destroy(aside)  # an old alias that nothing is cloned from any more
    if driver.dependents(relative):
        return False
    event = Retired(
        template=name,
        generation=generation.number,
        dataset=generation.dataset,
        tree_digest=generation.tree_digest,
        statement_digest=generation.statement_digest,
        manifest_digest=generation.manifest_digest or "",
    )
    try:
        with transaction.atomic():
            store.append([event], meta=context, expected={stream: version})
            # Under the log's lock: somebody may have launched it since we looked at the pool.
            if Sandbox.objects.filter(
                template_name=name,
                generation=generation.number,
                destroyed_at__isnull=True,
                position__gt=seen,
            ).exists():
                raise TemplateInUse(f"Generation {generation.number} of {name} was just launched.")
    except (EventConflict, TemplateInUse) as changed:
        logger.info("generation %d of %s stays: %s", generation.number, name, changed.detail)
        return False
    try:
        driver.destroy(relative)
    except CoppiceError as error:
        # A launch that came too late has cloned it, and is taking that back: recovery and the next
        # sweep remove what the log has as retired.
        logger.warning("%s is left for the next sweep: %s", relative, error.detail)
    return True
