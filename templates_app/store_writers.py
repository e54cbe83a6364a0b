"""How each database appends: PostgreSQL in one statement, SQLite under its one write lock.

Only ``store`` calls this. A writer gives out positions and versions, hashes, inserts the events and
the index of what they mention; or it writes nothing and returns the reason.
"""

from __future__ import annotations

import datetime
import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connection

from templates_app.errors import CoppiceError, EventConflict, EventIdReused
from templates_app.events import DomainEvent


@dataclass(frozen=True, slots=True)
class Draft:
    """An event on its way in."""

    event_id: uuid.UUID
    event: DomainEvent
    stream: str
    data: str  # canonical JSON
    mentions: Sequence[tuple[str, str]]  # (kind, key)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a draft went, or (``known``, then only the position is told) has been already."""

    known: bool
    position: int
    version: int
    recorded_at: datetime.datetime
    leaf_hash: str


Outcome = list[Place] | CoppiceError


def write(
    drafts: Sequence[Draft], meta: str, expected: Mapping[str, int], *, given: bool
) -> Outcome:
    """Append. ``given``: the ids are the caller's, so that they may be in the log already."""
    if connection.vendor == "postgresql":
        return _postgresql(drafts, meta, expected, given)
    return _sqlite(drafts, meta, expected, given)


def moment(at: datetime.datetime) -> str:
    """``recordedAt`` as it is hashed and exported: ``2026-01-02T03:04:05.000006Z``."""
    naive = at.astimezone(datetime.UTC).replace(tzinfo=None)
    return naive.isoformat(timespec="microseconds") + "Z"


# --- PostgreSQL --------------------------------------------------------------------------------

_APPEND = (
    "SELECT * FROM coppice_append(%s::uuid[], %s::text[], %s::smallint[], %s::text[], %s, %s,"
    " %s::text[], %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::text[])"
)


def _postgresql(
    drafts: Sequence[Draft], meta: str, expected: Mapping[str, int], given: bool
) -> Outcome:
    streams = list(dict.fromkeys([draft.stream for draft in drafts] + list(expected)))
    nth = {stream: number for number, stream in enumerate(streams, 1)}
    mentions = [
        (number, kind, key)
        for number, draft in enumerate(drafts, 1)
        for kind, key in draft.mentions
    ]
    parameters = [
        _numbers([draft.event_id.hex for draft in drafts]),
        _texts([draft.event.type for draft in drafts]),
        _numbers([draft.event.schema for draft in drafts]),
        _texts([draft.data for draft in drafts]),
        meta,
        given,
        _texts(streams),
        _numbers([expected.get(stream, "NULL") for stream in streams]),
        _numbers([nth[draft.stream] for draft in drafts]),
        _numbers([number for number, _, _ in mentions]),
        _texts([kind for _, kind, _ in mentions]),
        _texts([key for _, _, key in mentions]),
    ]
    # Not Django's cursor: that puts the parameters into the text, which the server would have to
    # parse and plan at each append. What else Django's does for a statement, stands here.
    connection.validate_no_broken_transaction()
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        row: Any = cursor.execute(_APPEND, parameters, prepare=True).fetchone()
    outcome, culprit, actual, at, positions, versions, leaves, known = row
    if outcome == "conflict":
        stream = streams[culprit - 1]
        return _conflict(stream, expected[stream], actual)
    if outcome == "reused":
        return _reused(drafts[culprit - 1].event_id, actual)
    at = at.astimezone(datetime.UTC)
    if not any(known):
        return [
            Place(False, position, version, at, leaf)
            for position, version, leaf in zip(positions, versions, leaves, strict=True)
        ]
    return [
        Place(True, positions[i], 0, at, "")
        if known[i]
        else Place(False, positions[i], versions[i], at, leaves[i])
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
    drafts: Sequence[Draft], meta: str, expected: Mapping[str, int], given: bool
) -> Outcome:
    """In the caller's transaction, or, outside any, in one of its own.

    Either begins as IMMEDIATE: it has the database's one write lock from its first statement on.
    """
    # Not Django's cursor, which rewrites each statement: that took as long as SQLite itself.
    connection.validate_no_broken_transaction()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        database = connection.connection
        if connection.in_atomic_block:
            return _sqlite_append(database, drafts, meta, expected, given)
        if not connection.get_autocommit():
            raise RuntimeError("an append needs a transaction of its own, or an atomic block")
        database.execute("BEGIN IMMEDIATE")
        try:
            outcome = _sqlite_append(database, drafts, meta, expected, given)
            database.execute("COMMIT")
        finally:  # after an error, or a COMMIT that failed
            if database.in_transaction:
                database.execute("ROLLBACK")
    return outcome


def _sqlite_append(
    database: sqlite3.Connection,
    drafts: Sequence[Draft],
    meta: str,
    expected: Mapping[str, int],
    given: bool,
) -> Outcome:
    known: dict[uuid.UUID, Place] = {}
    for draft in drafts if given else ():
        row = database.execute(
            "SELECT position, stream, type, schema, data FROM templates_app_event"
            " WHERE event_id = ?",
            [draft.event_id.hex],
        ).fetchone()
        if row is not None:
            if row[1:] != (draft.stream, draft.event.type, draft.event.schema, draft.data):
                return _reused(draft.event_id, row[0])
            known[draft.event_id] = Place(True, row[0], 0, datetime.datetime.min, "")
    fresh = [draft for draft in drafts if draft.event_id not in known]
    if not fresh:
        return [known[draft.event_id] for draft in drafts]

    versions: dict[str, int] = {}
    for stream in {**expected, **{draft.stream: 0 for draft in fresh}}:
        (found,) = database.execute(
            "SELECT max(version) FROM templates_app_event WHERE stream = ?", [stream]
        ).fetchone()
        versions[stream] = found or 0
        if versions[stream] != expected.get(stream, versions[stream]):
            return _conflict(stream, expected[stream], versions[stream])
    (found,) = database.execute("SELECT max(position) FROM templates_app_event").fetchone()
    position = found or 0

    now = datetime.datetime.now(datetime.UTC)
    stamp, stored = moment(now), str(now.replace(tzinfo=None))
    places, rows, mentions = dict(known), [], []
    for draft in fresh:
        position += 1
        version = versions[draft.stream] = versions[draft.stream] + 1
        leaf = leaf_hash(draft, meta, position, version, stamp)
        places[draft.event_id] = Place(False, position, version, now, leaf)
        event = draft.event
        rows.append(
            (position, draft.event_id.hex, draft.stream, version, event.type, event.schema)
            + (draft.data, meta, stored, leaf)
        )
        mentions += [(kind, key, position) for kind, key in draft.mentions]
    database.executemany(
        "INSERT INTO templates_app_event (position, event_id, stream, version, type, schema,"
        " data, meta, recorded_at, leaf_hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    database.executemany(
        "INSERT INTO templates_app_mention (kind, key, position) VALUES (?, ?, ?)", mentions
    )
    database.execute("UPDATE templates_app_loghead SET size = ? WHERE id = 1", [position])
    return [places[draft.event_id] for draft in drafts]


def leaf_hash(draft: Draft, meta: str, position: int, version: int, stamp: str) -> str:
    """RFC 6962 leaf hash of the event's RFC 8785 form: keys in order, ``data`` and ``meta`` raw."""
    text = (
        f'{{"data":{draft.data},"meta":{meta},"position":{position},"recordedAt":"{stamp}",'
        f'"schema":{draft.event.schema},"stream":"{draft.stream}","type":"{draft.event.type}",'
        f'"version":{version}}}'
    )
    return hashlib.sha256(b"\0" + text.encode()).hexdigest()


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
