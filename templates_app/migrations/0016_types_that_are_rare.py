"""Types are looked up by the index of mentions, those of launches not at all (events/base.py)."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0015_heartbeat")]

    operations = [
        migrations.RemoveIndex("event", "event_type_position"),
        migrations.RunSQL(
            "INSERT INTO templates_app_mention (kind, key, position)"
            " SELECT 'type', type, position FROM templates_app_event"
            " WHERE type NOT IN ('sandbox-created', 'sandbox-refused', 'sandbox-destroyed')"
            " ON CONFLICT DO NOTHING",
            "DELETE FROM templates_app_mention WHERE kind = 'type'",
        ),
    ]
