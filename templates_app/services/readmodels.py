"""Rebuilding the read models from the log, and checking that they are what it gives."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from templates_app import projections, store

#: Differences that are listed; the rest is counted by the caller's eyes.
_MOST = 100


class _Undo(Exception):
    """Ends the transaction of a check: nothing that it did stays."""


def rebuild() -> int:
    """Drop and fold all; returns the number of events. Appends wait for as long as it takes."""
    with transaction.atomic():
        store.lock()
        return projections.rebuild(store.read())


def check() -> tuple[int, list[str]]:
    """(events, differences) between the rows that are there and those that the log gives."""
    events, before, after = 0, {}, {}
    try:
        with transaction.atomic():
            store.lock()
            before = projections.rows()
            events = projections.rebuild(store.read())
            after = projections.rows()
            raise _Undo
    except _Undo:
        pass
    return events, _differences(before, after)[:_MOST]


def _differences(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> list[str]:
    found = []
    for table, rows in after.items():
        is_there = {_key(row): row for row in before[table]}
        should = {_key(row): row for row in rows}
        for key in sorted(is_there.keys() | should.keys()):
            have, want = is_there.get(key), should.get(key)
            if have is None:
                found.append(f"{table} {key}: the row is gone")
            elif want is None:
                found.append(f"{table} {key}: a row that the log does not give")
            elif have != want:
                columns = [name for name in want if want[name] != have[name]]
                found.append(f"{table} {key}: {', '.join(columns)} differ")
    return found


def _key(row: dict[str, Any]) -> str:
    for name in ("name", "id"):
        if name in row:
            return str(row[name])
    if "key" in row:
        return f"{row['kind']}:{row['key']}@{row['position']}"
    if "trusted_position" in row:
        return str(row["public_key"])
    if "position" not in row:
        return f"{row['digest']} in {row['statement_digest']}"
    return str(row["position"])
