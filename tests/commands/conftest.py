"""Management commands in this process, on a database and a directory pool of their own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from templates_app.errors import Exit


class Outcome:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


class Shop:
    """``shop.run("recover", "--dry-run")``: what the command printed and ended with."""

    def __init__(self, place: Path) -> None:
        self.pool = place / "pool"

    def run(self, *words: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        status = int(Exit.OK)
        try:
            call_command(*words, stdout=out, stderr=err, no_color=True)
        except CommandError as error:
            status = error.returncode
            err.write(f"CommandError: {error}\n")
        return Outcome(status, out.getvalue(), err.getvalue())

    def hand_make(self, name: str) -> None:
        place = self.pool / f"{name}-template@base"
        place.mkdir()
        (place / "motd").write_text("by hand")


@pytest.fixture
def shop(
    tmp_path: Path,
    settings,
    sqlite_url: str,
    swap_database: Callable[[str], AbstractContextManager[None]],
) -> Iterator[Shop]:
    (tmp_path / "pool").mkdir()
    (tmp_path / "state").mkdir()
    settings.COPPICE_POOL = f"dir:{tmp_path / 'pool'}"
    settings.COPPICE_STATE_DIR = tmp_path / "state"
    settings.COPPICE_NODE = "test"
    with swap_database(sqlite_url):
        yield Shop(tmp_path)
