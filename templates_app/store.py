"""The log: ``append`` is the only writer of events, ``read`` and its kin the only way to them.

An append is one short transaction, or joins the caller's: it takes the lock that orders all
appends, checks the versions that the caller saw, gives out positions and versions, hashes, inserts,
and applies the projections. Because the lock is held to the commit, positions are gap-free and in
commit order, so whoever tails the log by position misses nothing. On PostgreSQL all but the
projections is one statement (append.sql, insert.sql).
"""

from __future__ import annotations

import datetime
import json
import json.scanner
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from django.db import (
    DEFAULT_DB_ALIAS,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)

from templates_app import projections, sql, store_leaves
from templates_app import store_writers as writers
from templates_app.codec import Json, PayloadInvalid, assembler, reader
from templates_app.codec import text as encoded
from templates_app.errors import (
    CoppiceError,
    DatabaseUnavailable,
    OutOfSpace,
    StorageReadOnly,
)
from templates_app.events import DomainEvent, Meta, Recorded, from_json, streams_about

_READ_AT_ONCE = 1000  # rows per query of a long read
_MENTIONED = re.compile(r"[!-~]{1,100}")
# Printable ASCII that is the same inside a JSON string, so that the database can hash it as it is.
_STREAM = re.compile(r"[a-z][a-z-]{0,30}:[!#-\[\]-~]{1,68}")


def append(
    events: DomainEvent | Sequence[DomainEvent],
    *,
    meta: Meta,
    expected: Mapping[str, int] | None = None,
    event_ids: Sequence[uuid.UUID] | None = None,
) -> list[Recorded]:
    """The events are in the log, in this order, with their projections; or nothing has changed.

    ``expected`` says which version each stream must be at (0: must not exist); any other raises
    EventConflict. ``event_ids`` makes a repeated call harmless: an event whose id, type, schema,
    stream and data are in the log already is returned as it was recorded, without anything being
    written (``meta`` may differ: a second try has another request id), and if that is so of all,
    ``expected`` is not looked at. The same id with other content raises EventIdReused. Neither
    error harms a transaction of the caller's. Also raises DatabaseUnavailable, StorageReadOnly,
    OutOfSpace; and PayloadInvalid, ValueError for events that cannot be written.
    """
    batch = [events] if isinstance(events, DomainEvent) else list(events)
    drafts = _drafts(batch, event_ids)
    if not drafts:
        return []
    text, given = encoded(meta), event_ids is not None
    folds = any(projections.changes_rows(event) for event in batch)
    with _database_errors():
        # Not Django's proxy, which looks the connection up at each use.
        database = connections[DEFAULT_DB_ALIAS]
        if not folds and database.get_autocommit():
            # On PostgreSQL one statement is a transaction of its own: no BEGIN and no COMMIT to
            # wait for. On SQLite it spares what Django does around one.
            outcome = writers.write(database, drafts, text, expected or {}, given=given)
        else:
            # Without a savepoint: a projection that fails must take the caller's transaction with
            # it, even if the caller swallows the exception; an event without its effect must not
            # be committed.
            with transaction.atomic(savepoint=False):
                outcome = writers.write(database, drafts, text, expected or {}, given=given)
                if folds and not isinstance(outcome, CoppiceError):
                    new = [pair for pair in zip(drafts, outcome, strict=True) if not pair[1].known]
                    projections.fold([_recorded(*pair, meta) for pair in new])
    if isinstance(outcome, CoppiceError):
        raise outcome
    return [_recorded(*pair, meta) for pair in zip(drafts, outcome, strict=True)]


def read(
    *, after: int = 0, limit: int | None = None, types: Collection[str] | None = None
) -> Iterator[Recorded]:
    """Events with a position above ``after``, in order, at most ``limit``, of ``types`` if given.

    Memory stays small however long the log is: rows come in chunks, each by a query of its own, so
    that no transaction is held open, and what is appended meanwhile is read too. Raises
    PayloadInvalid, naming the position, for an event that this program cannot read.
    """
    where, parameters = ["position > %s"], []
    if types is not None:
        if not types:
            return
        where.append(f"type IN ({', '.join(['%s'] * len(types))})")
        parameters = list(types)
    left = limit
    while left is None or left > 0:
        size = _READ_AT_ONCE if left is None else min(_READ_AT_ONCE, left)
        rows = _rows(
            f"WHERE {' AND '.join(where)} ORDER BY position LIMIT %s", [after, *parameters, size]
        )
        # Made one by one: an event that the reader is done with makes room for the next.
        for row in rows:
            yield _from_row(row)
        if len(rows) < size:
            return
        after = rows[-1][0]
        left = None if left is None else left - len(rows)


