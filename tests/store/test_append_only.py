# ruff: noqa: S608
"""Every way around append-only that we could think of is refused, by the database itself.

Each way runs against a log of three events; whatever it raises, the log is then byte for byte
what it was, and the next append works.
"""

import hashlib
import io
import json
import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, models, transaction
from django.db.models.deletion import Collector

from templates_app import store, triggers
from templates_app.errors import LogIsAppendOnly
from templates_app.events import Meta, SandboxDestroyed
from templates_app.models import Event
from tests.databases import waiting_for_a_lock

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")
COLUMNS = "position, event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash"


GIVEN = "a" * 12 + "4" + "a" * 19  # the id that a caller gave to the second event


def destroyed(sandbox="s1"):
    return SandboxDestroyed(sandbox=sandbox, template="web", dataset="zroot/s1")


@pytest.fixture
def log(any_database):
    tell()


def tell():
    store.append(destroyed("a"), meta=META)
    store.append(destroyed("b"), meta=META, event_ids=[uuid.UUID(GIVEN)])
    store.append(destroyed("a"), meta=META)


def contents():
    return list(store.export()), store.size()


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


def forged(position, stream="sandbox:c", version=1, event_id="f" * 32, schema=1):
    """A row that is well-formed in every column, as the VALUES of an INSERT."""
    return (
        f"({position}, '{event_id}', '{stream}', {version}, 'sandbox-destroyed', {schema}, '{{}}',"
        f" '{{}}', '2026-01-02 03:04:05+00', '{'0' * 64}')"
    )


def last():
    return Event.objects.get(position=3)


# --- through Django ----------------------------------------------------------------------------


def save():
    last().save()


def save_base_raw():
    last().save_base(raw=True)


def create():
    Event.objects.create(position=4)


def delete():
    last().delete()


def collector_delete():
    collector = Collector(using="default")
    collector.collect([last()])
    collector.delete()


def queryset_update():
    Event.objects.filter(position=3).update(data="{}")


def queryset_delete():
    Event.objects.all().delete()


def base_manager_update():
    Event._base_manager.filter(position=3).update(data="{}")


def base_manager_delete():
    Event._base_manager.all().delete()


def plain_queryset_update():
    models.QuerySet(Event).update(version=models.F("version") + 1)


def raw_delete():
    models.QuerySet(Event)._raw_delete("default")


def bulk_update():
    event = last()
    event.data = "{}"
    models.QuerySet(Event).bulk_update([event], ["data"])


def bulk_create_update_conflicts():
    event = last()
    event.data = "{}"
    models.QuerySet(Event).bulk_create(
        [event], update_conflicts=True, unique_fields=["position"], update_fields=["data"]
    )


def bulk_create_with_a_gap():
    event = last()
    event.position, event.version, event.event_id = 9, 9, "f" * 32
    models.QuerySet(Event).bulk_create([event])


def update_or_create():
    models.QuerySet(Event).update_or_create(position=3, defaults={"data": "{}"})


def flush():
    call_command("flush", interactive=False, verbosity=0)


def loaddata_over_an_event(tmp_path):
    out = io.StringIO()
    call_command("dumpdata", "templates_app.event", stdout=out)
    rows = json.loads(out.getvalue())
    rows[0]["fields"]["data"] = "{}"
    path = tmp_path / "events.json"
    path.write_text(json.dumps(rows))
    call_command("loaddata", path, verbosity=0)


DJANGO = [
    save,
    save_base_raw,
    create,
    delete,
    collector_delete,
    queryset_update,
    queryset_delete,
    base_manager_update,
    base_manager_delete,
    plain_queryset_update,
    raw_delete,
    bulk_update,
    bulk_create_update_conflicts,
    bulk_create_with_a_gap,
    update_or_create,
    flush,
    loaddata_over_an_event,
]


def refused(attempt):
    before = contents()
    with pytest.raises((DatabaseError, LogIsAppendOnly, CommandError)) as caught:
        attempt()
    assert contents() == before
    assert triggers.missing(connection) == []
    assert store.append(destroyed("next"), meta=META)[0].position == 4
    return caught.value


