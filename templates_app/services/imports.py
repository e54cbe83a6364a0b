"""import_template: the whole way from a reference to a generation that the name points at."""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from templates_app import lifecycle, pipeline, sources, store
from templates_app.datasets.base import BASE, alias_name
from templates_app.errors import (
    CoppiceError,
    ImportInProgress,
    Interrupted,
)
from templates_app.events import Imported, ImportFailed, Meta, Recorded
from templates_app.models import Lease
from templates_app.names import TemplateName, quote
from templates_app.services import (
    archive,
    attached,
    common,
    dead_imports,
    generations,
    layers,
    leases,
    space,
)
from templates_app.sources.base import Progress, Source

logger = logging.getLogger("coppice.imports")


def import_template(
    *,
    name: str,
    source: str,
    force: bool = False,
    context: Meta,
    event_id: UUID | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    unless: Callable[[], None] = lambda: None,
) -> Recorded:
    """Import ``source`` (``oci:…``) as the next generation of ``name``; blocks until it is done.

    Returns the ``imported`` event. ``event_id`` makes a repeated call harmless: where an event with
    that id is in the log, it is returned and nothing is imported. ``unless`` raises where the
    template is not what the caller has seen; it is asked before the import, and once more when the
    event is appended, with nothing in between. Raises any error of the tree;
    after each one but a malformed name and a conflict there is an ``import-failed`` event, and
    nothing that the import made is left.
    """
    template = TemplateName.parse(name)
    if event_id is not None and (done := store.find(event_id)) is not None:
        return done
    try:
        parsed = sources.parse(source, common.source_context())
    except CoppiceError as error:
        _record_failure(template.text, "", quote(source)[:600], "parse", error, None, context)
        raise
    lifecycle.next_generation(common.state_of(template.text), force=force)
    unless()
    with _acquire(template.text, parsed, context) as held:
        return _import(template, parsed, force, context, event_id, held, on_progress, unless)


def _acquire(name: str, source: Source, context: Meta) -> leases.Held:
    """The lease; where its holder on this node is dead, after undoing what that one left."""
    reference = f"{source.scheme}:{source.canonical}"
    try:
        return leases.acquire(name=name, reference=reference, context=context)
    except ImportInProgress:
        row = Lease.objects.filter(pk=name).first()
        if row is None or not dead_imports.end_if_dead(row, context=context):
            raise
        return leases.acquire(name=name, reference=reference, context=context)


def _import(
    template: TemplateName,
    source: Source,
    force: bool,
    context: Meta,
    event_id: UUID | None,
    held: leases.Held,
    on_progress: Callable[[Progress], None] | None,
    unless: Callable[[], None],
) -> Recorded:
    # Again, now that nobody else can import this name: somebody may have done so just before.
    if event_id is not None and (done := store.find(event_id)) is not None:
        return done
    state = common.state_of(template.text)
    number = lifecycle.next_generation(state, force=force)
    driver = common.driver()

    def report(progress: Progress) -> None:
        held.report(progress)
        if on_progress is not None:
            on_progress(progress)

    job = pipeline.Job(
        name=template,
        source=source,
        import_id=held.row.import_id,
        generation=number,
        driver=driver,
        archive=archive.archive(),
        rules=common.rules(),
        report=report,
        room=lambda resolved, transferred: space.require(driver, resolved, transferred),
        kept=layers.kept(driver),
        hand_made=state.current is not None and state.current.adopted and not state.missing,
    )

    def commit(made: pipeline.Made) -> Recorded:
        return _commit(job, made, force, context, event_id, held, unless)

    def committed() -> Recorded | None:
        connection.close_if_unusable_or_obsolete()  # it may be what broke
        store.settled()  # the server may still be at the commit that it was told
        found = store.about("import", job.import_id, types=(Imported.type,))
        return found[0] if found else None

    try:
        held.place(generation=number, dataset=job.relative)
        recorded = pipeline.run(job, commit, committed)
    except BaseException as error:
        if job.undecided:
            # Recovery asks the log once more when it can be asked, by the lease that stays.
            held.leave()
            logger.error("whether the import of %s is in the log is not known", template.text)
            raise
        if job.done:
            raise  # an interrupt that came after the commit: the generation is there
        _failed(job, error, context, held)
        if job.leftovers:
            held.leave_leftovers()
        if job.made_states and isinstance(error, Exception):  # an interrupt wants an end
            layers.prune_quietly()
        raise
    generations.point_alias(driver, template.text)
    if settings.COPPICE_COSIGN_KEYS is not None:
        attached.fetch_quietly(name=template.text, context=context)
    if job.made_states:
        layers.prune_quietly()
    return recorded


