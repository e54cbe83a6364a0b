"""Sandboxes that somebody launches or destroys just now: one at a time, and noted before it begins.

A launch makes its clone first and its event after; the end of a sandbox removes the clone first. A
process that dies in between leaves a clone that no event knows, or an event whose clone is gone;
the note that it left beside says what it was about, so that recovery removes exactly that clone,
and finishes exactly that end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings

from templates_app.datasets.locks import Taken, held, lock_file, tidy
from templates_app.errors import SandboxBusy

#: How long one waits for somebody else who works on the same sandbox, in seconds.
PATIENCE = 30.0


_LAUNCHES, _ENDINGS = "launches", "endings"


def _place(name: str) -> Path:
    place = Path(settings.COPPICE_STATE_DIR) / name
    if not place.is_dir():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


@contextmanager
def alone(sandbox_id: str, *, patience: float | None = None) -> Iterator[None]:
    """Nobody else on this node launches or destroys this sandbox meanwhile. SandboxBusy."""
    seconds = PATIENCE if patience is None else patience
    try:
        with held(lock_file(_place(_LAUNCHES), f"{sandbox_id}.lock"), patience=seconds):
            yield
    except Taken:
        raise SandboxBusy(f"Somebody else works on the sandbox {sandbox_id} now.") from None


def note(sandbox_id: str, origin: str) -> str | None:
    """A clone of the snapshot ``origin`` is about to be made. Held alone.

    Returns what the note of an earlier launch said that died or could not take its clone back.
    """
    path = _place(_LAUNCHES) / sandbox_id
    earlier = path.read_text() if path.exists() else None
    path.write_text(origin)
    return earlier


def note_end(sandbox_id: str, version: int) -> None:
    """The clone of a sandbox is about to be destroyed, whose stream is at ``version``. Held alone.

    By its version it is told from a later sandbox of that name.
    """
    (_place(_ENDINGS) / sandbox_id).write_text(str(version))


def forget(sandbox_id: str, earlier: str | None = None) -> None:
    """Nothing is about to happen any more; what an ``earlier`` note is about stays noted."""
    if earlier is not None:
        (_place(_LAUNCHES) / sandbox_id).write_text(earlier)
        return
    for place in (_LAUNCHES, _ENDINGS):
        (_place(place) / sandbox_id).unlink(missing_ok=True)


def noted() -> dict[str, str]:
    """Sandbox -> origin of its clone, for every note that is there, also of launches that run."""
    found = {}
    for path in sorted(_place(_LAUNCHES).iterdir()):
        if path.suffix != ".lock":  # ids have no dot
            with suppress(FileNotFoundError):  # its launch has ended just now
                found[path.name] = path.read_text()
    return found


def ending() -> dict[str, int | None]:
    """Sandboxes whose clone is being destroyed, or was when the process died, and the version of
    each one's stream; None where the process died before it was written."""
    found: dict[str, int | None] = {}
    for path in sorted(_place(_ENDINGS).iterdir()):
        with suppress(FileNotFoundError):  # it has ended just now
            text = path.read_text()
            found[path.name] = int(text) if text.isdigit() else None
    return found


def tidy_locks() -> None:
    """Remove what dead processes left of their being alone."""
    tidy(_place(_LAUNCHES), "*.lock")