def export(*, after: int = 0, last: int = 2**62) -> Iterator[str]:
    """The events to ``last`` as they were recorded, a line of RFC 8785 JSON each, in order.

    ``eventId`` and ``leafHash`` aside, the line is what the leaf hash is made of. Nothing is
    decoded: what this program cannot read is exported all the same.
    """
    where = "WHERE position > %s AND position <= %s ORDER BY position LIMIT %s"
    while rows := _rows(where, [after, last, _READ_AT_ONCE]):
        yield from map(_line, rows)
        after = rows[-1][0]


def export_at(positions: Sequence[int]) -> Iterator[str]:
    """The same lines, of the events at these positions alone."""
    ordered = sorted(positions)
    for start in range(0, len(ordered), _READ_AT_ONCE):
        part = ordered[start : start + _READ_AT_ONCE]
        marks = ", ".join(["%s"] * len(part))
        yield from map(_line, _rows(f"WHERE position IN ({marks}) ORDER BY position", part))


def _line(row: tuple[Any, ...]) -> str:
    position, event_id, stream, version, type_, schema, data, meta, at, leaf = row
    return (
        f'{{"data":{data},"eventId":"{_uuid(event_id)}","leafHash":"{leaf}","meta":{meta},'
        f'"position":{position},"recordedAt":"{writers.moment(_utc(at))}",'
        f'"schema":{schema},"stream":"{stream}","type":"{type_}","version":{version}}}'
    )


def leaves(*, after: int | None = 0) -> Iterator[tuple[int, bytes | None, str]]:
    """(position, leaf data made anew from the row, the leaf hash recorded with it), in order.

    None begins below all positions, where no append ever wrote. Leaf data is None where a column
    is NULL. Memory stays small, and nothing is decoded: a row may hold anything.
    """
    query = store_leaves.QUERIES[connection.vendor]
    last = -(2**63) if after is None else after
    while True:
        with _database_errors(), connection.cursor() as cursor:
            cursor.execute(query, [last, _READ_AT_ONCE])
            rows = cursor.fetchall()
        yield from rows
        if len(rows) < _READ_AT_ONCE:
            return
        last = rows[-1][0]


def mentioned() -> int:
    """The highest position that the index of mentions knows; ``size`` is what the events say."""
    return _number("SELECT coalesce(max(position), 0) FROM templates_app_mention", [])


def read_stream(stream: str, *, after_version: int = 0) -> list[Recorded]:
    """The events of one stream with a version above ``after_version``, in order."""
    return _select("WHERE stream = %s AND version > %s ORDER BY version", [stream, after_version])


def last_in(stream: str) -> Recorded | None:
    """The stream's last event."""
    return next(iter(_select("WHERE stream = %s ORDER BY version DESC LIMIT 1", [stream])), None)


def about(
    kind: str,
    key: str,
    *,
    after: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
    types: Collection[str] = (),
) -> list[Recorded]:
    """Events that mention the thing: ``about("digest", "sha256:…")``, all or of ``types``.

    In order of position.
    """
    streams = streams_about(kind, key)
    text = (
        "WHERE e.position IN (SELECT m.position FROM templates_app_mention m WHERE m.kind = %s"
        " AND m.key = %s UNION SELECT s.position FROM templates_app_event s"
        " WHERE s.stream IN (%s, %s)) AND e.position > %s"
    )
    parameters: list[Any] = [kind, key, streams[0], streams[-1], after]
    if kind == "digest":  # by itself, and by the statements that bind it: then it can be both
        text = (
            "WHERE e.position IN (SELECT m.position FROM templates_app_mention m WHERE m.kind = %s"
            " AND m.key IN (SELECT %s UNION SELECT statement_digest FROM templates_app_binding"
            " WHERE digest = %s)) AND e.position > %s"
        )
        parameters = [kind, key, key, after]
    if types:
        text += f" AND e.type IN ({', '.join(['%s'] * len(types))})"
        parameters += types
    text += " ORDER BY e.position"
    if newest_first:
        text += " DESC"
    if limit is not None:
        text += " LIMIT %s"
        parameters.append(limit)
    return _select(text, parameters, often=limit is None and bool(types))  # what a launch asks


