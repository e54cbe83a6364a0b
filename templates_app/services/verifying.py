"""Read a generation's files again, and compare them with what was recorded when it was made.

Files that differ are a finding that stops launches, until they match again or are looked into no
more because their generation is gone. The event says what was found either way.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import transaction

from templates_app import findings, store
from templates_app.errors import CoppiceError, GenerationNotFound, TemplateMissing, TreeRefused
from templates_app.events import Finding, Meta, Recorded, TreeChange, Verified
from templates_app.models import Generation
from templates_app.services import archive, common, trees
from templates_app.trust import compare, tree
from templates_app.trust.entries import NotAManifest

logger = logging.getLogger("coppice.verify")

#: How many of the differences the event has.
TOLD = 20
_NAMED = 5  # of them in the sentence about it
_LONGEST = 1000  # characters of a path or a value in the event: a hostile tree's are long

Progress = Callable[[int, int], None]  # entries and bytes so far


def verify(
    *,
    name: str,
    number: int | None = None,
    context: Meta,
    on_progress: Progress | None = None,
) -> Recorded:
    """Look into the files of the current generation, or of ``number``; the ``verified`` event.

    What is wrong with the files is in the event, not an error; nor is that they cannot be read.
    Raises MalformedName, TemplateNotFound, GenerationNotFound, also of one that is removed
    meanwhile, and PoolUnavailable where there is no pool at all.
    """
    row = trees.generation(name=name, number=number)
    if row.destroyed_position is not None:
        raise GenerationNotFound(f"Generation {row.number} of {row.template_name} was destroyed.")
    common.driver().check()
    event = look(row, on_progress=on_progress)
    with transaction.atomic():
        # Under the log's lock: of a generation that was removed while it was read, or whose
        # hand-made files were adopted anew, nothing may be said.
        store.lock()
        same = Generation.objects.filter(
            pk=row.pk, dataset=row.dataset, tree_digest=row.tree_digest, destroyed_position=None
        )
        if not same.exists():
            raise GenerationNotFound(
                f"Generation {row.number} of {row.template_name} was removed while it was read."
            )
        (recorded,) = store.append([event], meta=context)
    if event.result != "matches":
        logger.warning("%s", event.sentence(), extra={"dataset": event.dataset})
    return recorded


def explained(recorded: Recorded) -> dict[str, Any]:
    """The event's data and position, and what to do about it. TypeError for any other event."""
    event = recorded.event
    if not isinstance(event, Verified):
        raise TypeError(f"{recorded.type} is no verification")
    steps = [
        findings.next_step(one.code, template=one.template, subject=one.subject)
        for one in event.findings()
    ]
    return {**event.to_json(), "position": recorded.position, "nextStep": " ".join(steps)}


def standing(*, name: str | None = None) -> list[tuple[str, int]]:
    """(template, number) of every generation that is there, of one template or of all."""
    rows = Generation.objects.filter(destroyed_position=None).order_by("template_name", "number")
    if name is not None:
        rows = rows.filter(template_name=trees.generation(name=name, number=None).template_name)
    return list(rows.values_list("template_name", "number"))


def look(row: Generation, *, on_progress: Progress | None = None) -> Verified:
    """What the files are now, as the event that would say so; nothing is written to the log."""
    begun = time.monotonic()
    excepted = compare.excepted_by(one["reason"] for one in row.deviations)
    event = Verified(
        template=row.template_name,
        generation=row.number,
        dataset=row.dataset,
        result="unreadable",
        detail="",
        tree_digest=row.tree_digest,
        found_digest=None,
        snapshot_guid=None,
        excepted=(),
        entries=0,
        size_bytes=0,
        added=0,
        removed=0,
        changed=0,
        grave=0,
        differences=(),
        statement_digest=row.statement_digest,
        manifest_digest=row.manifest_digest or None,
        milliseconds=0,
    )
    try:
        found = _read(row, on_progress)
    except TreeRefused as refused:
        # No template may hold that, so none did when it was made: a socket, a mount.
        event = _with(event, _refused(refused), detail=refused.detail)
    except CoppiceError as error:
        event = replace(event, detail=f"{error.code}: {error.detail}")
    else:
        event = replace(
            _compared(event, row, found, excepted),
            found_digest=found.tree.digest,
            snapshot_guid=found.guid,
            entries=found.tree.entries,
            size_bytes=found.tree.size_bytes,
        )
    return replace(event, milliseconds=round((time.monotonic() - begun) * 1000))


def findings_of(rows: Iterable[Generation]) -> Iterator[Finding]:
    """What is wrong with the files of these; nothing is written to the log."""
    for row in rows:
        yield from look(row).findings()


@dataclass(frozen=True, slots=True)
class _Found:
    tree: tree.Tree
    manifest: bytes
    guid: str


def _read(row: Generation, on_progress: Progress | None) -> _Found:
    driver = common.driver()
    relative = common.relative(driver, row.dataset)
    snapshot = driver.snapshot(relative)
    if snapshot is None:
        raise TemplateMissing(f"{row.origin} is not on the pool.")
    into = io.BytesIO()
    # A tree that has grown is to be compared, not refused; one that grows without end is not.
    limit = max(settings.COPPICE_LIMIT_ENTRIES, 2 * row.entries)
    with driver.reading(relative) as path:
        found = tree.scan(path, limit_entries=limit, on_progress=on_progress, into=into)
    return _Found(found, into.getvalue(), snapshot.guid)


def _compared(
    event: Verified, row: Generation, found: _Found, excepted: frozenset[str]
) -> Verified:
    texts = archive.archive().manifests
    recorded = archive.kept_text(texts, row.tree_digest)
    if found.tree.digest == row.tree_digest:
        if recorded is None:
            texts.put(found.manifest)
        return replace(event, result="matches")
    if recorded is None:
        lost = "Which paths differ cannot be said: the recorded manifest is not kept here any more."
        if not excepted:
            return replace(event, result="differs", detail=lost)
        return replace(
            event, detail=f"{lost} The import could not bring over {', '.join(sorted(excepted))}."
        )
    try:
        compared = compare.compare(recorded, found.manifest, limit=TOLD, excepted=excepted)
    except NotAManifest as error:
        return replace(event, detail=f"The recorded manifest cannot be read: {error}.")
    event = replace(event, excepted=tuple(sorted(excepted)))
    if not compared.total:
        return replace(event, result="matches")
    counts = f"{compared.added} added, {compared.removed} removed, {compared.changed} changed"
    named = ", ".join(_cut(one.path, 200) for one in compared.differences[:_NAMED])
    more = ", …" if compared.total > _NAMED else ""
    return _with(event, compared, detail=f"{counts}: {named}{more}")


def _with(event: Verified, compared: compare.Comparison, *, detail: str) -> Verified:
    return replace(
        event,
        result="differs",
        detail=detail,
        added=compared.added,
        removed=compared.removed,
        changed=compared.changed,
        grave=compared.grave,
        differences=tuple(map(_bounded, compared.differences)),
    )


def _refused(refused: TreeRefused) -> compare.Comparison:
    path = str(refused.extra.get("path", "."))
    one = TreeChange(path=path, change="added", grave=(), fields=())
    return compare.Comparison(added=1, differences=(one,))


def _bounded(one: TreeChange) -> TreeChange:
    return replace(
        one,
        path=_cut(one.path),
        fields=tuple(
            replace(
                field,
                before=None if field.before is None else _cut(field.before),
                after=None if field.after is None else _cut(field.after),
            )
            for field in one.fields
        ),
    )


def _cut(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
