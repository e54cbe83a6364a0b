"""Remove layer states that no template needs, the least recently used first."""

from __future__ import annotations

import datetime
import json
from argparse import ArgumentParser
from typing import Any

from templates_app.management.base import Command as Base
from templates_app.names import human_size
from templates_app.services import layers


class Command(Base):
    help = "Remove layer states that no template needs: down to COPPICE_LIMIT_LAYERS_BYTES, or all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="whatever the limit says")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        pruned = layers.prune(everything=options["all"], dry_run=options["dry_run"])
        if options["json"]:
            said = {
                "removed": [_row(one) for one in pruned.gone],
                "keptBytes": pruned.kept_bytes,
                "limitBytes": pruned.limit_bytes,
                "dryRun": options["dry_run"],
            }
            self.stdout.write(json.dumps(said, indent=2))
            return
        for one in pruned.gone:
            self.stdout.write(f"{one.image.name}\t{one.image.used_bytes}\t{_used(one)}")
        went = human_size(sum(one.image.used_bytes for one in pruned.gone))
        verb = "Would remove" if options["dry_run"] else "Removed"
        self.say(
            f"{verb} the states of {len(pruned.gone)} images ({went}); of those that no template"
            f" needs {human_size(pruned.kept_bytes)} stay, at most"
            f" {human_size(pruned.limit_bytes)}."
        )


def _row(one: layers.Unneeded) -> dict[str, Any]:
    return {
        "image": one.image.name,
        "states": len(one.image.states),
        "sizeBytes": one.image.used_bytes,
        "usedAt": _used(one),
    }


def _used(one: layers.Unneeded) -> str:
    return datetime.datetime.fromtimestamp(int(one.used_at), datetime.UTC).isoformat()
