"""An import that a caller may ask for again: its key leads to the first one's outcome.

No table is needed: the id of the event is made of who asks and the key, and the log takes an id
once. So an outcome is kept for as long as the log, and only success is one: what failed has changed
nothing, and is tried again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from templates_app import store
from templates_app.errors import IdempotencyKeyReused, ImportInProgress, TemplateExists
from templates_app.events import Imported, Meta, Recorded
from templates_app.services import imports

#: Of event ids that are made of keys. Never change it: then no repeated request would be known.
_KEYS = uuid.UUID("6f1b5ad2-52a4-5d0e-9c39-0d6c1c6b3c8f")


def import_once(
    *,
    key: str,
    name: str,
    source: str,
    force: bool,
    context: Meta,
    unless: Callable[[], None] = lambda: None,
) -> Recorded:
    """Like ``imports.import_template``; if this actor has done so with this key, that import.

    While the first one is running: ImportInProgress. IdempotencyKeyReused where the key was used
    for another name, source or force.
    """
    # No actor's name has a newline (Django's validator), so two pairs never read alike.
    event_id = uuid.uuid5(_KEYS, f"{context.actor}\n{key}")
    try:
        recorded = imports.import_template(
            name=name,
            source=source,
            force=force,
            context=context,
            event_id=event_id,
            unless=unless,
        )
    except (TemplateExists, ImportInProgress):
        # The first one may have ended since we asked for its event.
        done = store.find(event_id)
        if done is None:
            raise
        recorded = done
    _same(recorded, name, source, force)
    return recorded


def _same(recorded: Recorded, name: str, source: str, force: bool) -> None:
    event = recorded.event
    asked = isinstance(event, Imported) and (
        event.template == name
        and source.removeprefix(f"{event.scheme}:") == event.reference_given
        and event.forced == force
    )
    if not asked:
        raise IdempotencyKeyReused(
            f"The key was used for {recorded.event.sentence()[:1].lower()}"
            f"{recorded.event.sentence()[1:]}."
        )