def stream_version(stream: str) -> int:
    """The version of the stream's last event; 0 where there is none."""
    return _number(
        "SELECT coalesce(max(version), 0) FROM templates_app_event WHERE stream = %s", [stream]
    )


def find(event_id: uuid.UUID) -> Recorded | None:
    """The event with this id, if it is in the log."""
    where, parameters = writers.by_id(event_id)
    return next(iter(_select(f"WHERE {where}", parameters)), None)


def position_of(event_id: uuid.UUID) -> int | None:
    """Where the event with this id is, also one that this program cannot read."""
    where, parameters = writers.by_id(event_id)
    rows = _rows(f"WHERE {where}", parameters)
    return int(rows[0][0]) if rows else None


def at(position: int) -> Recorded:
    """The event at a position that is known to be there."""
    (found,) = _select("WHERE position = %s", [position])
    return found


def lock() -> None:
    """Hold up all appends until the caller's transaction ends."""
    if connection.vendor == "postgresql":  # SQLite's transactions are IMMEDIATE: they have the lock
        _execute("SELECT pg_advisory_xact_lock(7310)")


def settled() -> None:
    """Return when every append that has begun is over, also one of a process that died in it.

    A server that was told to commit does so, whether or not anybody waits for the answer.
    """
    with _database_errors(), transaction.atomic():
        lock()


def size() -> int:
    """How many events there are; also the last one's position."""
    return _number("SELECT coalesce(max(position), 0) FROM templates_app_event", [])


def last_of(types: Collection[str]) -> int:
    """The position of the last event of these types, none of launches; 0 where there is none."""
    query = "SELECT coalesce(max(position), 0) FROM templates_app_mention WHERE kind = 'type'"
    return _number(f"{query} AND key IN ({', '.join(['%s'] * len(types))})", list(types))


def first_since(moment: datetime.datetime) -> int:
    """The position of the first event recorded at ``moment`` or later; one after the last if none.

    Positions are in the order of recording, so halving the log finds it: an index of times would
    cost each append more than such questions are worth. Where a clock was put back over the moment,
    so that times cross it more than once, it is the position of one of the crossings.
    """
    return _number(_HALVE, [connection.ops.adapt_datetimefield_value(moment)] * 2)


# --- writing -----------------------------------------------------------------------------------


def _drafts(batch: list[DomainEvent], event_ids: Sequence[uuid.UUID] | None) -> list[writers.Draft]:
    if event_ids is None:
        return [_draft(None, event) for event in batch]
    if len(event_ids) != len(batch) or len(set(event_ids)) != len(batch):
        raise ValueError("each event needs one id of its own")
    for event_id in event_ids:
        if writers.tells(event_id) and find(event_id) is None:
            raise ValueError("ids of version 8 say a position: only the store gives them")
    return [_draft(*pair) for pair in zip(event_ids, batch, strict=True)]


def _draft(event_id: uuid.UUID | None, event: DomainEvent) -> writers.Draft:
    stream, mentions = event.stream(), event.indexed()
    if not _STREAM.fullmatch(stream):
        raise PayloadInvalid(f"{stream!r} is not the name of a stream")
    for _, key in mentions:
        if not _MENTIONED.fullmatch(key):
            raise PayloadInvalid(f"{key!r} cannot be looked up")
    return writers.Draft(event_id, event, stream, encoded(event), mentions)


def _recorded(draft: writers.Draft, place: writers.Place, meta: Meta) -> Recorded:
    if place.known:
        return at(place.position)
    event = draft.event
    return _assemble(
        place.position,
        place.event_id,
        draft.stream,
        place.version,
        event.type,
        event.schema,
        event,
        meta,
        place.recorded_at,
        place.leaf_hash,
    )


