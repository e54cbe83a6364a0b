"""Proofs for who does not trust this server: that an event is in the log, that the log only grew.

A proof is over leaves that are made anew from the rows. One of inclusion is checked before it is
given: rows that do not lead to what was signed give LogInconsistent, never a proof that fails
elsewhere. Each reads the log once, up to the size that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from templates_app import store
from templates_app.errors import LogInconsistent, MalformedRequest, NotFound
from templates_app.services import ledger_files as files
from templates_app.trust import log
from templates_app.trust.checkpoints import Checkpoint, Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    first: int
    second: int
    first_root: bytes
    second_root: bytes
    hashes: tuple[bytes, ...]


def newest() -> tuple[Checkpoint, bytes]:
    """The newest checkpoint that is kept, and its note. NotFound where there is none yet."""
    kept = files.newest()
    if kept is None:
        raise NotFound(
            "No checkpoint of the log was signed yet.",
            hint="Run manage.py write_checkpoint on the server.",
        )
    checkpoint, path = kept
    return checkpoint, files.note(path)


def inclusion(*, position: int) -> Proof:
    """That the event is in the log that the newest checkpoint signed. NotFound, LogInconsistent."""
    checkpoint, note = newest()
    if not 1 <= position <= checkpoint.size:
        raise NotFound(f"The newest checkpoint is of the positions 1 to {checkpoint.size}.")
    index = position - 1
    ranges = log.inclusion_ranges(index, checkpoint.size)
    leaf, *hashes = _roots([(index, position), *ranges])
    try:
        log.check_inclusion(leaf, index, checkpoint.size, checkpoint.root, hashes)
    except log.ProofWrong:
        raise LogInconsistent(
            "The log is not the one that its newest checkpoint was signed for.",
            hint="Run manage.py verify_log on the server.",
        ) from None
    return Proof(index, tuple(hashes), note)


def consistency(*, first: int, second: int) -> Consistency:
    """That the log of ``second`` events begins with that of ``first``. MalformedRequest, NotFound.

    The roots are those of the rows now: who asks, compares them with the checkpoints that he has.
    """
    if first > second:
        raise MalformedRequest(f"first, {first}, is more than second, {second}.")
    if second > (size := store.size()):
        raise NotFound(f"The log has {size} events.")
    ranges = log.consistency_ranges(first, second)
    old, new, *hashes = _roots([(0, first), (0, second), *ranges])
    return Consistency(
        first=first, second=second, first_root=old, second_root=new, hashes=tuple(hashes)
    )


def entries(*, start: int, end: int) -> Iterator[str]:
    """The events from position ``start`` to ``end``, both with, as ``store.export`` writes them."""
    return islice(store.export(after=start - 1), max(end - start + 1, 0))


def _roots(ranges: Sequence[log.Range]) -> list[bytes]:
    """The root over each range of leaves, all in one reading. LogInconsistent."""
    size = max(last for _, last in ranges)
    wanted = {node for one in ranges for node in log.full_subtrees(one)}
    nodes = log.subtrees(leaf_hashes(size), wanted)
    return [log.range_root(one, nodes) for one in ranges]


def leaf_hashes(size: int, *, data: dict[int, bytes] | None = None) -> Iterator[bytes]:
    """The leaf hashes of the first ``size`` events, made anew from their rows. LogInconsistent.

    ``data`` has positions as its keys: it gets the leaf data of those.
    """
    expected = 1
    for position, leaf, _ in islice(store.leaves(after=0), size):
        if position != expected or leaf is None:
            break
        if data is not None and position in data:
            data[position] = bytes(leaf)
        yield log.leaf_hash(leaf)
        expected += 1
    if expected <= size:
        raise LogInconsistent(
            f"Position {expected} of the log is missing, or not complete.",
            hint="Run manage.py verify_log on the server.",
            extra={"position": expected},
        )
