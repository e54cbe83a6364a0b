"""At most one import of a name at a time, over all processes that share the database.

Two things make a lease: a row (the unique name is what excludes others, and its columns are the
import's recorded progress) and a lock on a file in the state directory. The kernel drops the lock
when the holder dies, however it dies, so whoever gets it on the same node knows that the holder is
dead. A lease of another node is never judged from here.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from django.conf import settings
from django.db import Error, IntegrityError, connection, transaction
from django.utils import timezone

from templates_app.errors import ImportInProgress
from templates_app.events import Meta
from templates_app.models import Lease
from templates_app.services.progress import Tally
from templates_app.sources.base import Progress

logger = logging.getLogger("coppice.leases")

#: Seconds between two writes of an import's progress.
THROTTLE = 0.5


class Held:
    """A lease that this process holds."""

    def __init__(self, row: Lease, descriptor: int, path: Path) -> None:
        self.row = row
        self._descriptor = descriptor
        self._path = path
        self._written = time.monotonic()  # the row is new, and says where the import begins
        self._tally = Tally()
        self._stays = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The lease ends; where the database cannot be told, whoever comes next finds it dead."""
        try:
            if not self._stays:
                Lease.objects.filter(pk=self.row.pk, import_id=self.row.import_id).delete()
        except Error as error:
            logger.warning("the lease of %s stays for recovery: %s", self.row.pk, error)
        finally:
            _unlock(self._descriptor, self._path)

    def leave(self) -> None:
        """Let the row stay when this process is done with it: recovery is to look at it."""
        self._stays = True

    def report(self, progress: Progress) -> None:
        """Record how far the import is; what readers see is at most THROTTLE seconds old."""
        tally = self._tally
        tally.take(progress)
        now = time.monotonic()
        if tally.stage == self.row.stage and now - self._written < THROTTLE:
            return
        self._written = now
        self.row.stage, self.row.updated_at = tally.stage, timezone.now()
        try:
            Lease.objects.filter(pk=self.row.pk, import_id=self.row.import_id).update(
                stage=tally.stage,
                done=tally.done,
                total=tally.total,
                unit=tally.unit,
                layers=tally.layers(),
                updated_at=self.row.updated_at,
            )
        except Error as error:
            # A moment without the database must not cost an hour of import: the event needs it.
            logger.warning("progress of %s is not recorded: %s", self.row.pk, error)
            connection.close_if_unusable_or_obsolete()

    def place(self, *, generation: int, dataset: str) -> None:
        """Say where the import will write, before it does: recovery looks there."""
        self.row.generation, self.row.dataset = generation, dataset
        Lease.objects.filter(pk=self.row.pk).update(generation=generation, dataset=dataset)


def lock_path(import_id: str) -> Path:
    return Path(settings.COPPICE_STATE_DIR) / "leases" / import_id


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
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        _unlock(descriptor, path)
        raise _in_progress(name) from None
    except BaseException:
        _unlock(descriptor, path)
        raise
    return Held(row, descriptor, path)


@contextmanager
def dead(row: Lease) -> Iterator[bool]:
    """Whether the lease's holder is dead; while true, nobody else can judge the same lease."""
    if row.node != settings.COPPICE_NODE:
        yield False
        return
    path = lock_path(row.import_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        # Somebody may have ended it between our reading the row and getting the lock.
        yield Lease.objects.filter(import_id=row.import_id).exists()
    finally:
        _unlock(descriptor, path)


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
