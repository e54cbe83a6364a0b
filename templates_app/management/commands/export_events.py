"""Write the log as JSON lines: what was recorded, byte for byte, for whoever checks or keeps it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from templates_app import store
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import access


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
        count, after, last = 0, options["after"], store.size()
        # First: an export that is cut off has been one all the same. It ends before its own trace.
        if not access.exported(
            what="events",
            first=after + 1,
            last=last,
            events=max(last - max(after, 0), 0),
            question="",
            context=who(),
        ):
            self.say("The log cannot be written: this export is not recorded in it.")
        try:
            for line in store.export(after=after, last=last):
                self.stdout.write(line)
                count += 1
            self.stdout.flush()
        except BrokenPipeError:
            # `| head` has what it wanted. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        self.say(f"{count} events.")
