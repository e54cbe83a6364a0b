"""What ``reload --fix`` does: repairs that are safe, one for each finding that has one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from templates_app.datasets.base import DatasetDriver, Found
from templates_app.errors import CoppiceError
from templates_app.events import Finding
from templates_app.models import Generation
from templates_app.services import common, generations, removal, strangers

logger = logging.getLogger("coppice.repairs")


@dataclass(frozen=True, slots=True)
class Repair:
    """What ``work`` would do, and what it has done once it has returned, as sentences."""

    would: str
    done: str
    work: Callable[[], None]


def repair(driver: DatasetDriver, found: Mapping[str, Found], finding: Finding) -> Repair | None:
    """What can safely be done about it; None where that is for people to decide."""
    relative = common.relative(driver, finding.subject)
    match finding.code:
        case "alias_stale" if finding.template is not None:
            work = partial(generations.lead_alias, driver, finding.template)
            return Repair(
                "Would lead it to the current generation.", "Led to the current one.", work
            )
        case "alias_stale" if relative in found:
            gone = Generation.objects.filter(origin=found[relative].origin or "")
            leading = [common.relative(driver, row.dataset) for row in gone]
            work = partial(driver.unpoint, relative, leading, aside=True)
            return Repair("Would remove it.", "Removed.", work)
        case "mountpoint_moved":
            work = partial(driver.place_back, relative)
            return Repair("Would let its mountpoint be inherited.", "It is inherited now.", work)
        case "orphan_dataset" if relative in found and _is_refuse(found[relative]):
            if not driver.dependents(relative):
                return Repair("Would remove it.", "Removed.", partial(driver.destroy, relative))
    return None


def _is_refuse(one: Found) -> bool:
    """Whether Coppice itself made it, and the log says that it is of no use any more."""
    row = Generation.objects.filter(dataset=one.name, destroyed_position__isnull=False).first()
    return strangers.left_by(one) is not None if row is None else removal.is_it(row, one)


def mend(
    driver: DatasetDriver, found: Mapping[str, Found], findings: Iterable[Finding]
) -> tuple[list[tuple[Finding, Repair]], dict[tuple[str, str], str]]:
    """Do what is safe. What was done; and of what could not be, why: (code, subject) -> detail."""
    done, why = [], {}
    for finding in findings:
        try:
            if (chosen := repair(driver, found, finding)) is None:
                continue
            chosen.work()
        except CoppiceError as error:
            logger.warning("%s of %s: %s", finding.code, finding.subject, error.detail)
            why[finding.code, finding.subject] = error.detail
        else:
            logger.warning("%s of %s: %s", finding.code, finding.subject, chosen.done)
            done.append((finding, chosen))
    return done, why
