"""The four roles, as groups with their permissions."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from templates_app.roles import ROLES


def make(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Django makes permissions after the last migration; the groups need theirs now.

    What it finds then, it leaves as it is. Names are those that it would give.
    """
    using = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(using)
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    groups = apps.get_model("auth", "Group").objects.using(using)
    names = dict(apps.get_model("templates_app", "Template")._meta.permissions)
    for role, codes in ROLES.items():
        group, _ = groups.get_or_create(name=role)
        for code in codes:
            codename = code.partition(".")[2]
            verb, _, model = codename.partition("_")
            kind, _ = content_types.get_or_create(app_label="templates_app", model=model)
            permission, _ = permissions.get_or_create(
                content_type=kind,
                codename=codename,
                defaults={"name": names.get(codename, f"Can {verb} {model}")},
            )
            group.permissions.add(permission)


def unmake(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    groups = apps.get_model("auth", "Group").objects.using(schema_editor.connection.alias)
    groups.filter(name__in=ROLES).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("templates_app", "0002_log"),
    ]

    operations = [migrations.RunPython(make, unmake)]
