"""The thread that makes clones ready after launches, and gives back what nobody asks for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import connection

from templates_app.datasets.base import DatasetDriver
from templates_app.lifecycle import GenerationState
from templates_app.services import ready

logger = logging.getLogger("coppice.ready")

#: The longest that a launch waits for a clone that is being made, in seconds.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class _Made:
    driver: DatasetDriver
    ready: ready.Ready
    until: float  # of time.monotonic()


class Keeper:
    """One of a process. Its thread ends when nothing is wanted, and nothing waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted: dict[str, tuple[DatasetDriver, GenerationState]] = {}  # by origin
        self._making: str | None = None
        self._awaited = False  # by a launch: the next one does not wait
        self._made: dict[str, _Made] = {}  # by origin
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, driver: DatasetDriver, generation: GenerationState) -> None:
        """The next launch of this generation is to find a clone ready. Returns at once; no error.

        None is made where a clone is a full copy, nor of what was made by hand: an import that
        replaces that has to move it, which the pool may refuse while it has clones.
        """
        cheap = driver.layers is not None
        if not settings.COPPICE_READY_SECONDS or not cheap or generation.adopted:
            return
        with self._changed:
            if self._closed:
                return
            self._wanted.setdefault(generation.origin, (driver, generation))
            if self._thread is None:
                thread = threading.Thread(target=self._work, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads: the launch goes on without
                    del self._wanted[generation.origin]
                    logger.warning("no clone is made ready: %s", error)
                    return
                self._thread = thread
            self._changed.notify_all()

    def awaited(self, origin: str) -> ready.Ready | None:
        """The one of ``origin`` that is being made, when it is; None if another launch waits."""
        with self._changed:
            if self._making != origin or self._awaited:
                return None
            before, self._awaited = self._made.get(origin), True
            self._changed.wait_for(lambda: self._making != origin, PATIENCE)
            made, self._awaited = self._made.get(origin), False
            return made.ready if made is not None and made is not before else None

    def close(self, seconds: float = 5.0) -> None:
        """At the end of the process: nothing more is made, what is being made is waited for, and
        what waits is given back; for so many seconds. Recovery does the rest."""
        until = time.monotonic() + seconds
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._changed.wait_for(lambda: self._making is None, seconds)
            made = list(self._made.values())
            self._made.clear()
            self._changed.notify_all()
        for one in made:
            if time.monotonic() < until:
                ready.expire(one.driver, one.ready.note)

    def _work(self) -> None:
        try:
            while (task := self._next()) is not None:
                try:
                    task()
                except Exception as error:  # noqa: BLE001 - told; else none were made ever after
                    logger.warning("no clone is made ready: %s", error, exc_info=error)
        finally:
            connection.close()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if self._wanted:
                    self._making = next(iter(self._wanted))
                    return partial(self._make, *self._wanted.pop(self._making))
                if not self._made:
                    self._thread = None
                    return None
                origin, first = min(self._made.items(), key=lambda one: one[1].until)
                left = first.until - time.monotonic()
                if left <= 0:
                    del self._made[origin]
                    return partial(self._expire, first)
                self._changed.wait(left)

    def _make(self, driver: DatasetDriver, generation: GenerationState) -> None:
        made, origin = None, generation.origin
        try:
            connection.close_if_unusable_or_obsolete()
            if not ready.is_one_of(origin):
                made = ready.make(driver, generation)
        finally:
            with self._changed:
                self._making = None
                if made is not None:
                    until = time.monotonic() + settings.COPPICE_READY_SECONDS
                    self._made[origin] = _Made(driver, made, until)
                self._changed.notify_all()

    def _expire(self, made: _Made) -> None:
        connection.close_if_unusable_or_obsolete()
        ready.expire(made.driver, made.ready.note)


#: This process's.
keeper = Keeper()


def _after_fork() -> None:
    """The thread is not there in the child, and nor is what it waited for its own."""
    global keeper  # noqa: PLW0603
    keeper = Keeper()


os.register_at_fork(after_in_child=_after_fork)
