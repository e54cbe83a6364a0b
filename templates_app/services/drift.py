"""Whether the tags that templates were imported from still name what was imported.

Registries are asked with one HEAD for each reference, those of one registry one after the other,
several registries at once. What is found is recorded once per change, and no byte of a template is
changed for it: whoever wants the new image imports it.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue

from templates_app import sources, store
from templates_app.errors import CoppiceError, PullFailed
from templates_app.events import Drifted, Meta
from templates_app.models import Generation, Template
from templates_app.names import Digest, Reference
from templates_app.services import bulk, common
from templates_app.sources.oci import OciSource

logger = logging.getLogger("coppice.drift")

#: What a tag is found to be; pinned: there is none that could move.
CURRENT, MOVED, GONE, UNREACHABLE, PINNED = "current", "moved", "gone", "unreachable", "pinned"

#: Seconds for one question, and for all questions to one registry. One that fails to answer is not
#: asked again, so a dead registry costs one question.
ASK_SECONDS, REGISTRY_SECONDS = 15.0, 60.0
#: Registries that are asked at the same time.
AT_ONCE = 8

#: Reasons of PullFailed that say something of the registry, not of one repository.
_SILENT = frozenset({"unreachable", "tls", "rate_limited"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a template's current generation was imported from, and what that names now."""

    template: str
    generation: int
    reference: str  # empty for a hand-made template
    state: str
    imported_digest: str  # what the reference named at the import; empty for a hand-made one
    found_digest: str | None = None  # where it moved: to what
    since: datetime.datetime | None = None  # when it was first found so, where it moved or is gone
    detail: str = ""  # why the registry could not be asked
    changed: bool = False  # this look found another state than the one before it


def word(generation: Generation) -> str:
    """What is known of a generation's tag, from the log alone."""
    if not generation.floating or generation.scheme != "oci":
        return PINNED
    return generation.drift or CURRENT


def known(*, names: Sequence[str] = ()) -> list[Standing]:
    """What the last looks found, in name order. MalformedName, TemplateNotFound."""
    chosen = bulk.choose(names=names, everything=not names)
    rows = Template.objects.select_related("current").filter(name__in=chosen)
    return [_standing(row.current) for row in rows.order_by("name")]


def _standing(generation: Generation) -> Standing:
    state = word(generation)
    return Standing(
        template=generation.template_name,
        generation=generation.number,
        reference=generation.reference,
        state=state,
        imported_digest=generation.index_digest or generation.manifest_digest,
        found_digest=generation.drift_digest or None,
        since=generation.drift_since,
    )


def check(
    *,
    names: Sequence[str] = (),
    context: Meta,
    report: Callable[[Standing], None] = lambda _: None,
) -> list[Standing]:
    """Ask the registries about these templates, or all; a ``drifted`` event for each change.

    ``report`` hears of each as it is known. MalformedName, TemplateNotFound; what is wrong with a
    registry is said of its templates, whose recorded state stays as it is.
    """
    found: dict[str, Standing] = {}
    asked: dict[str, dict[str, list[Standing]]] = {}  # registry -> reference -> templates
    for one in known(names=names):
        if one.state == PINNED:
            found[one.template] = one
            report(one)
        else:
            asked.setdefault(_host(one), {}).setdefault(one.reference, []).append(one)
    for one in _ask(asked.values()):
        found[one.template] = told = one if one.state == UNREACHABLE else _record(one, context)
        report(told)
    return [found[name] for name in sorted(found)]


def _host(one: Standing) -> str:
    """The registry; empty where the reference is none, which is said when it is to be asked."""
    try:
        return Reference.parse(one.reference.removeprefix("oci:")).host
    except CoppiceError:
        return ""


# --- asking ------------------------------------------------------------------------------------


def _ask(registries: Iterable[dict[str, list[Standing]]]) -> Iterator[Standing]:
    """As they come. The threads ask; the caller's thread has the database."""
    answers: SimpleQueue[Standing | None] = SimpleQueue()
    with ThreadPoolExecutor(AT_ONCE, "drift") as threads:
        running = [threads.submit(_ask_registry, one, answers.put) for one in registries]
        for one in running:
            one.add_done_callback(lambda _: answers.put(None))
        left = len(running)
        while left:
            if (answer := answers.get()) is None:
                left -= 1
            else:
                yield answer
        for one in running:
            one.result()


def _ask_registry(references: dict[str, list[Standing]], tell: Callable[[Standing], None]) -> None:
    until = time.monotonic() + REGISTRY_SECONDS
    silent = ""  # why the registry is not asked any more
    for reference, templates in references.items():
        known_digest = Digest.parse(templates[0].imported_digest)
        state, digest, detail = UNREACHABLE, None, silent
        left = until - time.monotonic()
        if left <= 0:
            detail = detail or "There was no time left to ask: its registry answers slowly."
        elif not silent:
            try:
                digest = _tag(reference, known_digest, min(left, ASK_SECONDS))
                detail = "" if digest else "The registry does not say which digest the tag names."
            except CoppiceError as error:
                reason = error.extra.get("reason") if isinstance(error, PullFailed) else None
                logger.info("%s: %s", reference, error.detail, extra={"private": error.private})
                state, detail = GONE if reason == "not_found" else UNREACHABLE, error.detail
                silent = detail if reason in _SILENT else ""
        for one in templates:
            if digest is not None:
                same = digest.text == one.imported_digest
                tell(
                    replace(
                        one,
                        state=CURRENT if same else MOVED,
                        found_digest=None if same else digest.text,
                    )
                )
            else:
                tell(replace(one, state=state, found_digest=None, since=None, detail=detail))


def _tag(reference: str, known_digest: Digest, seconds: float) -> Digest | None:
    source = sources.parse(reference, common.source_context())
    if not isinstance(source, OciSource):
        raise TypeError(f"{reference} is in no registry")
    return source.standing(known_digest, seconds=seconds)


# --- what is found -----------------------------------------------------------------------------


@common.decided_anew
def _record(found: Standing, context: Meta) -> Standing:
    """An event, if it is not what the log has already; with the time since when it is so."""
    stream = f"template:{found.template}"
    version = store.stream_version(stream)
    row = Generation.objects.filter(
        template_name=found.template,
        number=found.generation,
        destroyed_position__isnull=True,
    ).first()
    if row is None:
        return found  # it went while its registry was asked
    before = row.drift or CURRENT
    if (before, row.drift_digest) == (found.state, found.found_digest or ""):
        return replace(found, since=row.drift_since)
    event = Drifted(
        template=found.template,
        generation=found.generation,
        reference=found.reference,
        state=found.state,
        before=before,
        imported_digest=found.imported_digest,
        found_digest=found.found_digest
        or (found.imported_digest if found.state == CURRENT else None),
    )
    (recorded,) = store.append([event], meta=context, expected={stream: version})
    since = None if found.state == CURRENT else recorded.recorded_at
    return replace(found, since=since, changed=True)
