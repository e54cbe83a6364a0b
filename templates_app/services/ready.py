"""Clones that are ready before they are asked for, so that a launch need not wait for one.

Most of a launch is the wait for ``zfs clone``. So when one has been launched, the next clone of
that generation is made, under an id that is drawn now and becomes the next sandbox's. It is a
launch that was begun ahead of its request: no event tells of it, and the gate decides when it is
asked for, as ever, on what the pool has then. Whoever needs it gone takes it away: a destroy, a
sweep, recovery, and the process that made it, when nobody has asked for COPPICE_READY_SECONDS.

A note says what it is, written before it is made. Who holds its id alone (intents.py) and finds the
note has it, whichever process made it; never without asking the log, for a note can come back: by a
loss of power, or with a backup of the state directory. ready_keeper.py is the thread that makes
them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db import Error

from templates_app import sql, store
from templates_app.datasets.base import OURS, Clone, DatasetDriver, sandbox_name
from templates_app.errors import CoppiceError, SandboxBusy
from templates_app.lifecycle import GenerationState
from templates_app.models import Generation
from templates_app.services import common, intents

logger = logging.getLogger("coppice.ready")

#: How long who has to have one gone waits for it to be made, in seconds.
PATIENCE = 5.0
#: A zfs(8) whose maker was killed goes on: for so many seconds a clone may come after its note.
_COMES = 60.0
_LAUNCHED = "SELECT 1 FROM templates_app_sandbox WHERE id = %s"
_NAME = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{16})")


# --- notes ---------------------------------------------------------------------------------------


class Note(NamedTuple):
    sandbox_id: str
    mark: str  # of the snapshot, so that a launch need not read the notes of all others

    @property
    def path(self) -> Path:
        return _place() / f"{self.sandbox_id}.{self.mark}"

    def origin(self) -> str | None:
        """The snapshot; "" where its maker died while he wrote it, None where there is no note."""
        try:
            return self.path.read_text(errors="replace")
        except FileNotFoundError:
            return None

    def write(self, origin: str) -> None:
        """On the disk, before the clone is: else a loss of power left one that nobody knows."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.open("w") as file:
            file.write(origin)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def forget(self) -> None:
        """It is not ready any more: gone, or a launch has it, and has noted that. Held alone."""
        self.path.unlink(missing_ok=True)

    def is_new(self) -> bool:
        try:
            return time.time() - self.path.stat().st_mtime < _COMES
        except FileNotFoundError:
            return False


def _place() -> Path:
    return Path(settings.COPPICE_STATE_DIR) / "ready"


