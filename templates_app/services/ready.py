"""Clones that are ready before they are asked for, so that a launch need not wait for one.

Most of a launch is the wait for ``zfs clone``. So when one has been launched, the next clone of
that generation is made, under an id that is drawn now and becomes the next sandbox's. It is a
launch that was begun ahead of its request: no event tells of it, and the gate decides when it is
asked for, as ever, on what the pool has then. Whoever needs it gone takes it away: a destroy, a
sweep, recovery, and the process that made it, when nobody has asked for COPPICE_READY_SECONDS.

A note says what it is, written before it is made. Who holds its id alone (intents.py) and finds the
note has it, whichever process made it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from django.conf import settings

from templates_app import store
from templates_app.datasets.base import Clone, DatasetDriver, sandbox_name
from templates_app.errors import CoppiceError, SandboxBusy
from templates_app.lifecycle import GenerationState
from templates_app.models import Sandbox
from templates_app.services import common, intents

logger = logging.getLogger("coppice.ready")

#: The longest that a launch waits for one that is being made, in seconds: about as long as its own
#: clone would take if the pool were busy.
PATIENCE = 1.0


# --- notes ---------------------------------------------------------------------------------------


def _place() -> Path:
    return Path(settings.COPPICE_STATE_DIR) / "ready"


def noted() -> dict[str, str]:
    """Id -> the snapshot that it is a clone of, for each that is ready or being made."""
    found = {}
    with suppress(FileNotFoundError):  # none was ever made
        for path in sorted(_place().iterdir()):
            with suppress(FileNotFoundError):  # taken just now
                found[path.name] = path.read_text()
    return found


def _note(sandbox_id: str, origin: str) -> None:
    """On the disk before the clone is: else a loss of power left a clone that nobody knows."""
    place = _place()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / sandbox_id).open("w") as file:
        file.write(origin)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def taken(sandbox_id: str) -> None:
    """It is not ready any more: a launch has it, and has noted that. Held alone."""
    (_place() / sandbox_id).unlink(missing_ok=True)


# --- for launches --------------------------------------------------------------------------------


@contextmanager
def drawn(driver: DatasetDriver, generation: GenerationState) -> Iterator[tuple[str, Clone | None]]:
    """An id that no sandbox ever had, held alone; and its clone, if one was ready.

    The clone is as the pool has it now. Call :func:`taken` when a note says that it is launched.
    """
    made = _keeper.awaited(generation.origin)
    with ExitStack() as stack:
        for sandbox_id, origin in noted().items():
            if origin != generation.origin or not _alone(stack, sandbox_id):
                continue
            clone: Clone | None
            if made is not None and made.sandbox_id == sandbox_id:
                clone = made.clone  # seen since we asked
            else:
                clone = _seen(driver, sandbox_id, generation)
            if clone is not None:
                yield sandbox_id, clone
                return
            stack.close()
        sandbox_id = uuid.uuid4().hex[:12]
        stack.enter_context(intents.alone(sandbox_id))
        yield sandbox_id, None


def _alone(stack: ExitStack, sandbox_id: str) -> bool:
    """Whether it is ours now, and still ready: another launch may have had it, and ended."""
    try:
        stack.enter_context(intents.alone(sandbox_id, patience=0))
    except SandboxBusy:
        return False
    if (_place() / sandbox_id).exists():
        return True
    stack.close()
    return False


def _seen(driver: DatasetDriver, sandbox_id: str, generation: GenerationState) -> Clone | None:
    """It as it is on the pool now; None, and it is given up, if it cannot be launched."""
    try:
        clone = driver.cloned(common.relative(driver, generation.dataset), sandbox_name(sandbox_id))
    except CoppiceError as error:
        logger.warning("the ready clone %s cannot be used: %s", sandbox_id, error.detail)
        clone = None
    if clone is None:
        with _logged(sandbox_id):
            _give_up(driver, sandbox_id, generation.origin)
    return clone


def ask(driver: DatasetDriver, generation: GenerationState) -> None:
    """The next launch of this generation is to find a clone ready. Returns at once.

    None is made where a clone is a full copy, nor of what was made by hand: an import that replaces
    that has to move it, which the pool may refuse while it has clones.
    """
    cheap = driver.layers is not None
    if settings.COPPICE_READY_SECONDS and cheap and not generation.adopted:
        _keeper.ask(driver, generation)


# --- taking them away ----------------------------------------------------------------------------


def names(driver: DatasetDriver) -> set[str]:
    """Full names of what is ready: clones that keep nothing from being destroyed."""
    return {driver.full_name(sandbox_name(sandbox_id)) for sandbox_id in noted()}


def give_back(
    driver: DatasetDriver, sandbox_id: str, origin: str, *, dry_run: bool = False
) -> bool:
    """Remove one that waits; whether it was there. One that is being made, or launched, stays."""
    with ExitStack() as stack:
        if not _alone(stack, sandbox_id):
            return False
        # Of a launch that died early it is that one's; and after a loss of power the note may be
        # there again, of what was launched long since.
        store.settled()
        launched = Sandbox.objects.filter(pk=sandbox_id).exists()
        if not launched and sandbox_id not in intents.noted():
            return _give_up(driver, sandbox_id, origin, dry_run=dry_run)
        if not dry_run:
            taken(sandbox_id)
        return False


def clear(driver: DatasetDriver, choose: Callable[[str], bool]) -> None:
    """Give back those of snapshots that are chosen. What cannot be removed is left for recovery."""
    for sandbox_id, origin in noted().items():
        if choose(origin):
            with _logged(sandbox_id):
                give_back(driver, sandbox_id, origin)


@contextmanager
def _logged(sandbox_id: str) -> Iterator[None]:
    try:
        yield
    except (CoppiceError, OSError) as error:
        logger.warning("the ready clone %s stays: %s", sandbox_id, error)


def _give_up(driver: DatasetDriver, sandbox_id: str, origin: str, *, dry_run: bool = False) -> bool:
    """Remove it, and its note; whether it was there. What else has its name, stays. Held alone."""
    relative, there = sandbox_name(sandbox_id), False
    if origin:  # else its maker died while he wrote the note, so before he made it
        of = driver.dependents(common.relative(driver, origin))
        there = driver.full_name(relative) in of
    if not dry_run:
        if there:
            driver.destroy(relative)
        taken(sandbox_id)
    return there


# --- making them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """A clone that was made ready here."""

    driver: DatasetDriver
    sandbox_id: str
    origin: str
    clone: Clone
    until: float  # of time.monotonic()

    def expire(self) -> None:
        """Give it back, if it waits still."""
        with _logged(self.sandbox_id), ExitStack() as stack:
            if _alone(stack, self.sandbox_id):
                _give_up(self.driver, self.sandbox_id, self.origin)


def make(driver: DatasetDriver, generation: GenerationState) -> Made:
    """What the pool and the state directory raise; nothing is left then."""
    sandbox_id, origin = uuid.uuid4().hex[:12], generation.origin
    with intents.alone(sandbox_id):
        _note(sandbox_id, origin)
        try:
            relative = common.relative(driver, generation.dataset)
            clone = driver.clone(relative, sandbox_name(sandbox_id), drawn=True)
        except BaseException:
            with _logged(sandbox_id):
                _give_up(driver, sandbox_id, origin)
            raise
    until = time.monotonic() + settings.COPPICE_READY_SECONDS
    return Made(driver, sandbox_id, origin, clone, until)


class _Keeper:
    """Makes ready clones in a thread, and gives them back. It ends when there is none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # By origin; also the one that is being made.
        self._wanted: dict[str, tuple[DatasetDriver, GenerationState]] = {}
        self._awaited: set[str] = set()
        self._made: dict[str, Made] = {}  # by origin
        self._thread: threading.Thread | None = None

    def ask(self, driver: DatasetDriver, generation: GenerationState) -> None:
        with self._changed:
            self._wanted.setdefault(generation.origin, (driver, generation))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def awaited(self, origin: str) -> Made | None:
        """The one that is made while we wait for it; None if none is, or another launch waits."""
        with self._changed:
            if origin not in self._wanted or origin in self._awaited:
                return None
            self._awaited.add(origin)
            self._changed.wait_for(lambda: origin not in self._wanted, PATIENCE)
            self._awaited.discard(origin)
            return self._made.get(origin)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if self._wanted:
                    return partial(self._make, *next(iter(self._wanted.values())))
                if not self._made:
                    self._thread = None
                    return None
                first = min(self._made.values(), key=lambda one: one.until)
                left = first.until - time.monotonic()
                if left <= 0:
                    del self._made[first.origin]
                    return first.expire
                self._changed.wait(left)

    def _make(self, driver: DatasetDriver, generation: GenerationState) -> None:
        made, origin = None, generation.origin
        try:
            if origin not in noted().values():
                made = make(driver, generation)
        except (CoppiceError, OSError) as error:
            logger.warning("no clone of %s is made ready: %s", origin, error)
        finally:
            with self._changed:
                del self._wanted[origin]
                if made is not None:
                    self._made[origin] = made
                self._changed.notify_all()


_keeper = _Keeper()


def _after_fork() -> None:
    global _keeper  # noqa: PLW0603 - the thread is not there in the child
    _keeper = _Keeper()


os.register_at_fork(after_in_child=_after_fork)
