"""The import: an ordered list of stages with an undo stack. Knows no database and no settings.

Every stage that makes something pushes its inverse at once; whatever ends the run before ``commit``
has returned (an error, a timeout that arrives as SystemExit, a lost database) runs the inverses in
reverse. ``commit`` appends the event: the one point after which the generation exists.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from templates_app import layered
from templates_app.datasets.base import DatasetDriver, Snapshot, alias_name, generation_name
from templates_app.datasets.layers import State
from templates_app.errors import (
    AdoptedInTheWay,
    PlatformIncompatible,
    PoolBusy,
    PullFailed,
    TemplateInUse,
    TemplateMissing,
    TreeRefused,
)
from templates_app.events import Deviation, Verdict
from templates_app.job import STAGES, Job, Rules
from templates_app.sources.base import Progress, Receipt, Resolved, States
from templates_app.sources.plant import described, plant_resolv_conf
from templates_app.sources.plant import text as planted_text
from templates_app.sources.verdict import judge, too_new
from templates_app.trust import statement, tree
from templates_app.trust.amend import amend

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["STAGES", "Job", "Made", "Rules", "run"]

T = TypeVar("T")

#: How often an import begins anew when somebody removes the state that it has found.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A sealed generation, not yet in the log."""

    resolved: Resolved
    receipt: Receipt
    dataset: str  # full name
    snapshot: Snapshot
    entries: int
    tree_digest: str
    statement: bytes
    statement_digest: str
    deviations: tuple[Deviation, ...]
    verdict: Verdict
    findings: tuple[str, ...]
    milliseconds: dict[str, int]
    moved_aside: str | None


def run(job: Job, commit: Callable[[Made], T], committed: Callable[[], T | None]) -> T:
    """Make the generation, then ``commit`` it; undo everything on any exit before that.

    ``commit`` may fail after it took effect (a connection that breaks while the database commits,
    a timeout that arrives just then). So ``committed`` is asked what is in the log: its result is
    the run's; None means that nothing is; if it cannot be asked either, nothing is undone, for the
    generation may be the current one, and the job is ``undecided``: recovery finds out.
    """
    try:
        made = _make(job)
    except BaseException:
        # BaseException: the queue's timeout and an interrupt come as SystemExit, KeyboardInterrupt.
        job.unwind()
        raise
    try:
        result = commit(made)
    except BaseException as error:
        try:
            found = committed()
        except BaseException:  # noqa: BLE001 - the first error goes on; this one only says "unknown"
            job.undecided = True
            raise error from None
        if found is None:
            job.unwind()
            raise
        job.done = True
        if not isinstance(error, Exception):
            raise
        return found
    job.done = True
    return result


def _make(job: Job) -> Made:
    alias = alias_name(job.name.text)
    with ThreadPoolExecutor(3) as meanwhile:
        # To ask the pool takes as long as to ask a registry that is near.
        ready = meanwhile.submit(job.driver.check)
        strange = meanwhile.submit(job.driver.stranger, alias)
        states = meanwhile.submit(job.kept.store.states) if job.kept is not None else None
        with job.timed("resolve"):
            resolved = job.resolved = job.source.resolve()
            ready.result()
    moved_aside = None
    if strange.result():
        with job.timed("create"):
            moved_aside = _early_way(job)
    with ThreadPoolExecutor(1) as beside:  # each waits for the disk
        archived = [beside.submit(job.archive.documents.put, one) for one in resolved.documents]
        filled = _fill(job, resolved, states.result() if states else [])
        for one in archived:
            one.result()
    with job.timed("seal"):
        moved_aside = moved_aside or _make_way(job)
    job.enter("record")
    text = statement.build(
        template=job.name.text,
        tree_digest=filled.tree_digest,
        canonical_reference=f"{job.source.scheme}:{resolved.canonical}",
        platform=str(resolved.platform),
        digests=resolved.digests,
        exclusions=filled.receipt.left_out,
        deviations=filled.deviations,
    )
    return Made(
        resolved=resolved,
        receipt=filled.receipt,
        dataset=job.driver.full_name(job.relative),
        snapshot=filled.snapshot,
        entries=filled.entries,
        tree_digest=filled.tree_digest,
        statement=text,
        statement_digest=statement.digest(text),
        deviations=filled.deviations,
        verdict=filled.verdict,
        findings=(
            *filled.receipt.findings,
            *too_new(resolved),
            *_verdict_findings(filled.verdict),
        ),
        milliseconds=job.milliseconds,
        moved_aside=moved_aside,
    )


