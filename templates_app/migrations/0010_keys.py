"""Keys that events trust and revoke, and who may do that."""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

GIVEN = {"trust_key": ("operator",), "revoke_key": ("operator", "signer")}


def give(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """To the roles, as 0003 did: Django makes permissions after the last migration.

    Only what is new: a permission that an administrator has taken away stays away.
    """
    using = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(using)
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    groups = apps.get_model("auth", "Group").objects.using(using)
    names = dict(apps.get_model("templates_app", "Key")._meta.permissions)
    kind, _ = content_types.get_or_create(app_label="templates_app", model="key")
    for codename, roles in GIVEN.items():
        permission, _ = permissions.update_or_create(
            content_type=kind, codename=codename, defaults={"name": names[codename]}
        )
        for group in groups.filter(name__in=roles):
            group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("templates_app", "0009_findings"),
    ]

    operations = [
        migrations.CreateModel(
            name="Key",
            fields=[
                ("public_key", models.CharField(max_length=60, primary_key=True, serialize=False)),
                ("key_id", models.CharField(max_length=16)),
                ("label", models.CharField(max_length=100)),
                ("owner", models.CharField(blank=True, max_length=150)),
                ("purpose", models.CharField(blank=True, max_length=20)),
                ("not_before", models.DateTimeField(null=True)),
                ("not_after", models.DateTimeField(null=True)),
                ("scope", models.JSONField(default=list)),
                ("predecessor", models.CharField(blank=True, max_length=60)),
                ("trusted_position", models.BigIntegerField(null=True)),
                ("trusted_at", models.DateTimeField(null=True)),
                ("trusted_by", models.CharField(blank=True, max_length=150)),
                ("revoked_position", models.BigIntegerField(null=True)),
                ("revoked_since", models.BigIntegerField(null=True)),
                ("revoked_reason", models.CharField(blank=True, max_length=20)),
                ("revoked_note", models.CharField(blank=True, max_length=500)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("revoked_by", models.CharField(blank=True, max_length=150)),
            ],
            options={
                "ordering": ["label"],
                "permissions": [("trust_key", "Can trust keys"), ("revoke_key", "Can revoke keys")],
                "default_permissions": (),
            },
        ),
        migrations.RunPython(give, migrations.RunPython.noop),
    ]
