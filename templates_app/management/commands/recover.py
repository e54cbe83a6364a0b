"""Finish or undo what a crash left; the server does this at every start."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import recovery


class Command(Base):
    help = "Finish or undo what a crash left: dead imports, half-done destroys, stale aliases."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        done = recovery.recover(context=who(), dry_run=options["dry_run"])
        for sentence in done:
            self.stdout.write(sentence)
        if not done:
            self.say("Nothing to recover.")