@pytest.mark.parametrize("way", DJANGO, ids=lambda way: way.__name__)
def test_django_has_no_way_around(log, way, tmp_path):
    error = refused(lambda: way(tmp_path) if way is loaddata_over_an_event else way())
    said = f"{error} {error.__cause__}"
    assert "append-only" in said or isinstance(error, LogIsAppendOnly)


# --- through SQL -------------------------------------------------------------------------------

BOTH = {
    "update": "UPDATE templates_app_event SET data = '{}' WHERE position = 3",
    "update of every row": "UPDATE templates_app_event SET leaf_hash = ''",
    "update of a key": "UPDATE templates_app_event SET position = 7 WHERE position = 3",
    "update that changes nothing": "UPDATE templates_app_event SET data = data",
    "delete": "DELETE FROM templates_app_event WHERE position = 3",
    "delete of every row": "DELETE FROM templates_app_event",
    "upsert": f"INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(3)}"
    " ON CONFLICT (position) DO UPDATE SET data = '{}'",
    "insert with a gap": f"INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(5)}",
    "insert before the first": f"INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(0)}",
    "two inserts with a gap": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4)}, {forged(6, version=2, event_id='e' * 32)}",
    "insert of a used version": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, 'sandbox:a', 2)}",
    "insert of a used id": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, event_id=GIVEN)}",
    "insert of a negative version": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, version=-1)}",
    "insert of a negative schema": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, schema=-1)}",
    "insert of an id that tells another position": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, event_id='000000000003' + '8' + 'f' * 19)}",
}
SQLITE = {
    "insert without a position": f"INSERT INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged('NULL')}",
    "replace by id": f"REPLACE INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, event_id=GIVEN)}",
    "replace": f"REPLACE INTO templates_app_event ({COLUMNS}) VALUES {forged(3)}",
    "insert or replace": f"INSERT OR REPLACE INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(3)}",
    "replace by stream and version": f"REPLACE INTO templates_app_event ({COLUMNS})"
    f" VALUES {forged(4, 'sandbox:a', 2)}",
    "update or replace": "UPDATE OR REPLACE templates_app_event SET stream = 'sandbox:a'"
    " WHERE position = 2",
    "update or ignore": "UPDATE OR IGNORE templates_app_event SET data = '{}'",
}
POSTGRESQL = {
    "truncate": "TRUNCATE templates_app_event",
    "truncate of both": "TRUNCATE templates_app_event, templates_app_mention CASCADE",
    "truncate, restarting": "TRUNCATE ONLY templates_app_event RESTART IDENTITY CASCADE",
    "update in a CTE": "WITH w AS (UPDATE templates_app_event SET data = '{}' RETURNING 1)"
    " SELECT * FROM w",
    "delete in a CTE": "WITH w AS (DELETE FROM templates_app_event RETURNING 1) SELECT * FROM w",
    "merge": "MERGE INTO templates_app_event e USING (SELECT 3 AS p) s ON e.position = s.p"
    " WHEN MATCHED THEN UPDATE SET data = '{}'",
    "merge that deletes": "MERGE INTO templates_app_event e USING (SELECT 3 AS p) s"
    " ON e.position = s.p WHEN MATCHED THEN DELETE",
    "update from": "UPDATE templates_app_event e SET data = '{}' FROM templates_app_mention m"
    " WHERE e.position = m.position",
    "through a view": "CREATE TEMPORARY VIEW v AS SELECT * FROM templates_app_event;"
    " UPDATE v SET data = '{}'",
    "in a function": "DO $$ BEGIN UPDATE templates_app_event SET data = '{}'; END $$",
    "at a cursor": "DO $$ DECLARE c CURSOR FOR SELECT * FROM templates_app_event FOR UPDATE;"
    " BEGIN OPEN c; MOVE c; UPDATE templates_app_event SET data = '{}' WHERE CURRENT OF c; END $$",
    "update as a replica": "SET LOCAL session_replication_role = replica;"
    " UPDATE templates_app_event SET data = '{}'",
    "delete as a replica": "SET LOCAL session_replication_role = replica;"
    " DELETE FROM templates_app_event",
    "truncate as a replica": "SET LOCAL session_replication_role = replica;"
    " TRUNCATE templates_app_event",
    # For a trigger that looks things up by the names that who inserts has for them.
    "insert with a gap beside a table of one's own": "CREATE TEMPORARY TABLE"
    " templates_app_event (position bigint);"
    " INSERT INTO pg_temp.templates_app_event VALUES (8);"
    f" INSERT INTO public.templates_app_event ({COLUMNS}) VALUES {forged(9)}",
    "insert with a gap by an operator of one's own": "CREATE SCHEMA own;"
    " CREATE FUNCTION own.ne(bigint, integer) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
    " CREATE OPERATOR own.<> (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = own.ne);"
    " SET LOCAL search_path = own, pg_catalog, public;"
    f" INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(9)}",
    "insert of a used id, without a position": "INSERT INTO templates_app_event (event_id, stream,"
    f" type, schema, data, meta) VALUES ('{GIVEN}', 'sandbox:c', 'x', 1, '{{}}', '{{}}')",
    "upsert without a position": "INSERT INTO templates_app_event (event_id, stream, type, schema,"
    f" data, meta) VALUES ('{GIVEN}', 'sandbox:c', 'x', 1, '{{}}', '{{}}') ON CONFLICT (event_id)"
    " WHERE substr(event_id::text, 15, 1) <> '8' DO UPDATE SET data = '{1}'",
    "insert without a position or data": "INSERT INTO templates_app_event (event_id, stream, type,"
    f" schema, meta) VALUES ('{'f' * 32}', 'sandbox:c', 'x', 1, '{{}}')",
    "insert of a negative schema, without a position": "INSERT INTO templates_app_event"
    " (event_id, stream, type, schema, data, meta)"
    f" VALUES ('{'f' * 32}', 'sandbox:c', 'x', -1, '{{}}', '{{}}')",
    "insert with a gap as a replica": "SET LOCAL session_replication_role = replica;"
    f" INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(5)}",
}


