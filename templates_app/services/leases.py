"""At most one import of a name at a time, over all processes and hosts that share the database.

Three things make a lease: a row (the unique name is what excludes others, and its columns are the
import's recorded progress), a lock on a file in the state directory, and a heartbeat. The kernel
drops the lock when the holder dies, however it dies, so whoever gets it knows that the holder is
dead. That is how a server judges the leases of its own state directory. Of all others it knows the
heartbeat alone: a time that the database's clock has set and that it is compared with, so that
clocks of hosts do not matter. Silence is no proof of death: a holder that wakes up again is fenced.
Whatever it wants to write about its import, it writes in a transaction that fails when the lease is
not its own any more (:meth:`Held.confirm`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Self

from django.conf import settings
from django.db import Error, IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from templates_app.errors import ImportInProgress, Interrupted
from templates_app.events import Meta
from templates_app.models import Lease
from templates_app.services.progress import Tally
from templates_app.sources.base import Progress

logger = logging.getLogger("coppice.leases")

#: Seconds between two writes of an import's progress.
THROTTLE = 0.5
#: So many heartbeats go into the time after which a silent lease may be taken over.
_BEATS = 4


class Death(Enum):
    """How the end of a lease's holder is known."""

    DIED = "died"  # its lock was free
    SILENT = "silent"  # only its heartbeat is known here, and that has lapsed


class Held:
    """A lease that this process holds."""

    def __init__(self, row: Lease, descriptor: int, path: Path) -> None:
        self.row = row
        self._descriptor = descriptor
        self._path = path
        self._written = time.monotonic()  # the row is new, and says where the import begins
        self._tally = Tally()
        self._stays = self._leftovers = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """The lease ends; where the database cannot be told, whoever comes next finds it dead."""
        self._over.set()
        gone = False
        try:
            if not self._stays:
                with _soon():
                    self._mine().delete()
                gone = True
        except Error as error:
            logger.warning("the lease of %s stays for recovery: %s", self.row.pk, error)
        finally:
            # The row first: a file without a row is looked at by recovery, a row without a file
            # would be nobody's.
            if gone and not self._leftovers:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)

    def leave(self) -> None:
        """Let the lease stay when this process is done with it: recovery is to look at it."""
        self._stays = True

    def leave_leftovers(self) -> None:
        """Something of the import could not be undone: its lock file stays, by which recovery will.

        The name is free all the same.
        """
        self._leftovers = True

    def confirm(self) -> None:
        """Interrupted if somebody has taken the lease over.

        Asked after an append, in its transaction, the answer holds until that has committed: who
        takes a lease away holds up all appends meanwhile.
        """
        if not self._mine().exists():
            raise _taken_over()

    def _mine(self) -> QuerySet[Lease]:
        return Lease.objects.filter(pk=self.row.pk, import_id=self.row.import_id)

    def _beat(self) -> None:
        """Also while nothing is reported: a large layer or a slow pool can take minutes."""
        while not self._over.wait(settings.COPPICE_LEASE_SECONDS / _BEATS):
            try:
                self._mine().update(heartbeat_at=Now())
            except Error as error:
                logger.warning("the heartbeat of %s is not recorded: %s", self.row.pk, error)
            finally:
                connection.close()  # it is this thread's own

    def report(self, progress: Progress) -> None:
        """Record how far the import is; what readers see is at most THROTTLE seconds old.

        Interrupted where somebody else has the lease: then the rest of the work is in vain.
        """
        tally = self._tally
        tally.take(progress)
        now = time.monotonic()
        if tally.stage == self.row.stage and now - self._written < THROTTLE:
            return
        self._written = now
        self.row.stage, self.row.updated_at = tally.stage, timezone.now()
        try:
            with _soon():
                told = self._mine().update(
                    stage=tally.stage,
                    done=tally.done,
                    total=tally.total,
                    unit=tally.unit,
                    layers=tally.layers(),
                    updated_at=self.row.updated_at,
                    heartbeat_at=Now(),
                )
        except Error as error:
            # A moment without the database must not cost an hour of import: the event needs it.
            logger.warning("progress of %s is not recorded: %s", self.row.pk, error)
            connection.close_if_unusable_or_obsolete()
        else:
            if not told:
                raise _taken_over()

    def place(self, *, generation: int, dataset: str) -> None:
        """Say where the import will write, before it does: recovery looks there. Interrupted."""
        self.row.generation, self.row.dataset = generation, dataset
        if not self._mine().update(generation=generation, dataset=dataset):
            raise _taken_over()


