"""Make every leaf of the log anew, and hold the tree against every checkpoint that is kept."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from templates_app.management.base import Command as Base
from templates_app.services import ledger


class Command(Base):
    help = "Verify the log against itself and every kept checkpoint; name the first bad position."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = ledger.verify(progress=lambda count: self.say(f"{count} events read"))
        if options["json"]:
            said = {
                "size": found.size,
                "root": found.root.hex(),
                "checkpoints": found.checkpoints,
            }
            self.stdout.write(json.dumps(said, indent=2))
            return
        self.stdout.write(f"{found.size}\t{found.root.hex()}")
        self.say(f"The log is as recorded; {found.checkpoints} checkpoints hold.")
