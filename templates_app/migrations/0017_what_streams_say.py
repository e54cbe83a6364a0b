"""What an event's stream says is not mentioned again; each event is looked at when it comes.

Who goes back makes the mentions anew with ``manage.py rebuild_projections``.
"""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app import triggers

_SAID = """
DELETE FROM templates_app_mention WHERE EXISTS (
  SELECT 1 FROM templates_app_event e WHERE e.position = templates_app_mention.position AND (
    e.stream = templates_app_mention.kind || ':' || templates_app_mention.key
    OR templates_app_mention.kind = 'template'
      AND e.stream = 'launches:' || templates_app_mention.key))"""


def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    triggers.install(schema_editor.connection)
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP FUNCTION IF EXISTS coppice_follow_events()")


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0016_types_that_are_rare")]

    operations = [
        migrations.RunSQL(_SAID, migrations.RunSQL.noop),
        migrations.RunPython(install, migrations.RunPython.noop),
    ]
