"""On PostgreSQL the insert trigger asks the log by itself (insert.sql), without other functions.

Each call of one held the lock that orders all appends for longer.
"""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        triggers.install(schema_editor.connection)
        for name in ("coppice_next(text)", "coppice_has(bigint)"):
            schema_editor.execute(f"DROP FUNCTION IF EXISTS {name}")


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0018_ids_that_tell_everywhere")]

    operations = [migrations.RunPython(install, migrations.RunPython.noop)]
