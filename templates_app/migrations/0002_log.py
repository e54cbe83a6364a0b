"""The log's head row, and the triggers that make the log append-only."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers

HEAD: str = "LogHead"  # until 0013


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    head = apps.get_model("templates_app", HEAD)
    head._default_manager.using(connection.alias).create(id=1, size=0)
    triggers.install(connection)


def remove(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    triggers.remove(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0001_initial")]

    operations = [migrations.RunPython(install, remove)]
