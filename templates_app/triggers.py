"""What makes the log append-only for everybody: triggers, an index, PostgreSQL's append functions.

The statements here are idempotent. The migration runs them, and so does a ``post_migrate`` receiver
(apps.py): any AddField or AlterField makes SQLite copy the table, which drops its triggers.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations.loader import MigrationLoader

EVENT = "templates_app_event"

_SQLITE: dict[str, str] = {
    # Ids of version 8 begin with their position, which the insert trigger holds; so they need none.
    "coppice_event_id": """\
CREATE UNIQUE INDEX coppice_event_id ON templates_app_event (event_id)
WHERE substr(event_id, 13, 1) <> '8'""",
    "coppice_event_update": """\
CREATE TRIGGER coppice_event_update BEFORE UPDATE ON templates_app_event
BEGIN SELECT RAISE(ABORT, 'the log is append-only: events are never changed or deleted'); END""",
    "coppice_event_delete": """\
CREATE TRIGGER coppice_event_delete BEFORE DELETE ON templates_app_event
BEGIN SELECT RAISE(ABORT, 'the log is append-only: events are never changed or deleted'); END""",
    # REPLACE deletes the row in its way without firing a DELETE trigger, unless the connection
    # asked for recursive_triggers; a BEFORE INSERT trigger fires in any case. No trigger refers to
    # another table than its own: SQLite would then refuse to rename either, and so to migrate.
    "coppice_event_insert": """\
CREATE TRIGGER coppice_event_insert BEFORE INSERT ON templates_app_event
WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM templates_app_event)
  OR CASE substr(NEW.event_id, 13, 1)
    WHEN '8' THEN substr(NEW.event_id, 1, 12) <> printf('%012x', NEW.position)
    ELSE EXISTS (
      SELECT 1 FROM templates_app_event
      WHERE event_id = NEW.event_id AND substr(event_id, 13, 1) <> '8')
    END
  OR EXISTS (
    SELECT 1 FROM templates_app_event WHERE stream = NEW.stream AND version >= NEW.version)
BEGIN SELECT RAISE(ABORT, 'the log is append-only: positions go on from the last one'); END""",
}

# Of the ids that do not begin with their position, as on SQLite. In the words that PostgreSQL has
# for it when it is asked what it is.
_PG_INDEXES: dict[str, str] = {
    "coppice_event_id": (
        "USING btree (event_id) WHERE (substr((event_id)::text, 15, 1) <> '8'::text)"
    ),
}

_REFUSE = """\
CREATE OR REPLACE FUNCTION public.coppice_refuse_event() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'the log is append-only: events are never changed or deleted'
    USING ERRCODE = 'restrict_violation';
END
$body$"""


def _file(name: str) -> str:
    return resources.files("templates_app").joinpath(name).read_text(encoding="utf-8")


# Where ``public`` stands, ``_functions`` puts the schema of the table.
_PG_FUNCTIONS: dict[str, str] = {
    "coppice_refuse_event": _REFUSE,
    "coppice_follow_event": _file("insert.sql"),
    "coppice_append": _file("append.sql"),
}


class _Trigger(NamedTuple):
    table: str
    event: str
    rest: str
    function: str


_PG_TRIGGERS: dict[str, _Trigger] = {
    "coppice_event_row": _Trigger(
        EVENT, "BEFORE UPDATE OR DELETE", "FOR EACH ROW", "coppice_refuse_event"
    ),
    "coppice_event_truncate": _Trigger(
        EVENT, "BEFORE TRUNCATE", "FOR EACH STATEMENT", "coppice_refuse_event"
    ),
    # For each row: once for a statement is dearer for one event, by the table of new rows that it
    # needs (20 of 250 µs), and cheaper for many (4 µs each). Most appends are of one.
    "coppice_event_insert": _Trigger(
        EVENT, "BEFORE INSERT", "FOR EACH ROW", "coppice_follow_event"
    ),
}


def install(connection: BaseDatabaseWrapper) -> None:
    """Put everything in place that is missing or is not as it should be. Needs the tables."""
    if connection.vendor == "postgresql":
        _install_postgresql(connection)
    else:
        _install_sqlite(connection)


def remove(connection: BaseDatabaseWrapper) -> None:
    """Take everything away: only for migrating the app to zero."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for name, trigger in _PG_TRIGGERS.items():
                cursor.execute(f"DROP TRIGGER IF EXISTS {name} ON {trigger.table}")
            for name in _PG_FUNCTIONS:
                cursor.execute(f"DROP FUNCTION IF EXISTS {name}")
            for name in _PG_INDEXES:
                cursor.execute(f"DROP INDEX IF EXISTS {name}")
        else:
            for name in _SQLITE:
                cursor.execute(_drop(name))


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of what is absent, disabled or not as it should be."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            return _missing_postgresql(cursor)
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'index')")
        present = dict(cursor.fetchall())
    return [name for name, sql in _SQLITE.items() if present.get(name) != sql]


