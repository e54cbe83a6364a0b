"""The triggers are there, come back after a migration, and are missed when they are gone."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection

from templates_app import migrations, store, triggers
from templates_app.events import Meta, SandboxDestroyed

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


def complaints():
    found = checks.run_checks(databases=["default"], tags=[checks.Tags.database])
    return [one for one in found if one.id == "templates_app.E001"]


def sql(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_migrated_database_has_them_all(any_database):
    assert triggers.missing(connection) == []
    assert complaints() == []


def some_trigger():
    return {
        "sqlite": ("coppice_event_delete", "DROP TRIGGER coppice_event_delete"),
        "postgresql": (
            "coppice_event_row",
            "DROP TRIGGER coppice_event_row ON templates_app_event",
        ),
    }[connection.vendor]


def test_one_that_is_gone_is_missed_and_migrate_restores_it(any_database):
    name, drop = some_trigger()
    sql(drop)
    assert triggers.missing(connection) == [name]
    [complaint] = complaints()
    assert name in complaint.msg
    call_command("migrate", verbosity=0, skip_checks=True)
    assert triggers.missing(connection) == []
    assert complaints() == []


ALTERED = {
    "sqlite": [
        ("coppice_event_id", ["DROP INDEX coppice_event_id"]),
        (
            "coppice_event_update",
            [
                "DROP TRIGGER coppice_event_update",
                "CREATE TRIGGER coppice_event_update BEFORE UPDATE ON templates_app_event"
                " BEGIN SELECT 1; END",
            ],
        ),
    ],
    "postgresql": [
        (
            "coppice_event_truncate",
            ["ALTER TABLE templates_app_event ENABLE TRIGGER coppice_event_truncate"],
        ),
        (
            "coppice_event_row",
            ["ALTER TABLE templates_app_event DISABLE TRIGGER coppice_event_row"],
        ),
        (
            "coppice_event_row",
            [
                "CREATE OR REPLACE TRIGGER coppice_event_row BEFORE UPDATE OR DELETE"
                " ON templates_app_event FOR EACH ROW WHEN (OLD.position > 9)"
                " EXECUTE FUNCTION coppice_refuse_event()",
                "ALTER TABLE templates_app_event ENABLE ALWAYS TRIGGER coppice_event_row",
            ],
        ),
        (
            "coppice_event_insert",
            [
                "CREATE OR REPLACE TRIGGER coppice_event_insert BEFORE INSERT"
                " ON templates_app_event FOR EACH ROW EXECUTE FUNCTION coppice_refuse_event()",
                "ALTER TABLE templates_app_event ENABLE ALWAYS TRIGGER coppice_event_insert",
            ],
        ),
        (
            "coppice_refuse_event",
            [
                "CREATE OR REPLACE FUNCTION coppice_refuse_event() RETURNS trigger"
                " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            ],
        ),
        (
            "coppice_follow_event",
            [
                "CREATE OR REPLACE FUNCTION coppice_follow_event() RETURNS trigger"
                " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
            ],
        ),
        ("coppice_follow_event", ["ALTER FUNCTION coppice_follow_event SET search_path = own"]),
        # As it would be for a table in another schema.
        (
            "coppice_follow_event",
            [
                "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef("
                "'coppice_follow_event'::regproc), 'FROM public.', 'FROM own.'); END $do$"
            ],
        ),
        (
            "coppice_event_insert",
            [
                "CREATE SCHEMA own",
                "CREATE FUNCTION own.coppice_follow_event() RETURNS trigger"
                " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
                "CREATE OR REPLACE TRIGGER coppice_event_insert BEFORE INSERT"
                " ON templates_app_event FOR EACH ROW EXECUTE FUNCTION own.coppice_follow_event()",
                "ALTER TABLE templates_app_event ENABLE ALWAYS TRIGGER coppice_event_insert",
            ],
        ),
        (
            "coppice_event_insert",
            [
                "CREATE OR REPLACE TRIGGER coppice_event_insert BEFORE INSERT"
                " ON templates_app_event FOR EACH ROW WHEN (NEW.position IS NULL)"
                " EXECUTE FUNCTION coppice_follow_event()",
                "ALTER TABLE templates_app_event ENABLE ALWAYS TRIGGER coppice_event_insert",
            ],
        ),
        ("coppice_append", ["ALTER FUNCTION coppice_append SET enable_sort = on"]),
        ("coppice_append", ["ALTER FUNCTION coppice_append RESET ALL"]),
        ("coppice_append", ["DROP FUNCTION coppice_append"]),
        ("coppice_event_id", ["DROP INDEX coppice_event_id"]),
        (
            "coppice_event_id",
            [
                "DROP INDEX coppice_event_id",
                "CREATE INDEX coppice_event_id ON templates_app_event (event_id)"
                " WHERE substr(event_id::text, 15, 1) <> '8'",
            ],
        ),
        (
            "coppice_event_id",
            [
                "DROP INDEX coppice_event_id",
                "CREATE UNIQUE INDEX coppice_event_id ON templates_app_event (event_id)"
                " WHERE substr(event_id::text, 15, 1) <> '4'",
            ],
        ),
    ],
}


def test_one_that_was_altered_is_missed_and_restored(any_database):
    for name, statements in ALTERED[connection.vendor]:
        for statement in statements:
            sql(statement)
        assert triggers.missing(connection) == [name]
        triggers.install(connection)
        assert triggers.missing(connection) == []


def test_a_table_in_another_schema_has_functions_that_ask_that_one(postgres_url, swap_database):
    event = SandboxDestroyed(sandbox="s1", template="web", dataset="d")
    with swap_database(postgres_url):
        sql('CREATE SCHEMA "Own"')
        for table in (triggers.EVENT, "templates_app_mention"):
            sql(f'ALTER TABLE {table} SET SCHEMA "Own"')
        sql('SET search_path = "Own", public')
        assert set(triggers._PG_FUNCTIONS) < set(triggers.missing(connection))
        triggers.install(connection)
        assert triggers.missing(connection) == []
        sql("CREATE TABLE public.templates_app_event (position bigint, stream text, version int)")
        sql("INSERT INTO public.templates_app_event VALUES (8, 'sandbox:s1', 8)")
        [one] = store.append(event, meta=META)
        told = store.append([event, event], meta=META)
        assert [(each.position, each.version) for each in (one, *told)] == [(1, 1), (2, 2), (3, 3)]
        with pytest.raises(Exception, match="append-only"):
            sql(
                "INSERT INTO templates_app_event SELECT 9, gen_random_uuid(), stream, 9, type,"
                " schema, data, meta, recorded_at, leaf_hash FROM templates_app_event LIMIT 1"
            )


#: By whose search_path these are found: nothing may be.
_BARE = {
    "an operator": r"(?<![.:])[-+*/<>=~!@#%^&|]+(?![.:])|\b(?:LIKE|IN|BETWEEN|DISTINCT)\b",
    "a type": r"::(?!pg_catalog\.)",
    "a function": r"(?<![.\w])(?!coalesce\b)[a-z]\w*\(",
    "a table": r"FROM (?!public\.)",
}


def test_what_is_run_for_each_row_names_nothing_that_another_schema_could_have():
    body = triggers._PG_FUNCTIONS["coppice_follow_event"].split("$body$")[1]
    for noise in (r"--.*", r"'[^']*'", r"OPERATOR\(pg_catalog\.[^)]*\)", ":=", "ERRCODE ="):
        body = re.sub(noise, " ", body)
    assert {what: re.findall(form, body) for what, form in _BARE.items()} == {
        what: [] for what in _BARE
    }


def test_the_check_is_silent_while_migrations_are_to_come(any_database):
    """Else `migrate`, which runs the checks first, could not bring a new trigger."""
    _, drop = some_trigger()
    sql(drop)
    sql("DELETE FROM django_migrations WHERE app = 'templates_app' AND name = '0002_log'")
    assert complaints() == []


LATER = """
from django.db import connection, migrations, models
from templates_app import triggers

