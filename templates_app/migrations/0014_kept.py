"""Generations that stay for their clones alone; and which went alone, not with their template."""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def mark_retired(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """As a rebuild does."""
    event, generation = (apps.get_model("templates_app", name) for name in ("Event", "Generation"))
    for position in event._default_manager.filter(type="retired").values_list("pk", flat=True):
        generation._default_manager.filter(destroyed_position=position).update(retired=True)


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0013_no_head_row")]

    operations = [
        migrations.AddField("generation", "kept_position", models.BigIntegerField(null=True)),
        migrations.AddField("generation", "retired", models.BooleanField(default=False)),
        migrations.RunPython(mark_retired, migrations.RunPython.noop),
    ]
