"""Read the files of templates again, and compare them with what was recorded."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError

from templates_app.errors import CoppiceError, Exit, GenerationNotFound, TemplateNotFound
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.names import human_size
from templates_app.services import verifying

_TELL_EVERY = 10.0  # seconds


class Command(Base):
    help = "Verify that the files of templates are those that their tree digests were made of."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="the current generation of it")
        parser.add_argument(
            "--all",
            action="store_true",
            help="every generation that is on the pool: of the NAMEs, or of all templates",
        )
        parser.add_argument("--json", action="store_true", help="print it as JSON lines")

    def handle(self, *args: Any, **options: Any) -> None:
        names: list[str] = options["names"]
        if not names and not options["all"]:
            raise CommandError("Say which: NAME, or --all.", returncode=Exit.USAGE)
        wanted: list[tuple[str, int | None]] = [(name, None) for name in names]
        if options["all"]:
            of: list[str] | list[None] = names or [None]
            wanted = [pair for name in of for pair in verifying.standing(name=name)]
        bad = [pair for pair in wanted if not self._verify(*pair, options)]
        if bad:
            raise CommandError(
                f"{len(bad)} of {len(wanted)} could not be verified.", returncode=Exit.FAILURE
            )
        self.say(f"The files of {len(wanted)} generation(s) are as they were recorded.")

    def _verify(self, name: str, number: int | None, options: dict[str, Any]) -> bool:
        which = name if number is None else f"{name}@{number}"
        try:
            recorded = verifying.verify(
                name=name, number=number, context=who(), on_progress=self._progress(which)
            )
        except (TemplateNotFound, GenerationNotFound) as gone:
            if not options["all"]:
                raise
            self.say(f"{which}: {gone.detail}")  # removed since the list was made: nothing is wrong
            return True
        except CoppiceError as error:
            if not options["all"]:
                raise
            self.say(f"{which}: {error.code}: {error.detail}")
            return False
        said = verifying.explained(recorded)
        if options["json"]:
            self.stdout.write(json.dumps(said))
        else:
            self.stdout.write(f"{name}\t{said['generation']}\t{said['result']}\t{said['detail']}")
            for one in said["differences"]:
                grave = ",".join(one["grave"]) or "-"
                self.stdout.write(f"  {one['change']}\t{grave}\t{one['path']}")
            if said["nextStep"]:
                self.say(f"  {said['nextStep']}")
        return bool(said["result"] == "matches")

    def _progress(self, which: str) -> Callable[[int, int], None]:
        until = time.monotonic() + _TELL_EVERY

        def tell(entries: int, done: int) -> None:
            nonlocal until
            if time.monotonic() >= until:
                self.say(f"{which}: {entries} entries, {human_size(done)} read")
                until = time.monotonic() + _TELL_EVERY

        return tell
