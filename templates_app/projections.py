"""Event -> read-model rows: the only writer of the read models.

``fold`` runs in the append's transaction, so a reader never sees an event without its effect.
``rebuild`` makes the same rows from the log alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any

from django.db import connection, models

from templates_app import projections_findings as of_findings
from templates_app.events import (
    Adopted,
    Destroyed,
    DomainEvent,
    Drifted,
    Imported,
    KeyRevoked,
    KeyTrusted,
    Recorded,
    Reloaded,
    Retired,
    RolledBack,
    SandboxCreated,
    SandboxDestroyed,
    SignatureWithdrawn,
    Signed,
    Verified,
)
from templates_app.models import (
    Binding,
    Finding,
    Generation,
    Key,
    Mention,
    Sandbox,
    Signature,
    Template,
)

#: In an order in which rows can be deleted: what refers comes before what is referred to.
READ_MODELS: tuple[type[models.Model], ...] = (
    Template,
    Generation,
    Signature,
    Key,
    Sandbox,
    Finding,
    Binding,
    Mention,
)

_BATCH = 500
_BINDING = ("digest", "statement_digest")


def changes_rows(event: DomainEvent) -> bool:
    """Whether ``fold`` does anything for this event: else an append need not wait for it."""
    return type(event) in _FOLDS


def fold(recorded: Iterable[Recorded]) -> None:
    """Bring the read models, but the mentions, which the store writes with the event, up to these
    events. Must run in the transaction that appends them."""
    for one in recorded:
        if (change := _FOLDS.get(type(one.event))) is not None:
            change(one.event, one)


def rebuild(events: Iterable[Recorded]) -> int:
    """Drop all rows and fold ``events`` (the whole log, in order). The caller holds a transaction.

    Returns the number of events folded.
    """
    for model in READ_MODELS:
        model._default_manager.all().delete()
    count = 0
    source = iter(events)
    while batch := list(islice(source, _BATCH)):
        _mention(batch)
        fold(batch)
        count += len(batch)
    return count


def rows() -> dict[str, list[dict[str, Any]]]:
    """Every read-model row by table, without surrogate keys: what ``--check`` compares."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in READ_MODELS:
        fields = model._meta.concrete_fields
        names = [f.attname for f in fields if f.get_internal_type() != "BigAutoField"]
        table = model._default_manager.order_by(*names[:3]).values(*names)
        found[model._meta.object_name or ""] = list(table)
    return found


def _mention(recorded: Sequence[Recorded]) -> None:
    Mention.objects.bulk_create(
        [
            Mention(kind=kind, key=key, position=one.position)
            for one in recorded
            for kind, key in one.event.indexed()
        ]
    )


def _put(row: models.Model, *, once: tuple[str, ...] = ()) -> None:
    """The row is there as it is here, whatever was under its key; or, with ``once``, it is there
    unless another has these columns already.

    One statement, made once for a table: all appends wait for it, and update_or_create takes four.
    """
    table = type(row)._meta
    fields = table.concrete_fields
    statement = _upsert(type(row), once)
    with connection.cursor() as cursor:
        cursor.execute(
            statement,
            [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields],
        )


@cache
def _upsert(model: type[models.Model], once: tuple[str, ...]) -> str:
    """``INSERT … ON CONFLICT``, which PostgreSQL and SQLite spell alike."""
    columns = [str(field.column) for field in model._meta.concrete_fields]
    key = once or [str(field.column) for field in model._meta.pk_fields]
    new = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {model._meta.db_table} ({', '.join(columns)})"  # noqa: S608
        f" VALUES ({', '.join(['%s'] * len(columns))})"
        f" ON CONFLICT ({', '.join(key)}) DO {'NOTHING' if once else f'UPDATE SET {new}'}"
    )


