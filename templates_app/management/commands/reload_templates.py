"""Compare pool and log, as POST /templates/reload does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from templates_app.events import DomainEvent
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import reload


class Command(Base):
    help = "Compare pool and log: adopt hand-made templates, mark vanished ones, list findings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="only say what would be found and repaired"
        )
        parser.add_argument("--fix", action="store_true", help="repair what is safe")
        parser.add_argument(
            "--verify", action="store_true", help="look into the files of every generation, too"
        )
        parser.add_argument("--json", action="store_true", help="print the event's data as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        how = {"fix": options["fix"], "verify": options["verify"]}
        if options["dry_run"]:
            event: DomainEvent = reload.preview(**how)
            data = reload.explained(event)
        else:
            recorded = reload.reload(context=who(), **how)
            event, data = recorded.event, reload.explained(recorded.event, recorded.position)
        if options["json"]:
            self.stdout.write(json.dumps(data, indent=2))
            return
        for what in ("added", "changed"):
            for adopted in data[what]:
                self.stdout.write(f"{what}\t{adopted['template']}\t{adopted['snapshot']}")
        for what in ("missing", "returned"):
            for name in data[what]:
                self.stdout.write(f"{what}\t{name}")
        for finding in data["findings"]:
            self.stdout.write(
                f"finding\t{finding['code']}\t{finding['subject']}: {finding['detail']}"
            )
            self.say(f"  {finding['subject']}: {finding['nextStep']}")
        word = "fixable" if options["dry_run"] else "fixed"
        for fixed in data["fixed"]:
            self.stdout.write(f"{word}\t{fixed['code']}\t{fixed['subject']}: {fixed['done']}")
        self.say(event.sentence())
        if options["dry_run"]:
            self.say("Nothing was changed: this was a dry run.")