def _fill(job: Job, resolved: Resolved, states: list[State]) -> _Filled:
    before = len(job._undo)
    try:
        return _fill_once(job, resolved, states)
    except PullFailed as error:
        if not error.again:
            raise
    job.unwind(to=before)  # nothing of what was made of the wrong bytes is used
    return _fill_once(job, resolved, job.kept.store.states() if job.kept else [])


def _fill_once(job: Job, resolved: Resolved, states: list[State]) -> _Filled:
    if job.kept is not None and resolved.chain_ids:
        return _by_layers(job, resolved, job.kept, states)
    return _in_place(job, resolved)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A generation's dataset, sealed, and what is in it."""

    snapshot: Snapshot
    receipt: Receipt
    entries: int
    tree_digest: str
    deviations: tuple[Deviation, ...]
    verdict: Verdict


def _in_place(job: Job, resolved: Resolved) -> _Filled:
    """Fill the generation's own dataset."""
    with job.timed("create"):
        job.room(resolved, sum(layer.size for layer in resolved.layers))
        job.undo_with(f"dataset {job.relative}", lambda: job.driver.destroy(job.relative))
        dataset = job.driver.create(job.relative)
    with job.driver.writing(job.relative):
        job.enter("pull")
        receipt = job.source.fetch(resolved, dataset.path, job.staged, job.import_id)
        job.milliseconds.update(receipt.milliseconds)
        finished = _finish(job, resolved, dataset.path, receipt)
    with job.timed("seal"), ThreadPoolExecutor(1) as beside:  # both wait for the disk
        archived = beside.submit(job.archive.manifests.put, finished.manifest)
        snapshot = job.driver.seal(job.relative)
        archived.result()
    return _Filled(
        snapshot=snapshot,
        receipt=receipt,
        entries=finished.entries,
        tree_digest=finished.tree_digest,
        deviations=(*receipt.deviations, *finished.planted),
        verdict=finished.verdict,
    )


def _by_layers(job: Job, resolved: Resolved, kept: layered.Kept, states: list[State]) -> _Filled:
    """Clone the generation from the state of its tree; make that first, as far as it is missing."""

    def fetch(into: Path, states: States) -> Receipt:
        job.enter("pull")
        job.made_states = True
        receipt = job.source.fetch(resolved, into, job.staged, job.import_id, states)
        job.milliseconds.update(receipt.milliseconds)
        return receipt

    def make_room(transferred: int) -> None:
        made_room(transferred)
        job.room(resolved, transferred)

    made_room = kept.make_room
    kept = replace(kept, make_room=make_room)
    nameserver = job.rules.nameserver
    planting = planted_text(nameserver).decode("ascii") if nameserver else ""
    key = layered.whole_key(resolved.chain_ids[-1], str(resolved.platform), planting)
    for attempt in range(_ATTEMPTS):
        try:
            whole = layered.whole(
                kept,
                resolved.chain_ids,
                key,
                states=states if attempt == 0 else kept.store.states(),
                sizes=[layer.size for layer in resolved.layers],
                # Each try has its own: what an earlier one kept stays under its name.
                image=f"image-{job.import_id}-{secrets.token_hex(2)}",
                create=lambda: job.enter("create"),
                fetch=fetch,
                finish=lambda path, receipt: _finish(job, resolved, path, receipt),
            )
            # Again, for it may have been made under other rules.
            _refuse_entries(job, whole.note.entries)
            _refuse_foreign(job, whole.verdict)
            with job.timed("seal"):
                job.undo_with(f"dataset {job.relative}", lambda: job.driver.destroy(job.relative))
                snapshot = kept.store.generation(whole.state, job.relative)
            break
        except TemplateMissing:
            # Somebody made room just now, and removed what we had found.
            if attempt == _ATTEMPTS - 1:
                raise
    return _Filled(
        snapshot=snapshot,
        receipt=whole.receipt,
        entries=whole.note.entries,
        tree_digest=whole.note.tree_digest,
        deviations=whole.note.deviations,
        verdict=whole.verdict,
    )


