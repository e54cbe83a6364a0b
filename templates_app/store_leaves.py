"""Each event as the bytes that its leaf hash is over, put together by the database.

Read from the row anew, as an append made them (store_writers.py, append.sql); in SQL because that
takes half of the time that Python takes for ten columns.
"""

from __future__ import annotations

# The format of times: SQLite keeps no microseconds where they are 0, PostgreSQL's text has no zeros
# at their end.
_AT = {
    "sqlite": "substr(recorded_at || '.000000', 1, 10) || 'T'"
    " || substr(recorded_at || '.000000', 12, 15) || 'Z'",
    "postgresql": "to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
}
_TEXT = (
    """'{"data":' || data || ',"meta":' || meta || ',"position":' || position"""
    """ || ',"recordedAt":"' || %s || '","schema":' || schema || ',"stream":"' || stream"""
    """ || '","type":"' || type || '","version":' || version || '}'"""
)
_BYTES = {"sqlite": f"CAST({_TEXT} AS BLOB)", "postgresql": f"convert_to({_TEXT}, 'UTF8')"}

#: By vendor: position, leaf data, the leaf hash that was recorded; of positions above, at most.
QUERIES = {
    vendor: f"SELECT position, {_BYTES[vendor] % at}, leaf_hash FROM templates_app_event"  # noqa: S608
    " WHERE position > %s ORDER BY position LIMIT %s"
    for vendor, at in _AT.items()
}