def lock_path(import_id: str) -> Path:
    return _place() / import_id


def _place() -> Path:
    return Path(settings.COPPICE_STATE_DIR) / "leases"


def new_import_id() -> str:
    """Eight hex digits: part of dataset names, so it is short; the row keeps it unique."""
    return uuid.uuid4().hex[:8]


def acquire(*, name: str, reference: str, context: Meta) -> Held:
    """Take the lease of ``name``. ImportInProgress where somebody holds it."""
    import_id = new_import_id()
    path = lock_path(import_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The lock comes before the row: a row without a lock would look like a dead holder's.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    now = timezone.now()
    row = Lease(
        template_name=name,
        import_id=import_id,
        node=context.node,
        reference=reference[:600],
        generation=0,
        dataset="",
        actor=context.actor,
        started_at=now,
        stage="resolve",
        updated_at=now,
    )
    try:
        # No need to wait: place() does, before anything is made.
        with _soon(), transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        _unlock(descriptor, path)
        raise _in_progress(name) from None
    except BaseException:
        _unlock(descriptor, path)
        raise
    return Held(row, descriptor, path)


@contextmanager
def dead(row: Lease) -> Iterator[Death | None]:
    """Whether the lease's holder is dead; while ``DIED``, nobody else can judge the same lease."""
    if row.node == settings.COPPICE_NODE and lock_path(row.import_id).exists():
        with claimed(row.import_id) as free:
            # Somebody may have ended it between our reading the row and getting the lock.
            there = free and Lease.objects.filter(import_id=row.import_id).exists()
            yield Death.DIED if there else None
    else:  # another host's, or another state directory's
        yield Death.SILENT if _silent(row).exists() else None


@contextmanager
def claimed(import_id: str) -> Iterator[bool]:
    """Whether no living process holds the lock of an import of this state directory.

    While true, nobody else can come to the same conclusion.
    """
    try:
        descriptor = os.open(lock_path(import_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def take_away(row: Lease, death: Death) -> bool:
    """End the lease of a dead holder. False where it is gone, or its heart beats after all.

    In a transaction that holds up appends (``store.lock``), so that a holder that comes back later
    finds it gone before it can write.
    """
    ours = Lease.objects.filter(pk=row.pk, import_id=row.import_id)
    return bool((ours if death is Death.DIED else _silent(row)).delete()[0])


def _silent(row: Lease) -> QuerySet[Lease]:
    lapse = timedelta(seconds=settings.COPPICE_LEASE_SECONDS)
    return Lease.objects.filter(pk=row.pk, import_id=row.import_id, heartbeat_at__lt=Now() - lapse)


def without_a_lease() -> list[str]:
    """Ids of imports of this state directory that have a lock file and, by now, no lease.

    One that is about to get its lease is among them: its lock is held.
    """
    place = _place()
    names = {path.name for path in place.iterdir()} if place.is_dir() else set()
    return sorted(names - set(Lease.objects.values_list("import_id", flat=True)))


def forget(import_id: str) -> None:
    """Remove the lock file of an import of which nothing is left. While it is claimed."""
    lock_path(import_id).unlink(missing_ok=True)


def _taken_over() -> Interrupted:
    return Interrupted(
        "Another server has taken the import's name over, for nothing was heard of this one."
    )


@contextmanager
def _soon() -> Iterator[None]:
    """What the block writes is on the disk with the next durable commit, or some moments later.

    A power failure may undo it, with everything that was committed after it: for what recovery
    makes up for, as it ends the lease of a dead holder. Within a transaction of the caller's, that
    one's rules hold.
    """
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic():
            _execute("SET LOCAL synchronous_commit TO off")
            yield
    else:
        _execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            _execute("PRAGMA synchronous=FULL")  # as in the settings: the log's rule


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _in_progress(name: str) -> ImportInProgress:
    row = Lease.objects.filter(pk=name).first()
    if row is None:
        return ImportInProgress(f"An import of {name} was running; it has just ended.")
    return ImportInProgress(
        f"An import of {name} is running since {row.started_at:%H:%M:%S} UTC ({row.stage}).",
        extra={
            "importId": row.import_id,
            "startedAt": row.started_at.isoformat(),
            "stage": row.stage,
            "actor": row.actor,
        },
    )


def _unlock(descriptor: int, path: Path) -> None:
    # Unlink while the lock is held, so that nobody can lock a file that is about to go.
    path.unlink(missing_ok=True)
    os.close(descriptor)