def by_sql(statement):
    def attempt():
        with transaction.atomic():
            sql(statement)

    return attempt


#: Refused by a key of the table, before a trigger is asked.
BY_A_KEY = {
    "insert of a negative version": "CHECK",  # on SQLite
    "insert of a negative schema": "CHECK",
    "insert of a used version": "unique",
    "insert of a used id": "unique",
    "insert of a used id, without a position": "unique",
    "insert without a position or data": "not-null",
}


@pytest.mark.parametrize("way", BOTH)
def test_sql_has_no_way_around(log, way):
    error = refused(by_sql(BOTH[way]))
    assert "append-only" in str(error) or BY_A_KEY.get(way, "append-only") in str(error)


@pytest.fixture
def sqlite_log(sqlite_url, swap_database):
    with swap_database(sqlite_url):
        tell()
        yield sqlite_url.removeprefix("sqlite:///")


@pytest.fixture
def postgresql_log(postgres_url, swap_database):
    with swap_database(postgres_url):
        tell()
        yield postgres_url


@pytest.mark.parametrize("way", SQLITE)
def test_sqlites_own_sql_has_no_way_around(sqlite_log, way):
    assert "append-only" in str(refused(by_sql(SQLITE[way])))


@pytest.mark.parametrize("way", {**BOTH, **SQLITE})
def test_a_stranger_with_a_plain_sqlite_connection_has_no_way_around(sqlite_log, way):
    """Without our PRAGMAs: no recursive_triggers, so that REPLACE fires no DELETE trigger."""

    def attempt():
        with sqlite3.connect(sqlite_log) as stranger:
            try:
                stranger.execute({**BOTH, **SQLITE}[way])
            except sqlite3.Error as error:
                raise DatabaseError(str(error)) from error

    assert ("CHECK" if "negative" in way else "append-only") in str(refused(attempt))


@pytest.mark.parametrize("way", POSTGRESQL)
def test_postgresqls_own_sql_has_no_way_around(postgresql_log, way):
    assert BY_A_KEY.get(way, "append-only") in str(refused(by_sql(POSTGRESQL[way])))


