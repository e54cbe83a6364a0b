"""How each database appends: PostgreSQL in one statement, SQLite under its one write lock.

Only ``store`` calls this. A writer gives out positions and versions, hashes, inserts the events and
the index of what they mention; or it writes nothing and returns the reason.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from templates_app import sql
from templates_app.errors import CoppiceError, EventConflict, EventIdReused
from templates_app.events import DomainEvent


class Draft(NamedTuple):
    """An event on its way in. It gets an id where its caller gave none."""

    event_id: uuid.UUID | None
    event: DomainEvent
    stream: str
    data: str  # canonical JSON
    mentions: Sequence[tuple[str, str]]  # (kind, key)


class Place(NamedTuple):
    """Where a draft went, or (``known``, then only the position is told) has been already."""

    known: bool
    event_id: uuid.UUID
    position: int
    version: int
    recorded_at: datetime.datetime
    leaf_hash: str


Outcome = list[Place] | CoppiceError


def write(
    connection: BaseDatabaseWrapper,
    drafts: Sequence[Draft],
    meta: str,
    expected: Mapping[str, int],
    *,
    given: bool,
) -> Outcome:
    """Append. ``given``: the ids are the caller's, so that they may be in the log already."""
    sql.begin(connection)
    # Not Django's cursors: PostgreSQL's puts the parameters into the text, which the server would
    # have to parse and plan at each append; SQLite's rewrites each statement, which took as long
    # as SQLite itself. What else they do for a statement, stands here.
    with connection.wrap_database_errors:
        if connection.vendor == "sqlite":
            return _sqlite(connection, drafts, meta, expected)
        one = len(drafts) == 1 and not given and not expected.keys() - {drafts[0].stream}
        if one and len(drafts[0].mentions) < _MANY_MENTIONS:
            return _postgresql_one(connection.connection, drafts[0], meta, expected)
        return _postgresql(connection.connection, drafts, meta, expected, given)


def moment(at: datetime.datetime) -> str:
    """``recordedAt`` as it is hashed and exported: ``2026-01-02T03:04:05.000006Z``."""
    text = at.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    return text[: -len("+00:00")] + "Z"


# --- PostgreSQL --------------------------------------------------------------------------------

# What the row does not say, the trigger does (insert.sql).
_EVENT = """\
INSERT INTO templates_app_event (event_id, stream, version, type, schema, data, meta)
VALUES (%s::uuid, %s, %s::integer, %s, %s::smallint, %s, %s)
RETURNING position, version, recorded_at, leaf_hash"""
_MANY_MENTIONS = 8  # a statement is kept for each number below
_VERSION = "SELECT coalesce(max(version), 0) FROM templates_app_event WHERE stream = %s"
_APPEND = (
    "SELECT * FROM coppice_append(%s::uuid[], %s::text[], %s::smallint[], %s, %s, %s,"
    " %s::text[], %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::text[])"
)


def _postgresql_one(
    server: psycopg.Connection[Any], draft: Draft, meta: str, expected: Mapping[str, int]
) -> Outcome:
    stream, event, wanted = draft.stream, draft.event, expected.get(draft.stream)
    chance = telling_id(0)
    version = None if wanted is None else wanted + 1
    parameters = [chance.hex, stream, version, event.type, event.schema, draft.data, meta]
    for mention in draft.mentions:
        parameters += mention
    statement = _append_one(len(draft.mentions))
    row: Any
    with psycopg.Cursor(server) as cursor:
        while (row := cursor.execute(statement, parameters, prepare=True).fetchone()) is None:
            # By a statement of its own, for that one sees nothing of what it waited for. If the
            # stream has meanwhile come to where it was expected, the append can go on.
            (actual,) = cursor.execute(_VERSION, [stream]).fetchone() or (0,)
            if actual != wanted:
                return _conflict(stream, expected[stream], actual)
    position, version, at, leaf = row
    at = at.astimezone(datetime.UTC)
    return [Place(False, _told(chance, position), position, version, at, leaf)]


@functools.cache
def _append_one(mentions: int) -> str:
    """The event with so many mentions: as values, for arrays take the server longer to unpack.

    They are inserted whether they are read from or not: PostgreSQL, data-modifying statements in
    WITH.
    """
    if not mentions:
        return _EVENT
    values = ", ".join(["(%s::text, %s::text)"] * mentions)
    return (
        f"WITH event AS ({_EVENT}), mentions AS ("  # noqa: S608
        " INSERT INTO templates_app_mention (kind, key, position)"
        " SELECT m.kind, m.key, event.position"
        f" FROM event, (VALUES {values}) AS m(kind, key)) SELECT * FROM event"
    )


