"""List every environment variable that Coppice reads, with its value now."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from typing import Any

from coppice_site.environment import VARIABLES
from templates_app.management.base import Command as Base


class Command(Base):
    help = "List every environment variable that Coppice reads, its default and its value now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [
            {
                "name": variable.name,
                "default": variable.default,
                "value": _shown(variable.name, variable.secret),
                "of": variable.of,
                "meaning": variable.meaning,
            }
            for variable in VARIABLES
        ]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        for row in rows:
            value = "(default)" if row["value"] is None else row["value"]
            self.stdout.write(f"{row['name']}={row['default']}  now: {value}")
            self.stdout.write(f"    {row['meaning']}")


def _shown(name: str, secret: bool) -> str | None:
    value = os.environ.get(name)
    return "(set)" if secret and value else value
