"""What all management commands share: who is asking, errors as sentences and exit statuses."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import uuid
from argparse import ArgumentParser
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


class Pruning(Command):
    """Commands that remove what was used least recently say it in the same words and options."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="whatever the limit says")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def tell(self, rows: list[dict[str, Any]], kept: int, limit: int, dry_run: bool) -> None:
        """What went, as JSON; the two numbers are bytes."""
        said = {"removed": rows, "keptBytes": kept, "limitBytes": limit, "dryRun": dry_run}
        self.stdout.write(json.dumps(said, indent=2))


def used_at(seconds: int) -> str:
    """Seconds since the epoch as commands print a time of use."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
