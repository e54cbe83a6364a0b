"""No head row: the last event says what it said, and each append would write it (triggers.py)."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Max

from templates_app import triggers

_OLD = (
    "DROP TRIGGER IF EXISTS coppice_event_insert ON templates_app_event",
    "DROP TRIGGER IF EXISTS coppice_head_row ON templates_app_loghead",
    "DROP TRIGGER IF EXISTS coppice_head_truncate ON templates_app_loghead",
    "DROP TRIGGER IF EXISTS coppice_head_update ON templates_app_loghead",
    "DROP FUNCTION IF EXISTS coppice_count_events()",
    "DROP FUNCTION IF EXISTS coppice_refuse_head()",
    "DROP FUNCTION IF EXISTS coppice_append_one",
)


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":  # SQLite drops them with their table
        for statement in _OLD:
            schema_editor.execute(statement)
    triggers.install(schema_editor.connection)


def put_back(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    head, event = (apps.get_model("templates_app", name) for name in ("LogHead", "Event"))
    size = event._default_manager.aggregate(last=Max("position"))["last"] or 0
    head._default_manager.create(id=1, size=size)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0012_drift")]

    operations = [
        migrations.RunPython(install, put_back),
        migrations.DeleteModel("LogHead"),
    ]
