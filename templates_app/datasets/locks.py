"""Locks between threads and processes of one host: flock(2) on a file.

A lock dies with its holder, so nothing has to be cleaned up after a kill, and whether a temporary
thing still belongs to somebody alive is the question whether its lock can be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from templates_app.errors import PoolBusy, PoolUnavailable

#: Between two tries, in seconds. flock(2) has no timeout of its own.
STEP = 0.05
#: How long drivers wait for a name that somebody else works on, in seconds.
PATIENCE = 5.0


class Taken(Exception):
    """Somebody else holds the lock; callers turn this into an error that says what is in use."""


def lock_file(directory: Path, name: str) -> Path:
    """The lock file of ``name``, whatever characters it has."""
    return directory / quote(name, safe="")


def tidy(directory: Path, pattern: str = "*") -> None:
    """Remove the lock files of ``directory`` that nobody holds: the dead leave theirs behind.

    So do those who shared one with others.
    """
    for path in sorted(directory.glob(pattern)):
        with contextlib.suppress(Taken, OSError), held(path):
            pass  # it is removed on the way out


class Locks:
    """Locks of the datasets below ``root``, by their relative names."""

    def __init__(self, directory: Path, root: str) -> None:
        self._directory = directory
        self._root = root

    def file(self, relative: str) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock_file(self._directory, f"{self._root}/{relative}")

    def tidy(self) -> None:
        tidy(self._directory)

    @contextlib.contextmanager
    def held(self, relative: str, *, patience: float = 0.0) -> Iterator[None]:
        """Hold the lock of a name; PoolBusy after ``patience`` seconds, PoolUnavailable."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(self.file(relative), patience=patience))
            except Taken:
                raise PoolBusy(f"Somebody else works on {self._root}/{relative}.") from None
            except OSError as failed:
                raise PoolUnavailable(
                    "No lock can be made in the state directory.", private=str(failed)
                ) from failed
            yield


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``, made where it is not there; Taken after ``patience`` seconds.

    An exclusive holder removes the file on its way out, so lock files do not pile up. OSError
    where the file cannot be made.
    """
    until = time.monotonic() + patience
    descriptor = _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, until)
    try:
        yield
    finally:
        if not shared:
            path.unlink(missing_ok=True)
        # Said aloud, for a child that was forked meanwhile has a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _take(path: Path, how: int, until: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            # The one who held it before may have removed the file between our two calls.
            if _is_still(descriptor, path):
                return descriptor
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= until:
                raise Taken from None
            time.sleep(STEP)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
