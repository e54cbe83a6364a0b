"""Remove generations that are not current, not retained, and that nothing is cloned from."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from templates_app.errors import Exit
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import sweep


class Command(Base):
    help = "Remove old generations without clones: all beyond COPPICE_RETAIN_GENERATIONS."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        swept = sweep.sweep(context=who(), dry_run=options["dry_run"])
        if options["json"]:
            said = {
                "removed": [_row(one) for one in swept.gone],
                "inUse": [{**_row(one), "clones": list(one.clones)} for one in swept.in_use],
                "failed": swept.failed,
                "finished": swept.finished,
                "dryRun": options["dry_run"],
            }
            self.stdout.write(json.dumps(said, indent=2))
        else:
            for one in swept.gone:
                self.stdout.write(f"{one.template}\t{one.generation}\t{one.dataset}")
            for one in swept.in_use:
                clones = ", ".join(one.clones)
                self.say(f"{one.template} generation {one.generation} stays for {clones}")
            for sentence in (*swept.finished, *swept.failed):
                self.say(sentence)
            verb = "Would remove" if options["dry_run"] else "Removed"
            self.say(f"{verb} {len(swept.gone)} generation(s).")
        if swept.failed:
            raise CommandError("Not every template was swept.", returncode=Exit.FAILURE)


def _row(one: sweep.One) -> dict[str, Any]:
    return {"template": one.template, "generation": one.generation, "dataset": one.dataset}