@pytest.mark.parametrize(
    ("position", "said"), [(3, "unique"), (5, "append-only")], ids=["an old key", "a gap"]
)
def test_copy_has_no_way_around(postgresql_log, position, said):
    def attempt():
        row = [position, "f" * 32, "sandbox:c", 1, "sandbox-destroyed", 1, "{}", "{}"]
        with (
            psycopg.connect(postgresql_log) as stranger,
            stranger.cursor() as cursor,
            cursor.copy(f"COPY templates_app_event ({COLUMNS}) FROM STDIN") as copy,
        ):
            copy.write_row([*row, "2026-01-02 03:04:05+00", "0" * 64])

    before = contents()
    with pytest.raises(psycopg.DatabaseError, match=said):
        attempt()
    assert contents() == before


def test_what_is_appended_by_sql_is_counted(log):
    """An INSERT at the next position is an append like any other: nothing gets out of step."""
    sql(f"INSERT INTO templates_app_event ({COLUMNS}) VALUES {forged(4)}")
    assert store.size() == 4
    assert store.append(destroyed("next"), meta=META)[0].position == 5


# --- a row that says no position: PostgreSQL appends it ------------------------------------------


APPENDED = "event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash"


def unplaced(stream, version="NULL", event_id="0" * 12 + "8" + "f" * 19):
    """The VALUES of such a row, with a time and a leaf hash of who inserts it."""
    return (
        f"('{event_id}', '{stream}', {version}, 'sandbox-destroyed', 1, '{{}}', '{{}}',"
        f" '2001-01-01 00:00:00+00', '{'0' * 64}')"
    )


def added():
    """What came after the three, but for time and leaf hash, which are looked at here."""
    rows = [json.loads(line) for line in store.export(after=3)]
    for (_, data, leaf), row in zip(store.leaves(after=3), rows, strict=True):
        assert hashlib.sha256(b"\0" + data).hexdigest() == leaf == row["leafHash"]
        assert row["recordedAt"] > "2020"
    return [(row["position"], row["stream"], row["version"], row["eventId"]) for row in rows]


def told(position):
    return str(uuid.UUID(int=position << 80 | 8 << 76 | (1 << 76) - 1))


@pytest.mark.parametrize(
    "clause", ["", " ON CONFLICT DO NOTHING", " ON CONFLICT (position) DO NOTHING"]
)
def test_rows_without_a_position_are_appended_as_the_store_appends(postgresql_log, clause):
    """Whoever may insert: with a place, a time and a leaf hash that he cannot choose."""
    rows = [
        unplaced("sandbox:a"),
        unplaced("sandbox:c", 1),
        unplaced("sandbox:c", event_id="b" * 12 + "7" + "b" * 19),
    ]
    sql(f"INSERT INTO templates_app_event ({APPENDED}) VALUES {', '.join(rows)}{clause}")
    given = str(uuid.UUID("b" * 12 + "7" + "b" * 19))
    assert added() == [
        (4, "sandbox:a", 3, told(4)),
        (5, "sandbox:c", 1, told(5)),
        (6, "sandbox:c", 2, given),
    ]
    assert store.position_of(uuid.UUID(told(5))) == 5
    assert store.position_of(uuid.UUID(given)) == 6
    assert store.append(destroyed("next"), meta=META)[0].position == 7


@pytest.mark.parametrize("version", [0, 1, 2, 4, 2**31 - 1])
def test_a_row_without_a_position_comes_in_at_no_other_version(postgresql_log, version):
    sql(f"INSERT INTO templates_app_event ({APPENDED}) VALUES {unplaced('sandbox:a', version)}")
    assert added() == []
    sql(f"INSERT INTO templates_app_event ({APPENDED}) VALUES {unplaced('sandbox:a', 3)}")
    assert added() == [(4, "sandbox:a", 3, told(4))]


def test_a_row_without_a_position_gets_its_own_whatever_who_inserts_has(postgresql_log):
    with transaction.atomic():
        sql(
            "CREATE TEMPORARY TABLE templates_app_event"
            " (position bigint, stream text, version int);"
            " INSERT INTO pg_temp.templates_app_event VALUES (8, 'sandbox:a', 8);"
            " CREATE SCHEMA own;"
            " CREATE FUNCTION own.plus(bigint, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 9';"
            " CREATE OPERATOR own.+ (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = own.plus);"
            " SET LOCAL search_path = own, pg_temp, pg_catalog, public;"
            f" INSERT INTO public.templates_app_event ({APPENDED}) VALUES {unplaced('sandbox:a')};"
            " DROP TABLE pg_temp.templates_app_event"
        )
    assert added() == [(4, "sandbox:a", 3, told(4))]