def _imported(event: Imported, one: Recorded) -> None:
    generation = Generation(
        id=generation_key(event.template, event.generation),
        template_name=event.template,
        number=event.generation,
        position=one.position,
        import_id=event.import_id,
        adopted=False,
        scheme=event.scheme,
        reference=event.reference,
        floating=event.floating,
        index_digest=event.digests.index or "",
        manifest_digest=event.digests.manifest,
        config_digest=event.digests.config,
        platform=event.platform,
        engine=event.engine,
        dataset=event.dataset,
        origin=event.origin,
        snapshot_guid=event.snapshot_guid,
        size_bytes=event.size_bytes,
        entries=event.entries,
        tree_digest=event.tree_digest,
        statement=event.statement,
        statement_digest=event.statement_digest,
        deviations=event.to_json()["deviations"],
        verdict=event.to_json()["verdict"],
        findings=list(event.findings),
        milliseconds=event.milliseconds,
        fetched_bytes=event.fetched_bytes,
        cached_bytes=event.cached_bytes,
        written_bytes=event.written_bytes,
        imported_at=one.recorded_at,
        imported_by=one.meta.actor,
        kept_position=None,
        destroyed_position=None,
        retired=False,
    )
    _put(generation)
    _bind(event.statement_digest, event.tree_digest, event.digests.manifest)
    if event.moved_aside:
        Generation.objects.filter(pk=generation_key(event.template, 0)).update(
            dataset=event.moved_aside, origin=f"{event.moved_aside}@base"
        )
    _make_current(generation, event.snapshot, one)


def _signed(event: Signed, one: Recorded) -> None:
    # The first one stays: a key's second signature over the same text says nothing new.
    _put(
        Signature(
            statement_digest=event.statement_digest,
            public_key=event.public_key,
            position=one.position,
            template_name=event.template,
            key_id=event.key_id,
            key_label=event.key_label,
            signature=event.signature,
            signed_at=one.recorded_at,
            signed_by=one.meta.actor,
        ),
        once=("statement_digest", "public_key"),
    )
    Template.objects.filter(name=event.template).update(position=one.position)


def _signature_withdrawn(event: SignatureWithdrawn, one: Recorded) -> None:
    # The row stays: the same signature, which stands in the log, must not count once more.
    Signature.objects.filter(
        statement_digest=event.statement_digest, public_key=event.public_key
    ).update(
        withdrawn_position=one.position,
        withdrawn_at=one.recorded_at,
        withdrawn_by=one.meta.actor,
        withdrawn_note=event.note,
    )
    Template.objects.filter(name=event.template).update(position=one.position)


def _destroyed(event: Destroyed, one: Recorded) -> None:
    Template.objects.filter(name=event.template).delete()
    standing = Generation.objects.filter(
        template_name=event.template, destroyed_position__isnull=True
    )
    standing.exclude(number__in=event.kept).update(destroyed_position=one.position)
    standing.filter(number__in=event.kept, kept_position__isnull=True).update(
        kept_position=one.position
    )
    of_findings.destroyed(event.template, event.kept, one)


def _rolled_back(event: RolledBack, one: Recorded) -> None:
    Template.objects.filter(name=event.template).update(
        current_id=generation_key(event.template, event.generation),
        missing=False,
        position=one.position,
    )


def _retired(event: Retired, one: Recorded) -> None:
    Generation.objects.filter(pk=generation_key(event.template, event.generation)).update(
        destroyed_position=one.position, retired=True
    )
    Template.objects.filter(name=event.template).update(position=one.position)
    of_findings.retired(event.template, event.generation, one)


def _reloaded(event: Reloaded, one: Recorded) -> None:
    for adopted in (*event.added, *event.changed):
        _adopted(adopted, one)
    Template.objects.filter(name__in=event.missing).update(missing=True, position=one.position)
    Template.objects.filter(name__in=event.returned).update(missing=False, position=one.position)
    of_findings.compared(event.findings, one, deep=event.verified)


def _verified(event: Verified, one: Recorded) -> None:
    if event.result == "unreadable":
        of_findings.not_looked_into(event.template, event.generation, event.findings(), one)
    else:
        of_findings.looked_into(event.template, event.generation, event.findings(), one)


def _drifted(event: Drifted, one: Recorded) -> None:
    away = event.state != "current"
    Generation.objects.filter(pk=generation_key(event.template, event.generation)).update(
        drift=event.state if away else "",
        drift_digest=event.found_digest or "" if away else "",
        drift_since=one.recorded_at if away else None,
    )
    Template.objects.filter(name=event.template).update(position=one.position)


