"""Remove from the blob cache what was used least recently, or everything."""

from __future__ import annotations

import datetime
import json
from argparse import ArgumentParser
from typing import Any

from templates_app.management.base import Command as Base
from templates_app.names import human_size
from templates_app.services import cache
from templates_app.sources.native.cache import Kept


class Command(Base):
    help = "Remove blobs that no import uses: down to COPPICE_LIMIT_CACHE_BYTES, or all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--all", action="store_true", help="whatever the limit says")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        pruned = cache.prune(everything=options["all"], dry_run=options["dry_run"])
        if options["json"]:
            rows = [_row(one) for one in pruned.gone]
            said = {
                "removed": rows,
                "keptBytes": pruned.kept_bytes,
                "limitBytes": pruned.limit_bytes,
                "dryRun": options["dry_run"],
            }
            self.stdout.write(json.dumps(said, indent=2))
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
    return datetime.datetime.fromtimestamp(one.used_ns // 10**9, datetime.UTC).isoformat()
