"""Remove from the blob cache what was used least recently, or everything."""

from __future__ import annotations

from typing import Any

from templates_app.management.base import Pruning, used_at
from templates_app.names import human_size
from templates_app.services import cache
from templates_app.sources.native.cache import Kept


class Command(Pruning):
    help = "Remove blobs that no import uses: down to COPPICE_LIMIT_CACHE_BYTES, or all."

    def handle(self, *args: Any, **options: Any) -> None:
        pruned = cache.prune(everything=options["all"], dry_run=options["dry_run"])
        if options["json"]:
            rows = [_row(one) for one in pruned.gone]
            self.tell(rows, pruned.kept_bytes, pruned.limit_bytes, options["dry_run"])
            return
        for one in pruned.gone:
            note = "\tpartial" if one.partial else ""
            self.stdout.write(f"{one.digest}\t{one.size_bytes}\t{_used(one)}{note}")
        went = human_size(sum(one.size_bytes for one in pruned.gone))
        verb = "Would remove" if options["dry_run"] else "Removed"
        self.say(
            f"{verb} {len(pruned.gone)} blobs ({went}); {human_size(pruned.kept_bytes)} stay"
            f" of at most {human_size(pruned.limit_bytes)}."
        )


def _row(one: Kept) -> dict[str, Any]:
    return {
        "digest": one.digest.text,
        "sizeBytes": one.size_bytes,
        "usedAt": _used(one),
        "partial": one.partial,
    }


def _used(one: Kept) -> str:
    return used_at(one.used_ns // 10**9)
