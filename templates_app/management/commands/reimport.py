"""Re-import templates from their recorded references."""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import IO, Any, cast

from django.core.management.base import CommandError
from django.db import connection, transaction
from django_q.tasks import async_task
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from templates_app.errors import CoppiceError, Exit
from templates_app.events import Meta
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import bulk

_WORDS = {bulk.IMPORT: "would import", "imported": "imported", "queued": "queued"}


class Command(Base):
    help = (
        "Re-import templates from their recorded references: resolves first, skips what is"
        " unchanged, goes on after failures."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--all", action="store_true", help="every template")
        parser.add_argument("--force", action="store_true", help="also what is unchanged")
        parser.add_argument("--jobs", type=int, default=1, help="imports at a time (1 to 16)")
        parser.add_argument("--queue", action="store_true", help="hand each to the queue's workers")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["names"]) == options["all"]:
            raise CommandError("Give names or --all, not both.", returncode=Exit.USAGE)
        if not 1 <= options["jobs"] <= 16:
            raise CommandError("--jobs must be from 1 to 16.", returncode=Exit.USAGE)
        names = bulk.choose(names=options["names"], everything=options["all"])
        job, force = uuid.uuid4(), options["force"]
        if options["queue"] and not options["dry_run"]:
            items = _queue(names, job, force)
        else:
            items = self._work(names, job, force, options["jobs"], options["dry_run"])
        if options["json"]:
            shown = {"job": str(job), "templates": [asdict(item) for item in items]}
            self.stdout.write(json.dumps(shown, indent=2))
        else:
            self._table(items)
        failed = sum(item.action == bulk.FAILED for item in items)
        if failed:
            raise CommandError(f"{failed} of {len(items)} failed.", returncode=Exit.FAILURE)
        if options["queue"] and not options["dry_run"]:
            self.say(f"Job {job}. The queue's workers do the rest: manage.py qcluster")

    def _work(
        self, names: list[str], job: uuid.UUID, force: bool, jobs: int, dry_run: bool
    ) -> list[bulk.Item]:
        context = who()
        console = Console(stderr=True)
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        quiet = not console.is_terminal
        with (
            Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet) as progress,
            ThreadPoolExecutor(jobs) as pool,
        ):
            task = progress.add_task("Resolving" if dry_run else "Re-importing", total=len(names))
            items = []
            for item in pool.map(lambda n: _one(n, job, force, dry_run, context), names):
                items.append(item)
                progress.advance(task)
                if not console.is_terminal:
                    self.say(f"{item.name}: {item.action} {item.detail}".strip())
        return items

    def _table(self, items: list[bulk.Item]) -> None:
        table = Table("Template", "Outcome", "Was", "Is", "Remark", box=None)
        for item in items:
            outcome = _WORDS.get(item.action, item.action)
            remark = f"{item.code}: {item.detail}" if item.code else item.detail
            table.add_row(
                item.name, outcome, _short(item.old_digest), _short(item.new_digest), remark
            )
        Console(file=cast(IO[str], self.stdout), markup=False).print(table)


def _one(name: str, job: uuid.UUID, force: bool, dry_run: bool, context: Meta) -> bulk.Item:
    """Never raises what the tree of errors knows: one failure does not stop the others."""
    item = bulk.Item(name=name, reference="", action=bulk.FAILED, old_digest="")
    try:
        item = bulk.plan(name=name, force=force)
        if dry_run or item.action != bulk.IMPORT:
            return item
        bulk.reimport(name=name, job=job, force=force, context=context)
        return replace(item, action="imported")
    except CoppiceError as error:
        return replace(item, action=bulk.FAILED, code=error.code, detail=error.detail)
    finally:
        connection.close()  # each thread of the pool has its own


def _queue(names: list[str], job: uuid.UUID, force: bool) -> list[bulk.Item]:
    # One transaction: the broker is this database, so all are queued or none is.
    with transaction.atomic():
        for name in names:
            async_task("templates_app.tasks.reimport", name, str(job), force, group=str(job))
    return [bulk.Item(name=n, reference="", action="queued", old_digest="") for n in names]


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else ""
