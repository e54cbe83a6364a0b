"""How far an import is, on stderr: a bar on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
)
from rich.text import Text

from templates_app.cli.output import Document, clean, pick, shown
from templates_app.names import human_size

ROOMY = 60  # columns of a terminal; below, the bar is short, and rate and time are left out


class Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, status: Document) -> None:
        """Show the state of a running import, as ``GET …/import`` gives it."""

    def note(self, text: str) -> None:
        """Say a sentence; the same one only once."""


def display(console: Console, name: str, quiet: bool) -> Display:
    """What fits stderr. A dumb terminal cannot rewrite a line, so it gets lines, too."""
    if quiet:
        return Quiet()
    if console.is_terminal and not console.is_dumb_terminal:
        return Bar(console)
    return Lines(name)


def amount(status: Document) -> str:
    """``12.3M/157.2M``, ``4711 entries``; nothing where nothing is counted."""
    done, total, unit = (pick(status, key) for key in ("done", "total", "unit"))
    if not isinstance(done, int) or unit not in ("bytes", "entries"):
        return ""
    as_text = human_size if unit == "bytes" else str
    text = as_text(done)
    if isinstance(total, int) and total > 0:
        text += f"/{as_text(total)}"
    return text if unit == "bytes" else f"{text} entries"


class Quiet:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def update(self, status: Document) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Lines(Quiet):
    """One line for each stage."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[str] = set()

    def update(self, status: Document) -> None:
        stage = shown(pick(status, "stage"))
        self.note(f"{self._name}: {stage}")

    def note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            click.echo(clean(text), err=True)


class Bar:
    """One line that is rewritten, and gone when the import has ended."""

    def __init__(self, console: Console) -> None:
        roomy = console.width >= ROOMY
        columns: list[ProgressColumn] = [
            SpinnerColumn("line"),
            _Stage(),
            BarColumn(bar_width=max(6, min(40, console.width - 46)) if roomy else 8),
            _Amount(),
        ]
        if roomy:
            columns += [_Rate(), TimeElapsedColumn()]
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None
        self._stage = ""
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def update(self, status: Document) -> None:
        stage = shown(pick(status, "stage"))
        if self._task is None or stage != self._stage:
            # A rate over two stages would be none of either.
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage = stage
            self._task = self._progress.add_task(stage, total=None)
        done, total, unit = (pick(status, key) for key in ("done", "total", "unit"))
        counted = unit in ("bytes", "entries") and isinstance(done, int)
        self._progress.update(
            self._task,
            completed=done if counted else 0,
            total=total if counted and isinstance(total, int) and total > 0 else None,
            amount=amount(status),
            unit=unit,
        )

    def note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.console.print(Text(clean(text), "yellow"))


class _Stage(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, "bold")


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("amount", "")))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed: Any = task.speed
        if not speed or not task.fields.get("amount"):
            return Text("")
        if task.fields.get("unit") == "bytes":
            return Text(f"{human_size(int(speed))}/s")
        return Text(f"{speed:.0f}/s")
