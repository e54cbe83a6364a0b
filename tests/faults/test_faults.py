"""What is not death: a full pool, a ZFS that fails, a database that is gone, a clock put back.

At each boundary, as in test_kills.py. Whatever the use case makes of it, it says so in words of
ours; and then, or after recovery, pool and log agree.
"""

from __future__ import annotations

import datetime
import errno
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from templates_app import store_writers
from tests.faults import report
from tests.faults.steps import Act, DatabaseGone, ZfsFails, general
from tests.faults.test_kills import ALL, TODAY, after, killed
from tests.faults.world import USE_CASES, World

NAMES = [name for name in USE_CASES if name != "recovery"]
_MAKES = ("mkdir ", "open ", "empty ", "rename ", "symlink ")
_CHANGES = ("create", "clone", "snapshot", "set", "rename", "destroy", "mount", "unmount")


def no_space(what: str) -> None:
    """Where something is made on the pool."""
    if what.startswith(_MAKES) and "/pool/" in what and "locks/" not in what:
        raise OSError(errno.ENOSPC, "No space left on device")
    if what.startswith(("before zfs create", "before zfs clone", "before zfs snapshot")):
        raise ZfsFails("cannot create 'it': out of space")


def zfs_fails(what: str) -> None:
    if what in [f"before zfs {verb}" for verb in _CHANGES]:
        raise ZfsFails("internal error: Bad exchange descriptor")


def the_disk_fails(what: str) -> None:
    if what.startswith(_MAKES) and "/pool/" in what:
        raise OSError(errno.EIO, "Input/output error")


def the_database_is_gone(what: str) -> None:
    if what.split()[0] in ("INSERT", "UPDATE", "DELETE", "SELECT", "COMMIT"):
        raise DatabaseGone


def the_clock_goes_back(_what: str) -> bool:
    """An hour, for what Python asks; PostgreSQL has its own."""
    now = time.time

    class Earlier(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.now(tz) - datetime.timedelta(hours=1)

    time.time = lambda: now() - 3600
    store_writers.datetime = SimpleNamespace(datetime=Earlier, UTC=datetime.UTC)
    return True


FAULTS: dict[str, Callable[[str], object]] = {
    "the pool is full": no_space,
    "zfs fails": zfs_fails,
    "the disk fails": the_disk_fails,
    "the database is gone": the_database_is_gone,
    "the clock goes back": the_clock_goes_back,
}
#: Where each is tried in `make test`.
CASES = [
    ("the pool is full", "zfs", "sqlite"),
    ("the pool is full", "dir", "postgresql"),
    ("zfs fails", "zfs", "postgresql"),
    ("the disk fails", "dir", "sqlite"),
    ("the database is gone", "dir", "sqlite"),
    ("the database is gone", "dir", "postgresql"),
    ("the clock goes back", "dir", "sqlite"),
]
if ALL:
    CASES = [
        (fault, pool, database)
        for fault in FAULTS
        for pool in ("zfs", "dir")
        for database in ("sqlite", "postgresql")
        if (fault, pool) not in (("zfs fails", "dir"), ("the disk fails", "zfs"))
    ]
#: Of the boundaries, one of so many is tried in `make test`; which, the day says.
PARTS = dict.fromkeys(FAULTS, 1)
if not ALL:
    PARTS |= {"zfs fails": 3, "the database is gone": 3, "the clock goes back": 24}


@pytest.mark.parametrize(
    ("fault", "pool", "database_url"), CASES, indirect=["pool", "database_url"]
)
def test_whatever_fails_and_wherever_pool_and_log_agree(
    world: World, fault: str, database_url: str
):
    lines = report.Lines(world.driver.kind, database_url)
    problems: dict[str, object] = {}
    done: set[object] = set()
    for name in NAMES:
        one = USE_CASES[name]
        while (end := killed(world, one, _once(fault, done))).failed:
            done.add(end.boundary)
            outcome, wrong = after(world, one)
            if end.error is not None and not _in_words_of_ours(end.error):
                wrong.append(end.error)
            lines.add(name, end.boundary, f"{outcome}, {fault}")
            for sentence in wrong:
                problems.setdefault(sentence, (name, end.boundary, end.error))
        after(world, one)
    lines.write(fault.replace(" ", "_"))
    assert done, "nothing has failed"
    assert problems == {}
    assert world.at_the_end() == []


def _once(fault: str, done: set[object]) -> Act:
    """It happens at the first boundary at which it has not happened yet, and where it can."""
    last, happened = "the beginning", False
    do, part = FAULTS[fault], PARTS[fault]

    def act(_number: int, what: str) -> bool:
        nonlocal last, happened
        boundary, last = (last, general(what)), general(what)
        chosen = zlib.crc32(repr(boundary).encode()) % part == TODAY % part
        if happened or not chosen or boundary in done:
            return False
        try:
            happened = bool(do(what))
        except BaseException:
            happened = True
            raise
        return happened

    return act


def _in_words_of_ours(error: str) -> bool:
    """A code; or what Django says of a database, which the API's handler has words for."""
    last = error.strip().splitlines()[-1]
    return " " not in error or last.startswith("django.db.utils.")
