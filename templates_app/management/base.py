"""What all management commands share: who is asking, errors as sentences and exit statuses."""

from __future__ import annotations

import getpass
import os
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from templates_app.errors import CoppiceError
from templates_app.events import Meta
from templates_app.services import common


def who() -> Meta:
    """The account that runs the command, as the operating system knows it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in a bare container
        name = f"uid {os.getuid()}"
    return common.context(actor=name, source="command", request_id=uuid.uuid4().hex)


class Command(BaseCommand):
    """An error of the tree ends the command with its sentence, its hint and its exit status."""

    requires_system_checks: list[str] = []

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except CoppiceError as error:
            text = f"{error.detail} {error.next_step}".strip()
            raise CommandError(f"{error.code}: {text}", returncode=error.exit_status) from error

    def say(self, text: str) -> None:
        """Talk goes to stderr; stdout is for data."""
        self.stderr.write(text, self.style.SUCCESS)
