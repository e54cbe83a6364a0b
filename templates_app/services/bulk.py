"""Re-import many templates from their recorded references."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from templates_app import sources, store
from templates_app.errors import CoppiceError, ImportInProgress, TemplateNotFound
from templates_app.events import Imported, Meta, Recorded
from templates_app.models import Generation, Template
from templates_app.names import TemplateName
from templates_app.services import common, imports

#: What a plan or a run says of a template.
IMPORT, UNCHANGED, FAILED, HAND_MADE = "import", "unchanged", "failed", "hand-made"

#: Seconds between two looks at another import of the same name.
_WAIT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One template of a plan: what was resolved, and what follows from it."""

    name: str
    reference: str
    action: str
    old_digest: str
    new_digest: str | None = None
    code: str | None = None
    detail: str = ""


def choose(*, names: Sequence[str], everything: bool) -> list[str]:
    """The names to re-import, in name order. TemplateNotFound for one that is not there."""
    if everything:
        return list(Template.objects.order_by("name").values_list("name", flat=True))
    wanted = sorted({TemplateName.parse(name).text for name in names})
    there = set(Template.objects.filter(name__in=wanted).values_list("name", flat=True))
    for name in wanted:
        if name not in there:
            raise TemplateNotFound(f"There is no template {name}.")
    return wanted


def plan(*, name: str, force: bool) -> Item:
    """Resolve the recorded reference and say what a re-import would do; changes nothing."""
    row = Template.objects.select_related("current").filter(pk=name).first()
    if row is None:
        raise TemplateNotFound(f"There is no template {name} any more.")
    current = row.current
    if current.adopted:
        return Item(
            name=name,
            reference="",
            action=HAND_MADE,
            old_digest="",
            detail="It was made by hand: there is no reference to import from.",
        )
    old = current.manifest_digest
    source = _source_of(current)
    try:
        resolved = sources.parse(source, common.source_context()).resolve()
    except CoppiceError as error:
        return Item(
            name=name,
            reference=source,
            action=FAILED,
            old_digest=old,
            code=error.code,
            detail=error.detail,
        )
    new = resolved.digests.manifest
    same = new == old and not force
    return Item(
        name=name,
        reference=source,
        action=UNCHANGED if same else IMPORT,
        old_digest=old,
        new_digest=new,
        detail="It is still the digest that was imported." if same else "",
    )


def _source_of(generation: Generation) -> str:
    """What to import again: what is recorded of an image file names no directory (local.py)."""
    if generation.scheme not in sources.LOCAL:
        return generation.reference
    (recorded,) = store.about("import", generation.import_id, types=(Imported.type,))
    if not isinstance(recorded.event, Imported):
        raise TypeError(f"{recorded.type} is not an import's")
    return f"{generation.scheme}:{recorded.event.reference_given}"


def event_id(job: uuid.UUID, name: str) -> uuid.UUID:
    """The id of the event that re-imports ``name`` in ``job``: the same on every delivery."""
    return uuid.uuid5(job, name)


def reimport(*, name: str, job: uuid.UUID, force: bool, context: Meta) -> Item | Recorded:
    """Re-import one template; what is unchanged comes back as its Item.

    At most once for a job and a name, however often it is called: the event's id is made of both.
    Where another import of the name is running it waits for that one, at most a step's time.
    """
    item = plan(name=name, force=force)
    if item.action != IMPORT:
        return item
    deadline = time.monotonic() + settings.COPPICE_LIMIT_STEP_SECONDS
    while True:
        try:
            return imports.import_template(
                name=name,
                source=item.reference,
                force=True,
                context=context,
                event_id=event_id(job, name),
            )
        except ImportInProgress:
            if time.monotonic() > deadline:
                raise
        time.sleep(_WAIT)