# --- reading -----------------------------------------------------------------------------------

_COLUMNS = "position, event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash"
_SELECT = "SELECT " + ", ".join(f"e.{name}" for name in _COLUMNS.split(", "))
# Times as text, which the standard library reads in a tenth of the time of either database's
# driver. SQLite's column holds UTC without saying so.
_SELECT_FROM = {
    "postgresql": _SELECT.replace("e.recorded_at", "e.recorded_at::text"),
    "sqlite": _SELECT.replace("e.recorded_at", "e.recorded_at || '+00:00'"),
}
_HALVE = """
WITH RECURSIVE half (low, high) AS (
  SELECT CAST(1 AS bigint), (SELECT coalesce(max(position), 0) + 1 FROM templates_app_event)
  UNION ALL
  SELECT
    CASE WHEN e.recorded_at < %s THEN e.position + 1 ELSE low END,
    CASE WHEN e.recorded_at < %s THEN high ELSE e.position END
  FROM half JOIN templates_app_event e ON e.position = (low + high) / 2
  WHERE low < high
)
SELECT low FROM half WHERE low = high
"""
_assemble: Callable[..., Recorded] = assembler(Recorded)
_meta: Callable[[Json], Meta] = reader(Meta)
_decoder: Any = json.JSONDecoder()  # its scanner, without the search for white space around
_scan: Callable[[str, int], tuple[Json, int]] = json.scanner.make_scanner(_decoder)


def _rows(rest: str, given: Sequence[Any], *, often: bool = False) -> list[tuple[Any, ...]]:
    """``often``: with a plan that is kept, so not where a limit decides which is the best."""
    query = f"{_SELECT_FROM[connection.vendor]} FROM templates_app_event e {rest}"  # noqa: S608
    with _database_errors():
        if often:
            return sql.rows(query, given)
        with connection.cursor() as cursor:
            cursor.execute(query, given)
            return list(cursor.fetchall())


def _select(rest: str, parameters: Sequence[Any], *, often: bool = False) -> list[Recorded]:
    return [_from_row(row) for row in _rows(rest, parameters, often=often)]


def _from_row(row: tuple[Any, ...]) -> Recorded:
    position, event_id, stream, version, type_, schema, data, meta, at, leaf = row
    try:
        event = from_json(type_, schema, _parsed(data))
        read_meta = _meta(_parsed(meta))
    except ValueError as error:  # PayloadInvalid, or text that is not JSON
        raise PayloadInvalid(f"event at position {position}: {error}") from error
    return _assemble(
        position, _uuid(event_id), stream, version, type_, schema, event, read_meta, _utc(at), leaf
    )


def _parsed(text: str) -> Json:
    # Canonical JSON has no white space around it, and json.loads takes half its time to look.
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else json.loads(text)  # which says what is wrong


def _uuid(stored: uuid.UUID | str) -> uuid.UUID:
    if not isinstance(stored, str):
        return stored
    return writers.made_id(int(stored, 16))  # SQLite has 32 digits


def _utc(at: str) -> datetime.datetime:
    read = datetime.datetime.fromisoformat(at)
    return read if read.tzinfo is datetime.UTC else read.astimezone(datetime.UTC)


def _execute(statement: str) -> None:
    with _database_errors(), connection.cursor() as cursor:
        cursor.execute(statement)


def _number(query: str, parameters: Sequence[Any]) -> int:
    with _database_errors():
        return int(sql.rows(query, parameters)[0][0])


class _database_errors:  # noqa: N801 # reads as the statement that it is
    """What the database says when it cannot be used, in our words."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, (OperationalError, InternalError, InterfaceError)):
            return
        state = getattr(error.__cause__, "sqlstate", None)  # PostgreSQL's, errcodes appendix
        text = str(error)
        if state == "53100" or "disk is full" in text:
            raise OutOfSpace("The database's disk is full.", private=text) from error
        if state == "25006" or "readonly database" in text:
            raise StorageReadOnly("The database is read-only.", private=text) from error
        raise DatabaseUnavailable("The database cannot be used.", private=text) from error
