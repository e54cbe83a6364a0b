"""The native engine: an image's layers into a directory, without another program.

    server, this thread and a few more     reader                          writer
    layers from the registry or the   -->  decompress, diffID, strict  --> makes files below one
    cache, each byte hashed                tar, model, sha256, manifest    directory, by descriptors

Nothing is believed before it was hashed, and nothing of what was written is of use before all was:
whatever goes wrong, the caller removes the dataset. ADR 0009 says why it is so.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from templates_app.errors import CoppiceError, ImportTimeout, PullFailed, TreeRefused
from templates_app.events import Deviation
from templates_app.sources.base import (
    LEFT_OUT,
    LayerState,
    Progress,
    Receipt,
    Report,
    Resolved,
    SourceContext,
    States,
)
from templates_app.sources.native import crew, wire
from templates_app.sources.native.cache import BlobCache, Blobs
from templates_app.sources.native.crew import Crew
from templates_app.sources.native.delivery import Delivery
from templates_app.sources.native.limits import Limits
from templates_app.sources.native.wire import Say
from templates_app.trust.compare import SKIPPED

logger = logging.getLogger("coppice.native")

_TICK = 0.25  # seconds between two looks at the clock
#: Seconds that a download gets to its end, and so to its verdict, once its layer was refused.
_VERDICT = 2.0

_confined: set[str] = set()  # what was logged already that a process could not give up


class Holder(Blobs, Protocol):
    """Where layers come from."""

    def close(self) -> None:
        """What other threads read from it then fails at once."""


def fetch(
    holder: Holder,
    context: SourceContext,
    resolved: Resolved,
    into: Path,
    report: Report,
    import_id: str,
    states: States | None = None,
) -> Receipt:
    """Fill ``into`` with the files of what ``resolved`` says; ``holder`` is closed.

    Raises PullFailed, TreeRefused, OutOfSpace, StorageReadOnly, PoolUnavailable, ImportTimeout,
    ProgramKilled and ProgramFailed, and what ``states.keep`` and ``report`` raise.
    """
    done = states.done if states else None
    if done is None and any(into.iterdir()):
        raise ValueError(f"{into} is not empty")
    limits = context.limits
    first = done.number if done else 0
    with (
        closing(holder),
        crew.working(
            into=into,
            home=context.state_dir / "engine",
            limits=limits,
            layers=max(1, len(resolved.layers) - first),
            content_bytes=done.content_bytes if done else 0,
            left_out=LEFT_OUT,
            wait=states is not None,
            import_id=import_id,
        ) as processes,
    ):
        cache = BlobCache.of(context)
        delivery = Delivery(
            resolved.layers, first, cache, holder, processes.wake, tell_each=states is not None
        )
        work = _Fetch(resolved, report, processes, delivery, limits, states)
        try:
            if done:
                wire.say(processes.reader.control, Say.KEPT, done.manifest)
            delivery.start(processes.reader.control)
            return work.run()
        except (PullFailed, TreeRefused) as error:
            # To the reader a download that broke is an archive that is cut off, and another body (a
            # page that says "log in") an image that breaks a rule: it is not told of the verdict.
            wrong = delivery.verdict(_VERDICT) or error
            if (cause := work.blame(wrong, cache)) is not error:
                raise cause from error
            raise
        finally:
            holder.close()  # downloads end at once
            # Before the threads: one may be writing to a process that reads no more, and would go
            # on for as long as that lives.
            processes.end()
            delivery.stop()
            _trim(cache)


@dataclass(slots=True)
class _Told:
    """What the reader says of the tree after a layer."""

    figures: dict[str, Any]
    manifest: bytes = b""


@dataclass(slots=True)
class _Fetch:
    resolved: Resolved
    report: Report
    crew: Crew
    delivery: Delivery
    limits: Limits
    states: States | None
    begun: float = field(default_factory=time.monotonic)
    brought: float | None = None  # when all layers were here
    settled: int = 0  # layers that are written
    kept: int = 0  # layers whose state was kept
    told: dict[int, _Told] = field(default_factory=dict)  # by layer
    written: dict[str, Any] = field(default_factory=dict)  # what the writer said last
    _deadline: float = 0.0
    _next_report: float = 0.0

    @property
    def count(self) -> int:
        return max(1, len(self.resolved.layers))

    def run(self) -> Receipt:
        self.settled = self.kept = self.delivery.first
        self._start_clock()
        while not self._is_done():
            self._report_bytes()
            for who, what, body in self.crew.messages(_TICK):
                self._take(who, what, body)
            if self.delivery.error is not None:
                raise self.delivery.error
            if time.monotonic() > self._deadline:
                raise ImportTimeout(
                    f"Layer {self.settled + 1} was not here and written within"
                    f" {self.limits.seconds} seconds."
                )
        self._report_bytes(at_once=True)
        return self._receipt()

    def _is_done(self) -> bool:
        if self.states is not None:
            return self.kept == self.count
        told = self.told.get(self.count - 1)
        return self.settled == self.count and told is not None and bool(told.manifest)

    def _take(self, who: str, what: Say, body: bytes) -> None:
        if what == Say.MANIFEST:
            self.told[max(self.told)].manifest = body
        else:
            said = json.loads(body)
            _log_missing(who, said.get("missing", ()))
            if what == Say.TREE:
                self.told[said["layer"]] = _Told(said)
            elif what == Say.PROGRESS:
                self._report_entries(said, None)
            elif what == Say.READ:
                self._report_entries(said, said["entries"])
            elif what == Say.SETTLED:
                self.written = said
                self.settled = said["layer"] + 1
                self._start_clock()
        if self.states is not None:
            self._keep(self.states)

    def _keep(self, states: States) -> None:
        """A layer is written, and its manifest here. The writer waits: the disk has no more yet."""
        told = self.told.get(self.kept)
        if told is None or not told.manifest or self.settled == self.kept:
            return
        self.kept += 1
        states.keep(self._state(told, self.kept))
        if self.kept < self.count:
            del self.told[self.kept - 1]
            self._start_clock()
            wire.say(self.crew.writer.control, Say.GO)

    def _state(self, told: _Told, number: int) -> LayerState:
        done = self.states.done if self.states else None
        return LayerState(
            number=number,
            manifest=told.manifest,
            entries=told.figures["entries"],
            content_bytes=told.figures["bytes"],
            left_out=LEFT_OUT,
            findings=(*(done.findings if done else ()), *told.figures["findings"]),
            deviations=(*(done.deviations if done else ()), *self._deviations()),
        )

    def _deviations(self) -> list[Deviation]:
        return [
            Deviation(path=".", reason=f"{words} ({count} entries)")
            for what, words in SKIPPED.items()
            if (count := self.written["skipped"][what])
        ]

    def _receipt(self) -> Receipt:
        state = self._state(self.told[self.count - 1], self.count)
        now = time.monotonic()
        brought = self.brought or now
        return Receipt(
            engine="native",
            milliseconds={
                "pull": round((brought - self.begun) * 1000),
                "copy": round((now - brought) * 1000),
            },
            left_out=state.left_out,
            findings=state.findings,
            manifest=state.manifest,
            deviations=state.deviations,
            entries=state.entries,
            fetched_bytes=self.delivery.fetched,
            cached_bytes=self.delivery.cached,
            written_bytes=self.written["written"],
        )

    # --- clock and progress ----------------------------------------------------------------------

    def _start_clock(self) -> None:
        self._deadline = time.monotonic() + self.limits.seconds

    def _report_bytes(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self.brought is None and self.delivery.complete:
            self.brought = now
        if now < self._next_report and not at_once:
            return
        self._next_report = now + _TICK
        # All of them, changed or not: who records this drops what comes too fast, and the last word
        # before a long silence must get through.
        for number, layer in enumerate(self.resolved.layers):
            if number >= self.delivery.first:
                self.report(
                    Progress(
                        stage="pull",
                        done=self.delivery.here[number],
                        total=layer.size,
                        layer=number,
                        layers=len(self.resolved.layers),
                    )
                )

    def _report_entries(self, said: dict[str, Any], total: int | None) -> None:
        if self.resolved.layers:
            self.report(
                Progress(
                    stage="copy",
                    done=said["entries"],
                    total=total,
                    unit="entries",
                    layer=said["layer"],
                    layers=len(self.resolved.layers),
                )
            )

    # --- blame -----------------------------------------------------------------------------------

    def blame(self, error: BaseException, cache: BlobCache) -> BaseException:
        """The error, or where a layer had rotted in the cache, that: it is gone from there now.

        Wrong bytes can look like anything: damaged gzip, a bad header, another diffID.
        """
        if not isinstance(error, PullFailed | TreeRefused):
            return error
        if isinstance(error, PullFailed) and error.reason != "corrupt":
            return error
        rotten = [
            layer.digest
            for layer, incoming in zip(self.resolved.layers, self.delivery.incoming, strict=True)
            if incoming.cached and cache.rotten(layer.digest)
        ]
        if not rotten:
            return error
        return PullFailed(
            "A layer was damaged in the blob cache.",
            reason="corrupt",
            again=True,
            hint="It is gone from there: try again, and look for errors of the disk.",
            private=f"{', '.join(map(str, rotten))}: {error.detail} {error.private}",
        )


def _trim(cache: BlobCache) -> None:
    """The limit is kept once more, for what this import used is free now."""
    try:
        cache.trim()
    except CoppiceError as error:
        logger.warning("the blob cache was not trimmed: %s", error.private)


def _log_missing(who: str, missing: Iterable[str]) -> None:
    """Once for each thing: that it is so does not change while the server runs."""
    for one in missing:
        if one not in _confined:
            _confined.add(one)
            logger.warning("the %s process runs without %s", who, one)
