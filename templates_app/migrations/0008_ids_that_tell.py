"""On SQLite, an event's id that begins with its position needs no index (triggers.py)."""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers


def drop_unique(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    _alter(apps, schema_editor, unique=False)
    triggers.install(schema_editor.connection)


def make_unique(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    _alter(apps, schema_editor, unique=True)


def _alter(apps: Apps, schema_editor: BaseDatabaseSchemaEditor, *, unique: bool) -> None:
    """The column with another uniqueness. PostgreSQL keeps its index of all ids."""
    if schema_editor.connection.vendor != "sqlite":
        return
    event = apps.get_model("templates_app", "Event")
    old, new = event._meta.get_field("event_id"), models.UUIDField(unique=unique)
    new.set_attributes_from_name("event_id")
    new.model = event
    schema_editor.alter_field(event, old, new, strict=True)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0007_fewer_pages")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(drop_unique, make_unique)],
            state_operations=[migrations.AlterField("event", "event_id", models.UUIDField())],
        )
    ]
