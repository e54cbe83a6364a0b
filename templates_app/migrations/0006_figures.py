"""What an import moved, and how far each layer of a running one is."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0005_append")]

    operations = [
        *(
            migrations.AddField("generation", name, models.BigIntegerField(null=True))
            for name in ("fetched_bytes", "cached_bytes", "written_bytes")
        ),
        migrations.AddField("lease", "layers", models.JSONField(default=list)),
    ]
