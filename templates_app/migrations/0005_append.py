"""The append function of PostgreSQL as it is now: it reads one row of a stream, not all."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    triggers.install(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0004_plurals")]

    operations = [migrations.RunPython(install, migrations.RunPython.noop)]
