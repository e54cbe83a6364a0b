"""Ask the registries whether tags still name what was imported from them."""

from __future__ import annotations

import dataclasses
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder

from templates_app.codec import camel
from templates_app.errors import Exit
from templates_app.management.base import Command as Base
from templates_app.management.base import who
from templates_app.services import drift


class Command(Base):
    help = "Ask the registries whether tags still name what was imported from them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="only these templates")
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        def report(one: drift.Standing) -> None:
            if not options["json"]:
                found = one.found_digest or "-"
                self.stdout.write(f"{one.template}\t{one.state}\t{one.reference or '-'}\t{found}")
                if one.detail:
                    self.say(f"{one.template}: {one.detail}")

        found = drift.check(names=options["names"], context=who(), report=report)
        if options["json"]:
            rows = [
                {camel(key): value for key, value in dataclasses.asdict(one).items()}
                for one in found
            ]
            self.stdout.write(json.dumps(rows, indent=2, cls=DjangoJSONEncoder))
        else:
            self.say(f"{sum(one.changed for one in found)} of {len(found)} changed.")
        if any(one.state == drift.UNREACHABLE for one in found):
            raise CommandError(
                "Not every registry could be asked.", returncode=int(Exit.PULL_FAILED)
            )