def test_copy_without_positions_appends(postgresql_log):
    row = ["0" * 12 + "8" + "f" * 19, "sandbox:c", "sandbox-destroyed", 1, "{}", "{}"]
    with (
        psycopg.connect(postgresql_log) as stranger,
        stranger.cursor() as cursor,
        cursor.copy(
            "COPY templates_app_event (event_id, stream, type, schema, data, meta) FROM STDIN"
        ) as copy,
    ):
        copy.write_row(row)
        copy.write_row(row)
    assert added() == [(4, "sandbox:c", 1, told(4)), (5, "sandbox:c", 2, told(5))]


def test_a_row_without_a_position_waits_for_the_one_before_it(postgresql_log):
    """And goes on from it, where the key of positions alone would have it fail."""
    insert = f"INSERT INTO templates_app_event ({APPENDED}) VALUES {unplaced('sandbox:c')}"
    with psycopg.connect(postgresql_log) as first, psycopg.connect(postgresql_log) as second:
        first.execute(insert)
        with ThreadPoolExecutor() as threads:
            waits = threads.submit(second.execute, insert)
            while not waiting_for_a_lock():
                time.sleep(0.01)
            first.commit()
            waits.result()
    assert [row[:3] for row in added()] == [(4, "sandbox:c", 1), (5, "sandbox:c", 2)]


def test_without_the_lock_nobody_goes_on_from_what_is_not_committed(postgresql_log):
    """Else a reader would see 5 and not 4, which may come later or never."""
    insert = f"INSERT INTO templates_app_event ({COLUMNS}) VALUES "
    following = forged(5, version=2, event_id="e" * 32)
    with psycopg.connect(postgresql_log) as first, psycopg.connect(postgresql_log) as second:
        first.execute(insert + forged(4))
        with pytest.raises(psycopg.DatabaseError, match="append-only"):
            second.execute(insert + following)
        second.rollback()
        first.commit()
        second.execute(insert + following)
    assert store.size() == 5


# --- with the rights that the documentation grants ---------------------------------------------


def granted(root):
    """The statements of the documentation's block for an application role, as they stand there."""
    text = (root / "docs" / "reference" / "events.md").read_text()
    return text.split("```sql\n")[1].split("```")[0]


def test_the_documented_grants_are_enough_to_append_and_no_more(
    postgresql_log, swap_database, request
):
    statements = granted(request.config.rootpath)
    sql("DROP ROLE IF EXISTS coppice_app")
    sql("CREATE ROLE coppice_app LOGIN")
    sql(statements)
    try:
        with swap_database(postgresql_log.replace("postgres@", "coppice_app@")):
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_user")
                assert cursor.fetchone() == ("coppice_app",)
            store.append(destroyed("c"), meta=META, expected={"sandbox:c": 0})
            store.append([destroyed("d"), destroyed("d")], meta=META)
            assert store.about("sandbox", "c")
            with pytest.raises(DatabaseError, match="append-only"):
                by_sql(POSTGRESQL["insert with a gap beside a table of one's own"])()
            for statement in [
                "UPDATE templates_app_event SET data = '{}'",
                "DELETE FROM templates_app_event",
                "TRUNCATE templates_app_event",
                "DROP TABLE templates_app_event CASCADE",
                "ALTER TABLE templates_app_event DISABLE TRIGGER ALL",
                "DROP TRIGGER coppice_event_row ON templates_app_event",
                "SET session_replication_role = replica",
                "DROP INDEX coppice_event_id",
                "ALTER FUNCTION coppice_follow_event SET search_path = own",
                "CREATE OR REPLACE FUNCTION coppice_refuse_event() RETURNS trigger LANGUAGE plpgsql"
                " AS 'BEGIN RETURN NEW; END'",
            ]:
                with pytest.raises(DatabaseError, match="permission denied|must be owner"):
                    sql(statement)
    finally:
        sql("DROP OWNED BY coppice_app")
        sql("DROP ROLE coppice_app")