@common.decided_anew
def _commit(
    job: pipeline.Job,
    made: pipeline.Made,
    force: bool,
    context: Meta,
    event_id: UUID | None,
    held: leases.Held,
    unless: Callable[[], None],
) -> Recorded:
    """Append the event under the state that it was decided on."""
    stream = f"template:{job.name}"
    version = store.stream_version(stream)
    lifecycle.next_generation(common.state_of(job.name.text), force=force)
    unless()
    with transaction.atomic():
        (recorded,) = store.append(
            [_imported(job, made, force)],
            meta=context,
            expected={stream: version},
            event_ids=[event_id] if event_id else None,
        )
        held.confirm()
    return recorded


def _imported(job: pipeline.Job, made: pipeline.Made, force: bool) -> Imported:
    alias = job.driver.full_name(alias_name(job.name.text))
    return Imported(
        template=job.name.text,
        generation=job.generation,
        import_id=job.import_id,
        reference=f"{job.source.scheme}:{made.resolved.canonical}",
        reference_given=job.source.given,
        scheme=job.source.scheme,
        floating=made.resolved.floating,
        digests=made.resolved.digests,
        platform=str(made.resolved.platform),
        engine=made.receipt.engine,
        pool=job.driver.pool,
        dataset=made.dataset,
        origin=made.snapshot.name,
        snapshot_guid=made.snapshot.guid,
        alias=alias,
        snapshot=f"{alias}@{BASE}",
        size_bytes=made.snapshot.size_bytes,
        entries=made.entries,
        tree_digest=made.tree_digest,
        statement=made.statement.decode("ascii"),
        statement_digest=made.statement_digest,
        deviations=made.deviations,
        verdict=made.verdict,
        findings=made.findings,
        forced=force,
        milliseconds=made.milliseconds,
        fetched_bytes=made.receipt.fetched_bytes,
        cached_bytes=made.receipt.cached_bytes,
        written_bytes=made.receipt.written_bytes,
        moved_aside=made.moved_aside,
    )


def _failed(job: pipeline.Job, error: BaseException, context: Meta, held: leases.Held) -> None:
    _record_failure(
        job.name.text,
        job.import_id,
        f"{job.source.scheme}:{job.source.canonical}",
        job.stage,
        error,
        job,
        context,
        held,
    )


def _record_failure(
    name: str,
    import_id: str,
    reference: str,
    stage: str,
    error: BaseException,
    job: pipeline.Job | None,
    context: Meta,
    held: leases.Held | None = None,
) -> None:
    if isinstance(error, CoppiceError):
        code, detail = error.code, error.detail
        logger.info(
            "import of %s failed at %s: %s",
            name,
            stage,
            detail,
            extra={"code": code, "private": error.private},
        )
    else:
        # A timeout of the queue, an interrupt, or a fault of ours: the log has the trace.
        code = "interrupted" if not isinstance(error, Exception) else "internal_error"
        detail = f"The import ended with {type(error).__name__}."
        logger.error("import of %s failed at %s", name, stage, exc_info=error)
    reason = error.extra.get("reason") if isinstance(error, CoppiceError) else None
    failed = ImportFailed(
        template=name,
        import_id=import_id,
        reference=reference,
        stage=stage,
        code=code,
        reason=reason if isinstance(reason, str) else None,
        detail=detail,
        digest=job.resolved.digests.manifest if job and job.resolved else None,
        undone=tuple(job.undone) if job else (),
        leftovers=tuple(job.leftovers) if job else (),
    )
    try:
        with transaction.atomic():
            store.append([failed], meta=context)
            if held is not None:
                held.confirm()
    except Interrupted:
        logger.info("that import %s has failed, was said when it was taken over", import_id)
    except (CoppiceError, DatabaseError, ValueError) as lost:
        # The first error is what the caller must see; this one is for the log.
        logger.error("the failed import of %s could not be recorded: %s", name, lost)
        if held is not None:
            held.leave()  # whoever comes next finds it dead, and records that
