"""The zfs(8) program: how it is called, and what its complaints mean.

Only what pool version 23 (zfs-fuse) and OpenZFS 2.x have in common. Messages are read in the C
locale and without the names that they quote: a template may be called ``read-only``.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    OutOfSpace,
    PoolBusy,
    PoolUnavailable,
    ProgramFailed,
    StorageReadOnly,
)
from templates_app.run import Result, run

logger = logging.getLogger("coppice.datasets")

#: How long "dataset is busy" is waited out, in seconds, and the step between two tries. Unmounts
#: of FUSE are lazy: the daemon learns of the last one a moment after umount(8) has returned.
PATIENCE, STEP = 5.0, 0.05
#: The most that a call may take which moves no data, in seconds: a pool whose disks are gone hangs.
QUICK = 60.0
#: Where zfs-fuse has its socket. No other ZFS has this.
ZFS_FUSE = Path("/var/run/zfs")
_BESIDE_STEP = 0.002
_MOUNTING_STEP = 0.003  # seconds between two looks whether it is our turn
#: Verbs that mount, at least on pool version 23, unless canmount is off.
_MOUNTS = {"clone", "create", "inherit", "mount", "rename", "rollback"}


class Kind(Enum):
    """What came of a call."""

    DONE = "done"
    ABSENT = "absent"
    EXISTS = "exists"
    MOUNTED = "mounted already"
    UNMOUNTED = "unmounted already"
    OCCUPIED = "made, but not mounted"  # files lie where it would be mounted
    NO_PLACE = "made, but its mount point cannot be"
    BUSY = "busy"
    CLONES = "has clones"
    CHILDREN = "has children"
    SPACE = "out of space"
    READ_ONLY = "read-only"
    PROPERTY = "no such property, or not that value of it"
    UNAVAILABLE = "no pool"
    OTHER = "other"


# Compared with the end of each line of a complaint, after its last ": ". The first match counts.
_COMPLAINTS: tuple[tuple[Kind, str], ...] = (
    (
        Kind.UNAVAILABLE,
        r"failed to initialize zfs library|zfs modules (?:are not|cannot be) .*"
        r"|.*zfs-fuse daemon .*|.*/dev/zfs .*|permission denied.*|pool i/o is currently suspended"
        r"|pool is suspended.*|.*be run as root.*|i/o error|no such pool.*|pool is unavailable.*",
    ),
    (Kind.CLONES, r".*has dependent clones"),
    (Kind.CHILDREN, r".*has children"),
    (Kind.OCCUPIED, r"directory is not empty|filesystem successfully created, but .*"),
    (Kind.NO_PLACE, r"failed to create mountpoint"),
    (Kind.MOUNTED, r"filesystem already mounted"),
    (Kind.UNMOUNTED, r"not currently mounted"),
    (Kind.EXISTS, r"dataset already exists"),
    (
        Kind.PROPERTY,
        r"invalid property ''|'' must be one of ''|pool must be upgraded to set this property.*",
    ),
    (
        Kind.SPACE,
        r"out of space.*|no space left on device.*|.*quota exceeded.*|.*exceeds .*available.*",
    ),
    (Kind.READ_ONLY, r"read-only file system|.*pool is read-?only.*|filesystem is read-?only"),
    (
        Kind.BUSY,
        r"(?:pool or )?dataset is busy|target is busy|device busy|resource busy"
        r"|device or resource busy|.*umount child process failed|umount failed|unmount failed",
    ),
    (
        Kind.ABSENT,
        r"dataset does not exist|parent does not exist|snapshot does not exist"
        r"|could not find any snapshots to destroy.*",
    ),
)
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _COMPLAINTS)


def kind_of(stderr: str) -> Kind:
    """What a complaint of zfs(8) says, by its fixed words alone."""
    # After "use '-R' to destroy the following datasets:" comes a list of names.
    told = re.split(r"(?m)^use '-", stderr)[0]
    words = re.sub(r"'[^'\n]*'", "''", told).lower()
    lines = [line.rpartition(": ")[2].strip().rstrip(".") for line in words.splitlines()]
    for kind, pattern in _PATTERNS:
        if any(pattern.fullmatch(line) for line in lines):
            return kind
    return Kind.OTHER


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: Kind
    stdout: str
    stderr: str

    @property
    def done(self) -> bool:
        return self.kind is Kind.DONE

    def rows(self) -> list[list[str]]:
        """The lines of ``-H`` output, cut at tabs."""
        return [line.split("\t") for line in self.stdout.splitlines() if line]


def zfs(
    *words: str,
    expect: Collection[Kind] = (),
    patience: float | None = None,
    seconds: float = QUICK,
    beside: Callable[[], None] | None = None,
) -> Outcome:
    """Run ``zfs WORD…``; the outcome is done or of an expected kind, all others are raised.

    "Busy" is waited out for ``patience`` (PATIENCE) seconds first. ``seconds`` limits each try.
    ``beside`` is called every two milliseconds while the program runs.
    PoolUnavailable, PoolBusy, OutOfSpace, StorageReadOnly, ProgramMissing, ProgramFailed.
    """
    patience = PATIENCE if patience is None else patience
    until = time.monotonic() + patience
    tries = 0
    while True:
        tries += 1
        try:
            result = _run(words, seconds, beside)
        except ImportTimeout as slow:
            raise PoolUnavailable(
                f"The pool did not answer within {seconds:g} seconds.", private=slow.private
            ) from None
        if result.status == 0:
            return Outcome(Kind.DONE, result.stdout, result.stderr)
        outcome = Outcome(kind_of(result.stderr), result.stdout, result.stderr)
        # zfs-fuse calls it an I/O error where the unmount before a rollback is not over yet.
        fleeting = {Kind.BUSY, Kind.UNAVAILABLE} if words[0] == "rollback" else {Kind.BUSY}
        if outcome.kind in fleeting and time.monotonic() < until:
            time.sleep(STEP)
            continue
        if outcome.kind in expect:
            return outcome
        logger.warning("zfs %s: %s", " ".join(words), result.stderr.strip())
        raise error(outcome, words[0], f"{tries} tries in {patience:g} seconds")


def _run(words: Sequence[str], seconds: float, beside: Callable[[], None] | None) -> Result:
    with contextlib.ExitStack() as stack:
        held: tuple[int, ...] = ()
        if words[0] in _MOUNTS and "canmount=off" not in words:
            held = stack.enter_context(mounting(seconds))
        return run(
            ["zfs", *words],
            timeout=seconds,
            check=False,
            log_failure=False,
            descriptors=held,
            on_tick=beside,
            tick=_BESIDE_STEP,
        )


@contextlib.contextmanager
def mounting(seconds: float) -> Iterator[tuple[int, ...]]:
    """With zfs-fuse nobody else on this host mounts a file system meanwhile. ImportTimeout.

    Its threads tell each other of a new mount in two writes to one pipe. Of two mounts at once they
    read a mixture: a length of hundreds of megabytes, for which one waits with the lock of all file
    systems, for ever. The descriptors are for the program: the lock is held until it has ended too,
    should it outlive us.
    """
    try:
        (ZFS_FUSE / "zfs_socket").lstat()
        descriptor = os.open(ZFS_FUSE, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it is another ZFS, or not for us: zfs(8) says so
        yield ()
        return
    until = time.monotonic() + seconds
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > until:
                raise ImportTimeout(f"Somebody else has mounted for {seconds:g} seconds.")
            time.sleep(_MOUNTING_STEP)
        yield (descriptor,)
    finally:
        # Said aloud, for a child that was forked meanwhile has a copy of the descriptor.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def error(outcome: Outcome, verb: str, tried: str = "") -> CoppiceError:
    """The public error for an outcome that nobody expected."""
    private = outcome.stderr
    match outcome.kind:
        case Kind.BUSY:
            return PoolBusy(
                f"The pool kept answering 'dataset is busy' to zfs {verb} ({tried}).",
                hint="Something still uses the files: end it (fuser -m shows it), then try again.",
                private=private,
            )
        case Kind.SPACE:
            return OutOfSpace("The pool has no space left, or a quota is used up.", private=private)
        case Kind.READ_ONLY:
            return StorageReadOnly("The pool or the dataset is read-only.", private=private)
        case Kind.UNAVAILABLE:
            return PoolUnavailable("ZFS does not answer, or not to this user.", private=private)
        case Kind.ABSENT:
            return PoolUnavailable(f"zfs {verb} found no such dataset or pool.", private=private)
    return ProgramFailed(f"zfs {verb} failed ({outcome.kind.value}).", private=private)
