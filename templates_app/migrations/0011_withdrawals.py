"""Signatures can be withdrawn: their rows stay, marked."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("templates_app", "0010_keys"),
    ]

    operations = [
        migrations.AddField(
            model_name="signature",
            name="withdrawn_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="signature",
            name="withdrawn_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AddField(
            model_name="signature",
            name="withdrawn_note",
            field=models.CharField(blank=True, max_length=500),
        ),
        migrations.AddField(
            model_name="signature",
            name="withdrawn_position",
            field=models.BigIntegerField(null=True),
        ),
    ]
