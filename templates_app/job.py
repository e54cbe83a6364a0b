"""One import at work: what it is told, how far it is, and how to undo what it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from templates_app import layered
from templates_app.datasets.base import DatasetDriver, generation_name
from templates_app.errors import CoppiceError
from templates_app.names import TemplateName
from templates_app.sources.base import Progress, Report, Resolved, Source
from templates_app.trust.manifests import Archive

#: The stages, in order; also the words that progress and failures use.
STAGES = ("resolve", "create", "pull", "copy", "plant", "judge", "digest", "seal", "record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about every import."""

    nameserver: str
    limit_entries: int
    refuse_foreign: bool
    limit_manifest_bytes: int = 2**29


@dataclass(slots=True, kw_only=True)
class Job:
    """One import; after a failure ``stage``, ``undone`` and ``leftovers`` say what became of it."""

    name: TemplateName
    source: Source
    import_id: str
    generation: int
    driver: DatasetDriver
    archive: Archive
    rules: Rules
    report: Report
    #: Raises OutOfSpace where layers of so many bytes, as transferred, cannot be unpacked.
    room: Callable[[Resolved, int], None] = lambda _resolved, _transferred: None
    kept: layered.Kept | None = None  # layer states, where the pool has them
    made_states: bool = False
    hand_made: bool = False  # a hand-made dataset stands where the alias goes
    stage: str = "resolve"
    resolved: Resolved | None = None
    done: bool = False  # the generation is in the log
    undecided: bool = False  # nobody could say whether it is
    undone: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    milliseconds: dict[str, int] = field(default_factory=dict)
    _undo: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    @property
    def relative(self) -> str:
        return generation_name(self.name.text, self.generation, self.import_id)

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.report(Progress(stage=stage, unit="steps"))

    def undo_with(self, what: str, inverse: Callable[[], None]) -> None:
        self._undo.append((what, inverse))

    def unwind(self, to: int = 0) -> None:
        """Run the inverses, last first, all but the first ``to``.

        One that fails is a leftover, and the rest still run.
        """
        while len(self._undo) > to:
            what, inverse = self._undo.pop()
            try:
                inverse()
            except CoppiceError as error:
                self.leftovers.append(f"{what}: {error.detail}")
            except OSError as error:
                self.leftovers.append(f"{what}: {error.strerror or type(error).__name__}")
            else:
                self.undone.append(what)

    def staged(self, progress: Progress) -> None:
        """A report that also remembers the stage, so that a failure can name it."""
        if progress.stage not in STAGES:
            raise ValueError(f"unknown stage {progress.stage!r}")
        self.stage = progress.stage
        self.report(progress)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """The block is (a part of) ``stage``."""
        self.enter(stage)
        begun = time.monotonic()
        yield
        took = round((time.monotonic() - begun) * 1000)
        self.milliseconds[stage] = self.milliseconds.get(stage, 0) + took