def _adopted(adopted: Adopted, one: Recorded) -> None:
    generation = Generation(
        id=generation_key(adopted.template, 0),
        template_name=adopted.template,
        number=0,
        position=one.position,
        adopted=True,
        dataset=adopted.dataset,
        origin=adopted.snapshot,
        snapshot_guid=adopted.snapshot_guid,
        size_bytes=adopted.size_bytes,
        entries=adopted.entries,
        tree_digest=adopted.tree_digest,
        statement=adopted.statement,
        statement_digest=adopted.statement_digest,
        imported_at=one.recorded_at,
        imported_by=one.meta.actor,
        kept_position=None,
        destroyed_position=None,
        retired=False,
    )
    _put(generation)
    _bind(adopted.statement_digest, adopted.tree_digest)
    _make_current(generation, adopted.snapshot, one)


def _make_current(generation: Generation, snapshot: str, one: Recorded) -> None:
    """The generation's name points at it from this event on; ``snapshot`` is the alias's."""
    _put(
        Template(
            name=generation.template_name,
            current=generation,
            snapshot=snapshot,
            missing=False,
            position=one.position,
        )
    )


def _bind(statement_digest: str, *digests: str) -> None:
    """Launches name these digests, and are indexed by the statement alone."""
    for digest in digests:
        _put(Binding(digest=digest, statement_digest=statement_digest), once=_BINDING)


def _sandbox_created(event: SandboxCreated, one: Recorded) -> None:
    _put(launched(event, one))


def launched(event: SandboxCreated, one: Recorded) -> Sandbox:
    """The row of a sandbox as it begins."""
    return Sandbox(
        id=event.sandbox,
        template_name=event.template,
        generation=event.generation,
        dataset=event.dataset,
        origin=event.origin,
        signed=event.signed,
        key_id=event.key_id or "",
        gate=event.gate,
        created_at=one.recorded_at,
        created_by=one.meta.actor,
        destroyed_at=None,
        position=one.position,
    )


def _sandbox_destroyed(event: SandboxDestroyed, one: Recorded) -> None:
    Sandbox.objects.filter(pk=event.sandbox).update(
        destroyed_at=one.recorded_at, position=one.position
    )


def _key_trusted(event: KeyTrusted, one: Recorded) -> None:
    _known_key(event)
    # Not the columns of a revocation: whatever comes after one, it stays.
    Key.objects.filter(pk=event.public_key).update(
        label=event.label,
        owner=event.owner,
        purpose=event.purpose,
        not_before=_moment(event.not_before),
        not_after=_moment(event.not_after),
        scope=list(event.scope),
        predecessor=event.predecessor or "",
        trusted_position=one.position,
        trusted_at=one.recorded_at,
        trusted_by=one.meta.actor,
    )


def _key_revoked(event: KeyRevoked, one: Recorded) -> None:
    _known_key(event)  # one that the directory alone trusts has no row yet
    Key.objects.filter(pk=event.public_key).update(
        revoked_position=one.position,
        revoked_since=one.position if event.since is None else event.since,
        revoked_reason=event.reason,
        revoked_note=event.note,
        revoked_at=one.recorded_at,
        revoked_by=one.meta.actor,
    )


def _known_key(event: KeyTrusted | KeyRevoked) -> None:
    key = Key(public_key=event.public_key, key_id=event.key_id, label=event.label, scope=["*"])
    _put(key, once=("public_key",))


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


#: What each event does to the rows. Refusals and failures change none; histories find them by
#: their mentions.
_FOLDS: dict[type[DomainEvent], Callable[[Any, Recorded], None]] = {
    Imported: _imported,
    Signed: _signed,
    SignatureWithdrawn: _signature_withdrawn,
    Destroyed: _destroyed,
    RolledBack: _rolled_back,
    Retired: _retired,
    Reloaded: _reloaded,
    Verified: _verified,
    Drifted: _drifted,
    SandboxCreated: _sandbox_created,
    SandboxDestroyed: _sandbox_destroyed,
    KeyTrusted: _key_trusted,
    KeyRevoked: _key_revoked,
}


def generation_key(template: str, number: int) -> str:
    return f"{template}@{number}"