def _mark(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()[:16]


def notes() -> list[Note]:
    """Of all that are ready, or being made."""
    try:
        names = sorted(path.name for path in _place().iterdir())
    except FileNotFoundError:  # none was ever made
        return []
    return [Note(*match.groups()) for name in names if (match := _NAME.fullmatch(name))]


def ids() -> list[str]:
    return [note.sandbox_id for note in notes()]


def is_one_of(origin: str) -> bool:
    """Whether one of this snapshot is ready, or being made."""
    return any(note.mark == _mark(origin) for note in notes())


def names(driver: DatasetDriver) -> set[str]:
    """Full names of what is ready: clones that keep nothing from being destroyed."""
    return {driver.full_name(sandbox_name(sandbox_id)) for sandbox_id in ids()}


# --- for launches --------------------------------------------------------------------------------


class Ready(NamedTuple):
    """One that is held alone, and seen just now."""

    note: Note
    clone: Clone


@contextmanager
def taken(
    driver: DatasetDriver,
    generation: GenerationState,
    awaited: Callable[[], Ready | None],
) -> Iterator[tuple[str, Ready | None]]:
    """An id that no sandbox ever had, held alone; and with it the clone that was ready, if any.

    ``awaited`` waits for one that is being made, and has it as it was seen then. Forget the note
    when that of a launch is there. What the pool raises where it cannot be asked.
    """
    with ExitStack() as stack:
        mark = _mark(generation.origin)
        for note in notes():
            if note.mark == mark and _is_free(stack, note):
                relative = common.relative(driver, generation.dataset)
                clone = driver.cloned(relative, sandbox_name(note.sandbox_id))
                if clone is not None:
                    yield note.sandbox_id, Ready(note, clone)
                    return
                with _logged(note):
                    _give_up(driver, note)
            stack.close()
        made = awaited()
        if made is not None and _is_free(stack, made.note):
            yield made.note.sandbox_id, made
            return
        stack.close()
        sandbox_id = uuid.uuid4().hex[:12]
        stack.enter_context(intents.alone(sandbox_id))
        yield sandbox_id, None


def _is_free(stack: ExitStack, note: Note, *, patience: float = 0.0, settle: bool = False) -> bool:
    """Whether it is held alone now, and is ready still: no launch has it, or ever had it.

    Its note is forgotten if one has. ``settle``: what is being committed is waited for, too.
    """
    try:
        stack.enter_context(intents.alone(note.sandbox_id, patience=patience))
    except SandboxBusy:
        return False
    if note.origin() is None:
        return False
    if settle:
        store.settled()
    if sql.rows(_LAUNCHED, [note.sandbox_id]):
        note.forget()
        return False
    return True


# --- making them, and taking them away -----------------------------------------------------------


def make(driver: DatasetDriver, generation: GenerationState) -> Ready | None:
    """A new one; None if the generation is gone. What the pool raises; nothing is left then."""
    origin = generation.origin
    note = Note(uuid.uuid4().hex[:12], _mark(origin))
    with intents.alone(note.sandbox_id):
        try:
            note.write(origin)
            # After the note: a destroy that is not in the log yet will find that.
            if not Generation.objects.filter(
                origin=origin, destroyed_position__isnull=True
            ).exists():
                note.forget()
                return None
            relative = common.relative(driver, generation.dataset)
            return Ready(note, driver.clone(relative, sandbox_name(note.sandbox_id), drawn=True))
        except BaseException:
            with _logged(note):
                _give_up(driver, note, sure=True)
            raise


def give_back(
    driver: DatasetDriver, note: Note, *, patience: float = 0.0, sure: bool, dry_run: bool = False
) -> bool:
    """Remove one that waits; whether it was there. One that is launched, stays.

    So does one that somebody holds for longer than ``patience`` seconds, to make or launch it.
    ``sure``: no program of a dead process is at work on it any more.
    """
    with ExitStack() as stack:
        if not _is_free(stack, note, patience=patience, settle=True):
            return False
        # A launch has it that died: then it is that one's. Not by a note that was only begun.
        if intents.noted().get(note.sandbox_id, "") == note.origin():
            if not dry_run:
                note.forget()
            return False
        return _give_up(driver, note, sure=sure, dry_run=dry_run)


def clear(driver: DatasetDriver, choose: Callable[[str], bool]) -> None:
    """Give back those of snapshots that are chosen, waiting for what is being made.

    What cannot be removed is left for recovery.
    """
    for note in notes():
        if choose(note.origin() or ""):
            with _logged(note):
                give_back(driver, note, patience=PATIENCE, sure=False)


def expire(driver: DatasetDriver, note: Note) -> None:
    """Give back what was made here, and nobody has asked for."""
    with _logged(note):
        give_back(driver, note, sure=True)


@contextmanager
def _logged(note: Note) -> Iterator[None]:
    try:
        yield
    except (CoppiceError, Error, OSError) as error:
        logger.warning("the ready clone %s stays: %s", note.sandbox_id, error)


def _give_up(
    driver: DatasetDriver, note: Note, *, sure: bool = False, dry_run: bool = False
) -> bool:
    """Remove it, and its note; whether it was there. What else has its name, stays. Held alone."""
    relative, origin, there = sandbox_name(note.sandbox_id), note.origin() or "", False
    # Else its maker died while he wrote the note, so before he made it; or it is of another pool.
    if origin.startswith(driver.full_name(OURS).removesuffix(OURS)):
        of = driver.dependents(common.relative(driver, origin))
        there = driver.full_name(relative) in of
    if not dry_run:
        if there:
            driver.destroy(relative)
        if there or sure or not note.is_new():
            note.forget()
    return there
