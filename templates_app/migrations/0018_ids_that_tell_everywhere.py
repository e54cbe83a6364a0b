"""On PostgreSQL too, an event's id that begins with its position needs no index (triggers.py).

One call of a function appends an event: what ``coppice_place`` did, the trigger does, and what two
constraints did.
"""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers

_POSITIVE = ("version", "schema")


def drop_unique(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        # Who comes all the way has it from an earlier one, and ``_alter`` must find but one.
        schema_editor.execute("DROP INDEX IF EXISTS coppice_event_id")
        _alter(apps, schema_editor, unique=False)
        schema_editor.execute("DROP FUNCTION IF EXISTS coppice_place")
        for column in _POSITIVE:
            name = f"templates_app_event_{column}_check"  # PostgreSQL's, for one without a name
            schema_editor.execute(
                f"ALTER TABLE templates_app_event DROP CONSTRAINT IF EXISTS {name}"
            )
        triggers.install(schema_editor.connection)


def make_unique(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX IF EXISTS coppice_event_id")
        _alter(apps, schema_editor, unique=True)
        for column in _POSITIVE:
            schema_editor.execute(f"ALTER TABLE templates_app_event ADD CHECK ({column} >= 0)")


def _alter(apps: Apps, schema_editor: BaseDatabaseSchemaEditor, *, unique: bool) -> None:
    event = apps.get_model("templates_app", "Event")
    fields = {known: models.UUIDField(unique=known) for known in (True, False)}
    for field in fields.values():
        field.set_attributes_from_name("event_id")
        field.model = event
    schema_editor.alter_field(event, fields[not unique], fields[unique], strict=True)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0017_what_streams_say")]

    operations = [migrations.RunPython(drop_unique, make_unique)]
