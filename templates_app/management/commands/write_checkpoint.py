"""Sign the log as it is now: for a timer, and before a backup."""

from __future__ import annotations

from typing import Any

from templates_app.management.base import Command as Base
from templates_app.services import ledger


class Command(Base):
    help = "Sign a checkpoint of the log, keep it, and write it to COPPICE_CHECKPOINT_DIR."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(ledger.write_checkpoint().text().decode(), ending="")