def tables_exist(connection: BaseDatabaseWrapper) -> bool:
    return EVENT in connection.introspection.table_names()


def pending(connection: BaseDatabaseWrapper) -> bool:
    """Whether migrations of this app are still to be run: then triggers may be absent or old.

    A change of the statements in this module therefore comes with a migration that installs them.
    """
    loader = MigrationLoader(connection)
    known = {key for key in loader.disk_migrations if key[0] == "templates_app"}
    return not known <= set(loader.applied_migrations)


def _install_sqlite(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        for name in missing(connection):
            cursor.execute(_drop(name))
            cursor.execute(_SQLITE[name])


def _drop(name: str) -> str:
    """SQLite's statement that takes this trigger or index away."""
    kind = "INDEX" if "INDEX" in _SQLITE[name] else "TRIGGER"
    return f"DROP {kind} IF EXISTS {name}"


def _install_postgresql(connection: BaseDatabaseWrapper) -> None:
    absent = set(missing(connection))
    with connection.cursor() as cursor:
        for name, index in _PG_INDEXES.items():
            if name in absent:
                cursor.execute(f"DROP INDEX IF EXISTS {name}")
                cursor.execute(f"CREATE UNIQUE INDEX {name} ON {EVENT} {index}")
        schema = _schema(cursor)
        for name, statement in _functions(schema).items():
            if name in absent:
                if "CREATE OR REPLACE" not in statement:
                    # Its parameters may have changed, and then the old one would stay beside it.
                    cursor.execute(f"DROP FUNCTION IF EXISTS {name}")
                cursor.execute(statement)
        for name, (table, event, rest, function) in _PG_TRIGGERS.items():
            if name in absent:
                cursor.execute(
                    f"CREATE OR REPLACE TRIGGER {name} {event} ON {table} {rest}"
                    f" EXECUTE FUNCTION {schema}.{function}()"
                )
                # session_replication_role = replica, which restores and replication tools set,
                # would silence ordinary triggers.
                cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _schema(cursor: CursorWrapper) -> str:
    """Where the table is, and all that is made here. As it is written in a statement."""
    cursor.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(%s)",
        [EVENT],
    )
    row = cursor.fetchone()
    return row[0] if row else "public"


def _settings(statement: str) -> list[str]:
    """What the function is SET, as PostgreSQL tells it."""
    lines = [line.removeprefix("SET ") for line in statement.splitlines() if line[:4] == "SET "]
    return sorted(line.replace(" = ", "=") for line in lines)


def _functions(schema: str) -> dict[str, str]:
    """The statements for a table of this schema, whatever search_path they are run with later.

    Else the insert trigger would ask a temporary table of who inserts, which has the same name and
    comes first, for the last position, or compare by an operator of his.
    """
    return {
        name: statement.replace("public.", f"{schema}.")
        for name, statement in _PG_FUNCTIONS.items()
    }


def _missing_postgresql(cursor: CursorWrapper) -> list[str]:
    cursor.execute(
        "SELECT t.tgname, c.relname, p.proname, "
        " t.tgenabled = 'A' AND t.tgqual IS NULL AND p.pronamespace = c.relnamespace"
        " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE c.relname = %s AND NOT t.tgisinternal AND pg_table_is_visible(c.oid)",
        [EVENT],
    )
    triggers = {row[0]: row[1:] for row in cursor.fetchall()}
    schema = _schema(cursor)
    cursor.execute(
        "SELECT proname, prosrc, coalesce(proconfig, '{}') FROM pg_proc"
        " WHERE proname LIKE 'coppice%%' AND pronamespace::regnamespace::text = %s",
        [schema],
    )
    functions = {name: (body, sorted(settings)) for name, body, settings in cursor.fetchall()}
    absent = [
        name
        for name, statement in _functions(schema).items()
        if functions.get(name) != (statement.split("$body$")[1], _settings(statement))
    ]
    for name, (table, _, _, function) in _PG_TRIGGERS.items():
        if triggers.get(name) != (table, function, True):
            absent.append(name)
    cursor.execute(
        "SELECT i.relname, pg_get_indexdef(i.oid) FROM pg_index x"
        " JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid"
        " WHERE c.relname = %s AND pg_table_is_visible(c.oid) AND x.indisunique AND x.indisvalid",
        [EVENT],
    )
    unique = dict(cursor.fetchall())
    absent += [
        name
        for name, index in _PG_INDEXES.items()
        if not unique.get(name, "").endswith(f"{EVENT} {index}")
    ]
    return absent
