"""Remove layer states that no template needs, the least recently used first."""

from __future__ import annotations

from typing import Any

from templates_app.management.base import Pruning, used_at
from templates_app.names import human_size
from templates_app.services import layers


class Command(Pruning):
    help = "Remove layer states that no template needs: down to COPPICE_LIMIT_LAYERS_BYTES, or all."

    def handle(self, *args: Any, **options: Any) -> None:
        pruned = layers.prune(everything=options["all"], dry_run=options["dry_run"])
        if options["json"]:
            rows = [_row(one) for one in pruned.gone]
            self.tell(rows, pruned.kept_bytes, pruned.limit_bytes, options["dry_run"])
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
    return used_at(int(one.used_at))