def _postgresql(
    server: psycopg.Connection[Any],
    drafts: Sequence[Draft],
    meta: str,
    expected: Mapping[str, int],
    given: bool,
) -> Outcome:
    ids = [draft.event_id or telling_id(0) for draft in drafts]
    streams = list(dict.fromkeys([draft.stream for draft in drafts] + list(expected)))
    nth = {stream: number for number, stream in enumerate(streams, 1)}
    mentions = [
        (number, kind, key)
        for number, draft in enumerate(drafts, 1)
        for kind, key in draft.mentions
    ]
    parameters = [
        _numbers([event_id.hex for event_id in ids]),
        _texts([draft.event.type for draft in drafts]),
        _numbers([draft.event.schema for draft in drafts]),
        "\n".join([draft.data for draft in drafts]),
        meta,
        given,
        _texts(streams),
        _numbers([expected.get(stream, "NULL") for stream in streams]),
        _numbers([nth[draft.stream] for draft in drafts]),
        _numbers([number for number, _, _ in mentions]),
        _texts([kind for _, kind, _ in mentions]),
        _texts([key for _, _, key in mentions]),
    ]
    with psycopg.Cursor(server) as cursor:
        row: Any = cursor.execute(_APPEND, parameters, prepare=True).fetchone()
    outcome, culprit, actual, at, positions, versions, leaves, known = row
    if outcome == "conflict":
        stream = streams[culprit - 1]
        return _conflict(stream, expected[stream], actual)
    if outcome == "reused":
        return _reused(ids[culprit - 1], actual)
    at = at.astimezone(datetime.UTC)
    if not given:
        ids = list(map(_told, ids, positions))
    if not any(known):
        return [
            Place(False, event_id, position, version, at, leaf)
            for event_id, position, version, leaf in zip(
                ids, positions, versions, leaves, strict=True
            )
        ]
    return [
        Place(True, ids[i], positions[i], 0, at, "")
        if known[i]
        else Place(False, ids[i], positions[i], versions[i], at, leaves[i])
        for i in range(len(drafts))
    ]


def _numbers(items: Iterable[object]) -> str:
    """An array literal of what needs no quotes. psycopg adapts lists too, in far longer."""
    return "{" + ",".join(map(str, items)) + "}"


def _texts(items: Sequence[str]) -> str:
    if not items:
        return "{}"
    quoted = '","'.join([item.replace("\\", "\\\\").replace('"', '\\"') for item in items])
    return '{"' + quoted + '"}'


# --- SQLite ------------------------------------------------------------------------------------


def _sqlite(
    connection: BaseDatabaseWrapper,
    drafts: Sequence[Draft],
    meta: str,
    expected: Mapping[str, int],
) -> Outcome:
    """In the caller's transaction, or, outside any, in one of its own.

    Either begins as IMMEDIATE: it has the database's one write lock from its first statement on.
    """
    database: sqlite3.Connection = connection.connection
    cursor = database.cursor()
    if connection.in_atomic_block:
        return _sqlite_append(cursor, drafts, meta, expected)
    if not connection.get_autocommit():
        raise RuntimeError("an append needs a transaction of its own, or an atomic block")
    cursor.execute("BEGIN IMMEDIATE")
    try:
        outcome = _sqlite_append(cursor, drafts, meta, expected)
        cursor.execute("COMMIT")
    finally:  # after an error, or a COMMIT that failed
        if database.in_transaction:
            cursor.execute("ROLLBACK")
    return outcome


# Of the log and of a stream, in one statement: each takes SQLite as long to begin as to do.
_LAST = (
    "SELECT coalesce((SELECT max(position) FROM templates_app_event), 0), coalesce(max(version), 0)"
    " FROM templates_app_event WHERE stream = ?"
)


