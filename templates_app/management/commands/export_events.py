"""Write the log as JSON lines: what was recorded, byte for byte, for whoever checks or keeps it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from templates_app import store
from templates_app.management.base import Command as Base


class Command(Base):
    help = "Write the events as JSON lines, oldest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--after",
            type=int,
            default=0,
            metavar="N",
            help="begin after this position: what an earlier export ended with",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        try:
            for line in store.export(after=options["after"]):
                self.stdout.write(line)
                count += 1
            self.stdout.flush()
        except BrokenPipeError:
            # `| head` has what it wanted. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        self.say(f"{count} events.")
