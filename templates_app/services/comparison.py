"""Pool and log compared: what differs, and what an operator should see. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from templates_app.datasets.base import DatasetDriver, Found, alias_name
from templates_app.errors import CoppiceError, MalformedName, PoolUnavailable, SandboxBusy
from templates_app.events import Adopted, Finding
from templates_app.models import Generation, Lease, Sandbox, Template
from templates_app.names import TemplateName
from templates_app.services import adoption, common, intents, noticed, removal, strangers

#: Clones that a finding names; the rest is counted.
_NAMED = 5


@dataclass(slots=True)
class Difference:
    """As the ``reloaded`` event has it."""

    added: list[Adopted] = field(default_factory=list)
    changed: list[Adopted] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def names(self) -> set[str]:
        """The templates that it says something of."""
        adopted = {one.template for one in (*self.added, *self.changed)}
        told = {one.template for one in self.findings if one.template is not None}
        return adopted | told | {*self.missing, *self.returned}


class Look:
    """The log and the pool as they were at one moment.

    The log before the pool: an import makes its dataset first and its event last, so what is in
    the log now is on the pool already. Of a name that is being imported, the alias and a hand-made
    generation are in the import's hands, and are not judged at all.
    """

    def __init__(self, driver: DatasetDriver) -> None:
        self.driver = driver
        self.templates = {t.name: t for t in Template.objects.select_related("current")}
        self.standing = list(
            Generation.objects.filter(destroyed_position__isnull=True).defer("statement")
        )
        self.leased = set(Lease.objects.values_list("template_name", flat=True))
        live = Sandbox.objects.filter(destroyed_at__isnull=True)
        self.sandboxes = dict(live.values_list("dataset", "id"))
        self.noted = strangers.noted()  # what is given back or ends meanwhile is on the pool still
        self.found = {one.relative: one for one in driver.find_all()}
        self.clones = driver.all_clones()
        self.judged: tuple[Finding, ...] = ()  # of the last difference: what may be repaired
        self._adopts = True

    def difference(self, *, adopt: bool = True) -> Difference:
        """All of it; without ``adopt`` no file of a hand-made template is read."""
        new, self._adopts = Difference(), adopt
        for generation in self.standing:
            if not self._in_import(generation):
                self._generation(generation, new)
        for name, template in sorted(self.templates.items()):
            if name not in self.leased:
                self._template(template, new)
        new.findings += self._asides()
        new.findings += self._lost_sandboxes()
        self._hand_made(new)
        new.findings += strangers.strangers(self.driver, self.found, {*self.sandboxes, *self.noted})
        self.judged = tuple(new.findings)
        new.findings += self._not_judged()
        return new

    def readable(self) -> Iterator[Generation]:
        """Generations that have a @base whose files can be looked into: not what is adopted anew,
        and nothing that is in an import's hands."""
        for generation in self.standing:
            here = self._at(generation)
            base = here.base if here is not None else None
            if base is None or self._in_import(generation):
                continue
            if base.guid == generation.snapshot_guid or not self._is_made_anew(generation):
                yield generation

    # --- what the log has ----------------------------------------------------------------------

    def _in_import(self, generation: Generation) -> bool:
        return generation.adopted and generation.template_name in self.leased

    def _at(self, generation: Generation) -> Found | None:
        return self.found.get(common.relative(self.driver, generation.dataset))

    def _generation(self, generation: Generation, new: Difference) -> None:
        here = self._at(generation)
        if here is None:
            detail = f"There is no dataset {generation.dataset}."
            new.findings.append(_about(generation, "dataset_missing", detail))
            return
        if not here.is_dataset:
            detail = "A plain directory stands where its dataset was."
            new.findings.append(_about(generation, "directory_not_dataset", detail))
            return
        if here.base is None:
            detail = f"There is no snapshot {generation.origin}."
            new.findings.append(_about(generation, "snapshot_missing", detail))
        elif here.base.guid != generation.snapshot_guid and not self._is_made_anew(generation):
            detail = f"Its guid is {here.base.guid}, not {generation.snapshot_guid} as recorded."
            new.findings.append(_about(generation, "guid_changed", detail))
        if here.moved_to is not None:
            detail = f"Its mountpoint is {here.moved_to}."
            new.findings.append(_about(generation, "mountpoint_moved", detail))

    def _is_made_anew(self, generation: Generation) -> bool:
        """Made by hand, still in its place, and made anew there: it is adopted again."""
        template = self.templates.get(generation.template_name)
        return generation.adopted and template is not None and template.current == generation

    def _template(self, template: Template, new: Difference) -> None:
        """Is what its name points at there? Does the alias follow?"""
        current = template.current
        here = self._at(current)
        base = here.base if here else None
        if base is None:
            if not template.missing:
                new.missing.append(template.name)
        elif base.guid == current.snapshot_guid:
            if template.missing:
                new.returned.append(template.name)
        elif current.adopted:
            self._adopt(template.name, new, new.changed)
        if not current.adopted:
            new.findings += self._alias(template, base is not None)

    def _alias(self, template: Template, can_be_cloned: bool) -> Iterator[Finding]:
        name, wanted = template.name, template.current.origin
        full, alias = self.driver.full_name(alias_name(name)), self.found.get(alias_name(name))

        def finding(code: str, detail: str) -> Finding:
            return Finding(code=code, subject=full, detail=detail, template=name)

        if alias is not None and not alias.is_dataset:
            yield finding("directory_not_dataset", f"It stands where the alias of {name} should.")
            return
        if alias is None or alias.base is None or alias.origin != wanted:
            if alias is not None and self.driver.stranger(alias_name(name)):
                yield finding("unknown_dataset", f"It stands where the alias of {name} should.")
                return
            if can_be_cloned:
                there = "There is none." if alias is None else f"It leads to {alias.origin}."
                if alias is not None and alias.base is None:
                    there = "Its @base is gone."
                yield finding("alias_stale", f"{there} Current is {wanted}.")
        if alias is not None and alias.moved_to is not None:
            yield finding("mountpoint_moved", f"Its mountpoint is {alias.moved_to}.")
        if foreign := self._foreign(full):
            yield finding("alias_has_clones", foreign)

    def _foreign(self, full: str) -> str:
        """Whose clones of an alias there are; empty where there is none."""
        clones = self.clones.get(full, [])
        more = f" and {len(clones) - _NAMED} more" if len(clones) > _NAMED else ""
        return f"Cloned from it: {', '.join(clones[:_NAMED])}{more}." if clones else ""

    def _asides(self) -> Iterator[Finding]:
        for relative, one in sorted(self.found.items()):
            name = removal.aside_of(relative)
            if name is not None and (foreign := self._foreign(one.name)):
                detail = f"An old alias of {name}, kept for its clones. {foreign}"
                template = name if name in self.templates else None
                yield Finding(
                    code="alias_has_clones", subject=one.name, detail=detail, template=template
                )

    def _lost_sandboxes(self) -> Iterator[Finding]:
        there = {one.name for one in self.found.values()}
        for dataset, sandbox_id in sorted(self.sandboxes.items()):
            if dataset in there:
                continue
            with suppress(SandboxBusy), intents.alone(sandbox_id, patience=0):
                # One that is being destroyed loses its dataset first.
                if Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).exists():
                    detail = f"Sandbox {sandbox_id} is live by the log."
                    yield Finding(code="sandbox_missing", subject=dataset, detail=detail)

    def _not_judged(self) -> Iterator[Finding]:
        """What is open about things in an import's hands stays as it is: nobody looked at it."""
        for name in sorted(self.leased):
            by_hand = {g.number for g in self.standing if g.template_name == name and g.adopted}
            for row in noticed.by_template(name).get(name, []):
                if row.generation is None or row.generation in by_hand:
                    yield noticed.again(row)

    # --- what was made by hand -----------------------------------------------------------------

    def _hand_made(self, new: Difference) -> None:
        """Each ``<name>-template`` whose name the log does not have as a template."""
        for relative, one in sorted(self.found.items()):
            name = hand_made_name(relative)
            if name is None or name in self.templates or name in self.leased:
                continue
            if not one.is_dataset:
                detail = "It holds files, and is no dataset of its own."
                new.findings.append(_strange("directory_not_dataset", one, detail))
            elif one.base is None:
                new.findings.append(_strange("snapshot_missing", one, "It has no @base."))
            elif not strangers.is_ours(self.driver, one):
                self._adopt(name, new, new.added)
            elif Generation.objects.filter(origin=one.origin or "").exists():
                detail = f"It leads to {one.origin}, and the log has no template {name}."
                new.findings.append(_strange("alias_stale", one, detail))
            else:
                detail = f"It is an alias that leads to {one.origin}, which the log does not know."
                new.findings.append(_strange("unknown_dataset", one, detail))

    def _adopt(self, name: str, new: Difference, into: list[Adopted]) -> None:
        """One that cannot be adopted is a finding, and keeps no other from being adopted."""
        if not self._adopts:
            return
        try:
            into.append(adoption.adopted(self.driver, name))
        except PoolUnavailable:
            raise  # nothing at all can be said then
        except CoppiceError as error:
            subject = self.driver.full_name(alias_name(name))
            detail = f"{error.code}: {error.detail}"
            new.findings.append(Finding(code="not_adopted", subject=subject, detail=detail))


def hand_made_name(relative: str) -> str | None:
    """The template's name, where a dataset's name is ``<name>-template``."""
    if "/" in relative or not relative.endswith(alias_name("")):
        return None
    try:
        return TemplateName.parse(relative.removesuffix(alias_name(""))).text
    except MalformedName:
        return None


def _about(generation: Generation, code: str, detail: str) -> Finding:
    return Finding(
        code=code,
        subject=generation.dataset,
        detail=detail,
        template=generation.template_name,
        generation=generation.number,
    )


def _strange(code: str, one: Found, detail: str) -> Finding:
    return Finding(code=code, subject=one.name, detail=detail)
