"""Sandboxes that somebody launches or destroys just now: one at a time, and noted before it begins.

A launch makes its clone first and its event after. A process that dies in between leaves a clone
that no event knows; the note that it left beside says what it was about, so that recovery removes
exactly that clone and never one that an event, or somebody else, stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from templates_app.datasets.locks import Taken, held, lock_file
from templates_app.errors import SandboxBusy

#: How long one waits for somebody else who works on the same sandbox, in seconds.
PATIENCE = 30.0


def _place() -> Path:
    place = Path(settings.COPPICE_STATE_DIR) / "launches"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


@contextmanager
def alone(sandbox_id: str, *, patience: float | None = None) -> Iterator[None]:
    """Nobody else on this node launches or destroys this sandbox meanwhile. SandboxBusy."""
    seconds = PATIENCE if patience is None else patience
    try:
        with held(lock_file(_place(), f"{sandbox_id}.lock"), patience=seconds):
            yield
    except Taken:
        raise SandboxBusy(f"Somebody else works on the sandbox {sandbox_id} now.") from None


def note(sandbox_id: str, origin: str) -> None:
    """A clone of the snapshot ``origin`` is about to be made. Held alone."""
    (_place() / sandbox_id).write_text(origin)


def forget(sandbox_id: str) -> None:
    (_place() / sandbox_id).unlink(missing_ok=True)


def noted() -> dict[str, str]:
    """Sandbox -> origin of its clone, for every note that is there, also of launches that run."""
    found = {}
    for path in sorted(_place().iterdir()):
        if path.suffix != ".lock":  # ids have no dot
            found[path.name] = path.read_text()
    return found
