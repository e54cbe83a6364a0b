"""The generations of a template: which there are, and which of them is current."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver, alias_name
from templates_app.errors import CoppiceError, TemplateNotFound
from templates_app.events import Meta, Recorded, RolledBack
from templates_app.models import Generation, Template
from templates_app.names import TemplateName
from templates_app.services import common, keyring, launches, removal

logger = logging.getLogger("coppice.generations")


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation that is there. ``clones``: full names of what keeps it from being removed.

    ``kept``: it stays for these alone, of a template that was destroyed.
    """

    generation: Generation
    current: bool
    signed: bool  # by a key that is trusted now
    clones: list[str]

    @property
    def kept(self) -> bool:
        return self.generation.kept_position is not None


def generations(*, name: str) -> list[GenerationRow]:
    """Those that are there, the newest first. MalformedName, TemplateNotFound; what a pool raises.

    Also of a name that has lost its template while a generation stays.
    """
    template = TemplateName.parse(name)
    rows = Generation.objects.filter(
        template_name=template.text, destroyed_position__isnull=True
    ).order_by("-number")
    current = Template.objects.filter(pk=template.text).values_list("current_id", flat=True).first()
    if not rows:
        raise TemplateNotFound(f"There is no template {template}.")
    driver = common.driver()
    return [
        GenerationRow(
            row,
            row.pk == current,
            row.signed,
            removal.users(driver, template.text, common.relative(driver, row.dataset)),
        )
        for row in keyring.with_signed(rows, name="template_name", generation="")
    ]


def rollback(
    *,
    name: str,
    to: int | None = None,
    context: Meta,
    unless: Callable[[], None] = lambda: None,
) -> Recorded:
    """Make an older generation current again: ``to``, or the one before; the alias follows.

    Returns the ``rolled-back`` event. ``unless`` raises where the template is not what the caller
    has seen. Raises TemplateNotFound, GenerationNotFound, GenerationCurrent; and GateRefused with
    the decision where the gate would not let it be launched, so that a name that can be launched
    never comes to point at what cannot.
    """
    template = TemplateName.parse(name)
    driver = common.driver()
    recorded = _roll_back(driver, template, to, context, unless)
    point_alias(driver, template.text)
    return recorded


@common.decided_anew
def _roll_back(
    driver: DatasetDriver,
    template: TemplateName,
    to: int | None,
    context: Meta,
    unless: Callable[[], None],
) -> Recorded:
    version = store.stream_version(f"template:{template}")
    state = common.state_of(template.text)
    target = lifecycle.rollback_target(state, to)
    unless()
    decision = launches.decide(template.text, target, launches.live(driver, target))
    if not decision.allowed:
        raise launches.refusal(decision)
    event = RolledBack(
        template=template.text,
        generation=target.number,
        before=lifecycle.current(state).number,
        tree_digest=target.tree_digest,
        statement_digest=target.statement_digest,
        manifest_digest=target.manifest_digest or "",
    )
    (recorded,) = store.append([event], meta=context, expected={event.stream(): version})
    return recorded


def point_alias(driver: DatasetDriver, name: str) -> None:
    """:func:`lead_alias`; where the pool will not have it, recovery or a reload does it later.

    The event is the commit point: what it says is done all the same.
    """
    try:
        lead_alias(driver, name)
    except CoppiceError as error:
        logger.warning(
            "the alias of %s still points at the old generation: %s",
            name,
            error.detail,
            extra={"code": error.code, "private": error.private},
        )


def lead_alias(driver: DatasetDriver, name: str) -> None:
    """Move the alias to the generation that the log has as current. What the pool raises.

    An import and a rollback can be at this place at once, in either order: so the log is asked
    again after each move, and whoever moves last has asked last.
    """
    asked = None
    while (now := common.state_of(name).current) is not None and now != asked:
        if now.adopted:
            return
        driver.point(alias_name(name), common.relative(driver, now.dataset))
        asked = now
