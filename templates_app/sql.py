"""Questions to the database that stand written out, for what is asked at each launch.

Django puts a query together in more time than either database takes to answer it, and so do its
cursors: PostgreSQL's puts the parameters into the text, which the server must parse and plan anew
each time; SQLite's rewrites each statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper


def begin(database: BaseDatabaseWrapper) -> None:
    """What Django's cursors do before a statement: a connection that broke since is made anew."""
    database.validate_no_broken_transaction()
    database.close_if_health_check_failed()
    database.ensure_connection()


def rows(query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """What the database answers, as its driver has it; ``%s`` stands for each parameter."""
    database = connections[DEFAULT_DB_ALIAS]
    begin(database)
    with database.wrap_database_errors:
        if database.vendor == "sqlite":
            return list(database.connection.execute(query.replace("%s", "?"), parameters))
        with psycopg.Cursor(database.connection) as cursor:
            return cursor.execute(query, parameters, prepare=True).fetchall()
