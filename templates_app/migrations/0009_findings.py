"""What reloads found becomes rows. Until now it was in the events alone."""

import json
from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def fold(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The rows that a rebuild makes of reloads of schema 1, whose findings touched no template:
    each reload replaces what the one before it had found."""
    event, finding = (apps.get_model("templates_app", name) for name in ("Event", "Finding"))
    open_rows: dict[tuple[str, str], Any] = {}
    for one in event._default_manager.filter(type="reloaded", schema=1).order_by("position"):
        before, open_rows = open_rows, {}
        for number, found in enumerate(json.loads(one.data)["findings"], start=1):
            key = (found["code"], found["subject"])
            row = open_rows.get(key) or before.pop(key, None)
            if row is None:
                row = finding(
                    id=f"{one.position}-{number}",
                    code=found["code"],
                    subject=found["subject"],
                    position=one.position,
                    found_at=one.recorded_at,
                )
            row.detail, row.seen_position = found["detail"], one.position
            row.save()
            open_rows[key] = row
        for row in before.values():
            row.cleared_position = one.position
            row.save()


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0008_ids_that_tell")]

    operations = [
        migrations.CreateModel(
            name="Finding",
            fields=[
                ("id", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("code", models.CharField(max_length=40)),
                ("subject", models.TextField()),
                ("template_name", models.CharField(blank=True, max_length=64)),
                ("generation", models.PositiveIntegerField(null=True)),
                ("detail", models.TextField()),
                ("position", models.BigIntegerField()),
                ("found_at", models.DateTimeField()),
                ("seen_position", models.BigIntegerField()),
                ("cleared_position", models.BigIntegerField(null=True)),
            ],
            options={
                "ordering": ["-position", "id"],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("cleared_position__isnull", True)),
                        fields=["template_name", "generation"],
                        name="finding_open",
                    )
                ],
            },
        ),
        migrations.RunPython(fold, migrations.RunPython.noop),
    ]