def _finish(job: Job, resolved: Resolved, path: Path, receipt: Receipt) -> layered.Finished:
    """Plant, judge and digest."""
    with job.timed("plant"):
        planted = plant_resolv_conf(path, job.rules.nameserver)
    with job.timed("judge"):
        verdict = judge(path, resolved.platform, receipt.manifest)
        _refuse_foreign(job, verdict)
    with job.timed("digest"):
        manifest = _manifest(job, path, receipt)
        tree_digest, entries = tree.digest(manifest), tree.entries(manifest)
    return layered.Finished(
        tree_digest=tree_digest,
        manifest=manifest,
        entries=entries,
        planted=(planted,) if planted else (),
        verdict=verdict,
    )


def _manifest(job: Job, root: Path, receipt: Receipt) -> bytes:
    """The manifest of the tree with all that was planted in it.

    An engine that saw every byte while it wrote has made one; else all is read once more.
    """
    if receipt.manifest is not None:
        return amend(receipt.manifest, described(job.rules.nameserver))
    into = _Bounded(job.rules.limit_manifest_bytes)
    tree.scan(
        root,
        limit_entries=job.rules.limit_entries,
        on_progress=lambda entries, _bytes: job.report(
            Progress(stage="digest", done=entries, unit="entries")
        ),
        into=into,
    )
    return into.getvalue()


class _Bounded(io.BytesIO):
    """A manifest that is held in memory. Each of its lines has a whole path, so it may be large."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self._left -= written
        if self._left < 0:
            raise TreeRefused(
                "The tree has a manifest larger than an eighth of COPPICE_LIMIT_MEMORY_BYTES.",
                extra={"rule": "manifest-bytes", "path": "."},
            )
        return written


def _early_way(job: Job) -> str | None:
    """Before the bytes move: the stranger that stands where the alias will be can be moved.

    Else a conflict is said now, and nothing was downloaded for it. Whether one that has clones can
    be moved is for the pool to say, so that one is moved at once (its new full name is returned);
    all others stay current, in their place, until the import is done.
    """
    alias = alias_name(job.name.text)
    if not job.hand_made:
        raise AdoptedInTheWay(
            f"{alias} was made by hand and is not known here yet.",
            hint="Adopt it with: coppice tpl reload. Then import with --force, or rename it.",
        )
    return _make_way(job) if job.driver.dependents(alias) else None


def _make_way(job: Job) -> str | None:
    """Move a hand-made dataset from where the alias will be; its new full name, if there was one.

    Not there, although the log has it as current: somebody removed it, and nothing is to be moved.
    """
    old, new = alias_name(job.name.text), generation_name(job.name.text, 0, job.import_id)
    if not job.hand_made or not job.driver.stranger(old):
        return None
    # Before the move: an interrupt may come when it has taken effect, and is not yet known to have.
    job.undo_with(f"move of {old}", lambda: _move_back(job.driver, new, old))
    try:
        job.driver.move(old, new)
    except (TemplateInUse, PoolBusy) as error:
        raise AdoptedInTheWay(
            f"{old} was made by hand and cannot be moved aside: {error.detail}",
            hint="Destroy what is cloned from it, or choose another name.",
            extra=error.extra,
            private=error.private,
        ) from error
    return job.driver.full_name(new)


def _move_back(driver: DatasetDriver, new: str, old: str) -> None:
    if driver.snapshot(new) is not None:
        driver.move(new, old)


def _refuse_foreign(job: Job, verdict: Verdict) -> None:
    if job.rules.refuse_foreign and verdict.result in ("foreign", "mixed"):
        raise PlatformIncompatible(
            f"The image's programs are not for {verdict.config_platform}: {verdict.reason}",
            hint="Choose an image for this platform, or set COPPICE_REFUSE_FOREIGN=off.",
            extra={"abis": list(verdict.abis)},
        )


def _refuse_entries(job: Job, entries: int) -> None:
    limit = job.rules.limit_entries
    if entries > limit:
        raise TreeRefused(
            f"The image's tree has {entries} entries, more than the {limit} that are allowed.",
            hint="Raise COPPICE_LIMIT_ENTRIES if this image is meant to be imported.",
            extra={"rule": "entries", "entries": entries, "limit": limit},
        )


def _verdict_findings(verdict: Verdict) -> tuple[str, ...]:
    if verdict.result in ("foreign", "mixed"):
        return (f"Programs will fail at exec: {verdict.reason}",)
    return ()
