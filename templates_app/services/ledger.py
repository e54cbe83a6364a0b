"""The log as an auditor needs it: checkpoints signed, kept, and held against what the rows say now.

What a checkpoint signs is the tree that the one before it signed, grown by what was appended since:
so this server never signs two histories, whatever became of the rows. Whether the rows are still
those, ``verify`` says, which makes every leaf anew.
"""

from __future__ import annotations

import datetime
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from templates_app import store
from templates_app.datasets import locks
from templates_app.errors import CoppiceError, LogInconsistent
from templates_app.services import ledger_files as files
from templates_app.trust.checkpoints import Checkpoint
from templates_app.trust.log import Frontier, leaf_hash

logger = logging.getLogger("coppice.ledger")

_PATIENCE = 60.0  # seconds: another process may read a long log for its first checkpoint
_TELL_EVERY = 100_000  # events
#: The timer signs every hour (deploy/systemd/coppice-checkpoint.timer).
LATE = datetime.timedelta(hours=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    size: int  # events
    root: bytes
    checkpoints: int  # that hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far this server has signed the log."""

    size: int  # events under the newest checkpoint
    signed_at: datetime.datetime
    behind: int  # events since

    @property
    def age(self) -> datetime.timedelta:
        return timezone.now() - self.signed_at

    @property
    def late(self) -> bool:
        """Whether events wait for a signature longer than a timer would let them."""
        return self.behind > 0 and self.age > LATE


def standing(*, events: int) -> Standing | None:
    """Of a log of so many ``events``; None where no checkpoint was signed yet. Unavailable.

    Its signature is not looked at.
    """
    kept = files.newest_written()
    if kept is None:
        return None
    size, at = kept
    return Standing(size=size, signed_at=at, behind=max(events - size, 0))


def verify(*, progress: Callable[[int], None] = lambda _: None) -> Verified:
    """Make every leaf anew from its row, and hold the tree against all kept.

    ``progress`` is told how many events were read, now and then. Raises LogInconsistent, which
    names the first position that is not as it was recorded, or the checkpoint that does not hold
    and the positions among which that is; Unavailable.
    """
    least = store.mentioned()
    tree, kept = Frontier(), files.kept()
    _, held = _grow(tree, kept, progress=progress)
    if tree.size < least:
        raise _bad(
            tree.size + 1,
            f"The log ends at position {tree.size}; its index of mentions knows {least}.",
        )
    return Verified(size=tree.size, root=tree.root(), checkpoints=held)


def write_checkpoint() -> Checkpoint:
    """Sign the log as it is now, and keep that; the newest one kept where nothing came since.

    Raises LogInconsistent, and signs nothing, where the log is not a continuation of the newest
    checkpoint that is kept; KeyMalformed, PassphraseWrong for the key; Unavailable.
    """
    try:
        with files.locked(patience=_PATIENCE):
            key = files.secret_key()
            tree, last = _continued()
            checkpoint = Checkpoint(f"coppice/{settings.COPPICE_NODE}", tree.size, tree.root())
            # Also one that is known: a directory may be new, or have been away.
            files.keep(checkpoint, key)
            files.keep_frontier(tree, last)
            return checkpoint
    except locks.Taken:
        raise CoppiceError("Another process writes a checkpoint of the log.") from None


def checkpoint_after(what: str) -> None:
    """As ``write_checkpoint``, after something that stands whether this can be done or not."""
    try:
        write_checkpoint()
    except CoppiceError as error:
        logger.error("No checkpoint of the log after %s: %s", what, error.detail)


def _continued() -> tuple[Frontier, str]:
    """The tree of the newest checkpoint, grown by the rows since; its last leaf hash, in hex."""
    newest = files.newest()
    known = files.frontier(newest[0]) if newest else None
    if known is None:
        tree = Frontier()
        last, _ = _grow(tree, files.kept())
        return tree, last
    tree, last = known
    if tree.size:
        # A log that was restored from before, and went on otherwise, has another event there.
        rows = store.leaves(after=tree.size - 1)
        position, data, _ = next(rows, (0, None, ""))
        if position != tree.size:
            raise _bad(tree.size, f"The log has no position {tree.size}, as its checkpoint has.")
        if data is None or leaf_hash(data).hex() != last:
            raise _bad(tree.size, f"Position {tree.size} is another event than its checkpoint has.")
    later, _ = _grow(tree, [])
    return tree, later or last


def _grow(
    tree: Frontier,
    kept: list[tuple[Checkpoint, Path]],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[str, int]:
    """Append what the rows say, and hold it against the checkpoints, the smallest first.

    (the last leaf hash, in hex; how many checkpoints hold).
    """
    waiting, held, good, last = list(reversed(kept)), 0, tree.size, ""
    due = waiting[-1][0].size if waiting else -1
    for position, data, recorded in store.leaves(after=tree.size or None):
        if due == tree.size:
            # Of one size there is one in each directory, and who signed anew reached not all.
            while waiting and waiting[-1][0].size == due:
                _hold(tree, waiting.pop(), good)
                held += 1
            good, due = due, waiting[-1][0].size if waiting else -1
        if position != tree.size + 1:
            raise _bad(
                min(position, tree.size + 1),
                f"Position {position} stands where position {tree.size + 1} belongs.",
            )
        if data is None:
            raise _bad(position, f"The event at position {position} is not complete.")
        leaf = leaf_hash(data)
        last = leaf.hex()
        if last != recorded:
            raise _bad(
                position,
                f"The event at position {position} is not the one that was recorded: its content"
                f" has the leaf hash {last}, and the row says {recorded}.",
            )
        tree.append(leaf)
        if position % _TELL_EVERY == 0:
            progress(position)
    while waiting:
        _hold(tree, waiting.pop(), good)
        held += 1
    progress(tree.size)
    return last, held


def _hold(tree: Frontier, one: tuple[Checkpoint, Path], good: int) -> None:
    checkpoint, path = one
    extra: dict[str, object] = {"checkpoint": path.name}
    if checkpoint.size > tree.size:
        raise LogInconsistent(
            f"The log ends at position {tree.size}, and had {checkpoint.size} events when"
            f" {path.name} was signed.",
            extra={**extra, "position": tree.size + 1},
        )
    if not hmac.compare_digest(checkpoint.root, tree.root()):
        raise LogInconsistent(
            f"The log is not the one that {path.name} was signed for: an event of the positions"
            f" {good + 1} to {checkpoint.size} was changed, and its leaf hash with it.",
            extra={**extra, "first": good + 1, "last": checkpoint.size},
        )


def _bad(position: int, what: str) -> LogInconsistent:
    return LogInconsistent(what, extra={"position": position})
