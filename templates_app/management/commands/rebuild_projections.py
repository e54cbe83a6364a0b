"""Make the read models from the log alone, or check that they are what the log says."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from templates_app.management.base import Command as Base
from templates_app.services import readmodels


class Command(Base):
    help = "Drop the read models and fold them from the log again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="change nothing; exit 1 if what is there is not what the log gives",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["check"]:
            self.say(f"Folded {readmodels.rebuild()} events.")
            return
        events, differences = readmodels.check()
        for difference in differences:
            self.stdout.write(difference)
        if differences:
            raise CommandError(
                f"{len(differences)} row(s) differ from what the log gives. Somebody changed the"
                " read models by hand, or a projection has changed: run rebuild_projections.",
                returncode=1,
            )
        self.say(f"The read models are what {events} events give.")