def _sqlite_append(
    cursor: sqlite3.Cursor,
    drafts: Sequence[Draft],
    meta: str,
    expected: Mapping[str, int],
) -> Outcome:
    known: dict[uuid.UUID | None, Place] = {}
    for draft in drafts:
        if draft.event_id is None:
            continue
        where, parameters = by_id(draft.event_id)
        row = cursor.execute(
            "SELECT position, stream, type, schema, data FROM templates_app_event"  # noqa: S608
            f" WHERE {where.replace('%s', '?')}",
            parameters,
        ).fetchone()
        if row is not None:
            if row[1:] != (draft.stream, draft.event.type, draft.event.schema, draft.data):
                return _reused(draft.event_id, row[0])
            known[draft.event_id] = Place(
                True, draft.event_id, row[0], 0, datetime.datetime.min, ""
            )
    fresh = [draft for draft in drafts if draft.event_id not in known] if known else drafts
    if not fresh:
        return [known[draft.event_id] for draft in drafts]

    position, versions = 0, {}
    for stream in {**expected, **dict.fromkeys([draft.stream for draft in fresh])}:
        position, version = cursor.execute(_LAST, [stream]).fetchone()
        versions[stream] = version
        if versions[stream] != expected.get(stream, versions[stream]):
            return _conflict(stream, expected[stream], versions[stream])

    now = datetime.datetime.now(datetime.UTC)
    stamp, stored = moment(now), str(now.replace(tzinfo=None))
    places, rows, mentions = [], [], []
    for draft in fresh:
        position += 1
        event, stream = draft.event, draft.stream
        version = versions[stream] = versions[stream] + 1
        leaf = leaf_hash(draft, meta, position, version, stamp)
        event_id = draft.event_id or telling_id(position)
        places.append(Place(False, event_id, position, version, now, leaf))
        rows.append(
            (position, event_id.hex, stream, version, event.type, event.schema)
            + (draft.data, meta, stored, leaf)
        )
        mentions += [(kind, key, position) for kind, key in draft.mentions]
    cursor.executemany(
        "INSERT INTO templates_app_event (position, event_id, stream, version, type, schema,"
        " data, meta, recorded_at, leaf_hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    cursor.executemany(
        "INSERT INTO templates_app_mention (kind, key, position) VALUES (?, ?, ?)", mentions
    )
    if not known:
        return places
    new = iter(places)
    return [known.get(draft.event_id) or next(new) for draft in drafts]


def leaf_hash(draft: Draft, meta: str, position: int, version: int, stamp: str) -> str:
    """RFC 6962 leaf hash of the event's RFC 8785 form: keys in order, ``data`` and ``meta`` raw."""
    text = (
        f'{{"data":{draft.data},"meta":{meta},"position":{position},"recordedAt":"{stamp}",'
        f'"schema":{draft.event.schema},"stream":"{draft.stream}","type":"{draft.event.type}",'
        f'"version":{version}}}'
    )
    return hashlib.sha256(b"\0" + text.encode()).hexdigest()


# --- ids ---------------------------------------------------------------------------------------


def telling_id(position: int) -> uuid.UUID:
    """An id that says where its event is: a UUID of version 8 that begins with the position.

    So it is unique and found without an index, which each append would have to write. PostgreSQL
    is sent the one of position 0, and puts the position in.
    """
    return made_id(position << 80 | 8 << 76 | _chance())


def _told(event_id: uuid.UUID, position: int) -> uuid.UUID:
    """What has become of an id that told position 0."""
    return made_id(position << 80 | event_id.int)


def tells(event_id: uuid.UUID) -> bool:
    """Whether it is one of these. By its digit, as the databases have it: any variant counts."""
    return event_id.int >> 76 & 15 == 8


def by_id(event_id: uuid.UUID) -> tuple[str, list[object]]:
    """The condition for the one row with this id, and its parameters (``%s``)."""
    postgresql = connection.vendor == "postgresql"
    stored = event_id if postgresql else event_id.hex
    if tells(event_id):
        return "position = %s AND event_id = %s", [event_id.int >> 80, stored]
    # What the index of all other ids says of itself, or neither database would take it.
    digit = "substr(event_id::text, 15, 1)" if postgresql else "substr(event_id, 13, 1)"
    return f"event_id = %s AND {digit} <> '8'", [stored]


def _chance() -> int:
    """The bits of an id that neither time nor position say: 12 after the version, 62 after 0b10."""
    chance = int.from_bytes(os.urandom(10), "big")
    return (chance >> 68) << 64 | 2 << 62 | chance & (1 << 62) - 1


def made_id(
    number: int,
    new: Callable[[type[uuid.UUID]], uuid.UUID] = object.__new__,
    put: Callable[[object, str, object], None] = object.__setattr__,
    unknown: uuid.SafeUUID = uuid.SafeUUID.unknown,
) -> uuid.UUID:
    """``UUID(int=number)``, which spends three quarters of its time making sure of the number."""
    made = new(uuid.UUID)
    put(made, "int", number)
    put(made, "is_safe", unknown)
    return made


# --- reasons -----------------------------------------------------------------------------------


def _conflict(stream: str, expected: int, actual: int) -> EventConflict:
    return EventConflict(
        f"{stream} is at version {actual}, not at {expected} as expected.",
        extra={"stream": stream, "expected": expected, "actual": actual},
    )


def _reused(event_id: uuid.UUID, position: int) -> EventIdReused:
    return EventIdReused(
        f"The event {event_id} is in the log, at position {position}, with other content.",
        extra={"eventId": str(event_id), "position": position},
    )
