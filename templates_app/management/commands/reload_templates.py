"""Compare pool and log, as POST /templates/reload does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import pool


class Command(Base):
    help = "Compare pool and log: adopt hand-made templates, mark vanished ones, list findings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the event's data as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        recorded = pool.reload(context=who())
        data = recorded.event.to_json()
        if options["json"]:
            self.stdout.write(json.dumps({**data, "position": recorded.position}, indent=2))
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
        self.say(recorded.event.sentence())
