"""What sandboxes and leases are called in the auditors' house. Changes nothing in the database."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("templates_app", "0003_roles")]

    operations = [
        migrations.AlterModelOptions(
            name="lease",
            options={"default_permissions": ("view",), "verbose_name": "running import"},
        ),
        migrations.AlterModelOptions(
            name="sandbox",
            options={
                "default_permissions": ("view",),
                "ordering": ["created_at", "id"],
                "verbose_name_plural": "sandboxes",
            },
        ),
    ]
