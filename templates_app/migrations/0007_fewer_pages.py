"""An append touches fewer pages: no index of times, fewer mentions, and tables that are indexes.

Launches and refusals are found by the statement that their generation has, and no longer by each
digest that the statement binds: ``Binding`` has these, taken here from the imports and reloads that
are in the log.
"""

import json
from collections.abc import Iterator
from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import templates_app.models
from templates_app import triggers

AT_ONCE = 1000


def bind(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Write down what the statements bind, and drop the mentions that follow from it."""
    using = schema_editor.connection.alias
    events = apps.get_model("templates_app", "Event").objects.using(using)
    bindings = apps.get_model("templates_app", "Binding")
    mentions = apps.get_model("templates_app", "Mention").objects.using(using)
    told = events.filter(type__in=("imported", "reloaded")).order_by("position")
    pairs = {pair for row in told.iterator(AT_ONCE) for pair in _bound(_read(row.data))}
    bindings.objects.using(using).bulk_create(
        [bindings(digest=digest, statement_digest=one) for digest, one in sorted(pairs)],
        batch_size=AT_ONCE,
    )
    launches = events.filter(type__in=("sandbox-created", "sandbox-refused")).order_by("position")
    for row in launches.iterator(AT_ONCE):
        # A payload that says no statement is not ours to judge: it keeps its mentions.
        if statement := _read(row.data).get("statementDigest"):
            mentions.filter(position=row.position, kind="digest").exclude(key=statement).delete()


def _read(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _bound(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    digests = data.get("digests") or {}
    for one in (data, *data.get("added", ()), *data.get("changed", ())):
        for digest in (one.get("treeDigest"), digests.get("manifest")):
            if digest and one.get("statementDigest"):
                yield digest, one["statementDigest"]


def without_rowid(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """On SQLite make the mentions' key their table, instead of an index beside it."""
    if schema_editor.connection.vendor != "sqlite":
        return
    old = "templates_app_mention"
    schema_editor.execute(f"ALTER TABLE {old} RENAME TO {old}_old")
    schema_editor.execute(
        f'CREATE TABLE "{old}" ("kind" varchar(16) NOT NULL, "key" varchar(100) NOT NULL,'
        ' "position" bigint NOT NULL, PRIMARY KEY ("kind", "key", "position")) WITHOUT ROWID'
    )
    schema_editor.execute(
        f"INSERT INTO {old} (kind, key, position)"  # noqa: S608
        f" SELECT kind, key, position FROM {old}_old ORDER BY kind, key, position"
    )
    schema_editor.execute(f"DROP TABLE {old}_old")


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    triggers.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0006_figures")]

    operations = [
        migrations.CreateModel(
            name="Binding",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "digest",
                        "statement_digest",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(max_length=71)),
                ("statement_digest", models.CharField(max_length=71)),
            ],
            options={"default_permissions": ()},
        ),
        migrations.RunPython(bind, migrations.RunPython.noop),
        migrations.RunPython(without_rowid, migrations.RunPython.noop),
        migrations.AlterField("event", "recorded_at", models.DateTimeField()),
        migrations.AlterField(
            "event",
            "position",
            templates_app.models.PositionField(primary_key=True, serialize=False),
        ),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
