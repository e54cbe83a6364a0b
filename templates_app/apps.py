"""The Django app: its name, and what must hold before the server starts."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connections
from django.db.models.signals import post_migrate

from templates_app.checks import queue_retry, quota_is_held


class TemplatesAppConfig(AppConfig):
    name = "templates_app"
    verbose_name = "Coppice"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(_install_triggers, sender=self)
        checks.register(_triggers_in_place, checks.Tags.database)
        checks.register(queue_retry)
        checks.register(quota_is_held)


def _install_triggers(using: str, **_: Any) -> None:
    """After every migrate, for SQLite drops a table's triggers when a migration alters it."""
    from templates_app import triggers

    if triggers.tables_exist(connections[using]):
        triggers.install(connections[using])


def _triggers_in_place(*, databases: Sequence[str] | None, **_: Any) -> list[checks.CheckMessage]:
    from templates_app import triggers

    found: list[checks.CheckMessage] = []
    for alias in databases or []:
        # With migrations to come, migrate will install them; its own check must not stop it.
        absent = (
            [] if triggers.pending(connections[alias]) else triggers.missing(connections[alias])
        )
        if absent:
            found.append(
                checks.Error(
                    f"The log on database {alias!r} is not append-only: {', '.join(absent)}.",
                    hint="Find out who did it. `manage.py migrate --skip-checks` restores them.",
                    id="templates_app.E001",
                )
            )
    return found