missing_underway = []

class Migration(migrations.Migration):
    dependencies = [("templates_app", {last!r})]
    operations = [
        migrations.AlterField("event", "stream", models.CharField(max_length=120)),
        migrations.AddField("event", "note", models.CharField(max_length=9, default="")),
        migrations.RunPython(
            lambda apps, editor: missing_underway.extend(triggers.missing(editor.connection))
        ),
    ]
"""


def test_a_later_migration_that_alters_the_tables_leaves_them_in_place(
    any_database, tmp_path, monkeypatch, settings
):
    package = tmp_path / f"later_migrations_{connection.vendor}"  # imported once a process
    shutil.copytree(Path(migrations.__file__).parent, package)
    last = sorted(path.stem for path in package.glob("0*.py"))[-1]
    (package / "9999_later.py").write_text(LATER.format(last=last))
    monkeypatch.syspath_prepend(tmp_path)
    settings.MIGRATION_MODULES = {"templates_app": package.name}
    event = SandboxDestroyed(sandbox="s1", template="web", dataset="d")
    [before] = store.append(event, meta=META)

    call_command("migrate", verbosity=0, skip_checks=True)

    underway = sys.modules[f"{package.name}.9999_later"].missing_underway
    assert (
        underway
        == {
            # SQLite copied the table and so dropped all: else this test would show nothing.
            "sqlite": [
                "coppice_event_id",
                "coppice_event_update",
                "coppice_event_delete",
                "coppice_event_insert",
            ],
            "postgresql": [],
        }[connection.vendor]
    )
    assert triggers.missing(connection) == []
    assert list(store.read()) == [before]
    for statement in (
        "UPDATE templates_app_event SET data = ''",
        "DELETE FROM templates_app_event",
    ):
        with pytest.raises(Exception, match="append-only"):
            sql(statement)


def test_migrating_to_zero_and_back_works_on_an_empty_log(any_database):
    call_command("migrate", "templates_app", "zero", verbosity=0, skip_checks=True)
    assert not triggers.tables_exist(connection)
    call_command("migrate", verbosity=0, skip_checks=True)
    assert triggers.missing(connection) == []
    assert (
        store.append(SandboxDestroyed(sandbox="s1", template="web", dataset="d"), meta=META)[
            0
        ].position
        == 1
    )
