"""How far an import is, on stderr: bars on a terminal, a line for each stage elsewhere.

Where the engine works layer by layer, each layer has a bar below that of the whole.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

from templates_app.cli.output import Document, clean, many, pick, shown
from templates_app.names import human_size

ROOMY = 66  # columns of a terminal; below, bars are short, and rate, time and entries left out
LAYERS = 12  # lines of layers at the most; the others are counted
ENDED = ("done", "kept")  # states of a layer in which nothing is to come


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


def layers(status: Document) -> list[Document]:
    return [layer for layer in many(status, "layers") if isinstance(layer, dict)]


def layer_name(layer: Document, count: int) -> str:
    """``layer 2/5``."""
    return f"layer {shown(pick(layer, 'layer'))}/{count}"


def layer_bytes(layer: Document) -> str:
    """``12.3M/25.0M``; nothing where nothing is known of it."""
    done, total = pick(layer, "bytes"), pick(layer, "totalBytes")
    if not isinstance(done, int) or (not done and not isinstance(total, int)):
        return ""
    return f"{human_size(done)}/{human_size(total)}" if isinstance(total, int) else human_size(done)


def layer_text(layer: Document) -> str:
    """``copy, 12.3M/25.0M, 4711 entries``."""
    entries = pick(layer, "entries")
    written = f"{entries} entries" if isinstance(entries, int) and entries else ""
    state = shown(pick(layer, "state"))
    parts = (state, "" if state == "kept" else layer_bytes(layer), written)
    return ", ".join(part for part in parts if part)


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
    """One line for each stage, and for each layer when it is there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[str] = set()

    def update(self, status: Document) -> None:
        stage = shown(pick(status, "stage"))
        self.note(f"{self._name}: {stage}")
        all_ = layers(status)
        for layer in all_:
            if pick(layer, "state") in ENDED:
                self.note(f"{self._name}: {layer_name(layer, len(all_))} {layer_text(layer)}")

    def note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            click.echo(clean(text), err=True)


class Bar:
    """Lines that are rewritten, and gone when the import has ended."""

    def __init__(self, console: Console) -> None:
        self._roomy = console.width >= ROOMY
        self._room = min(LAYERS, max(1, console.height - 4))  # rich cuts what does not fit
        columns: list[ProgressColumn] = [
            _Spinner("line"),
            _Name(),
            _Line(bar_width=max(6, min(40, console.width - 62)) if self._roomy else 8),
            _Field("amount"),
            _Rate(),
        ]
        if self._roomy:
            columns.append(_Elapsed())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None
        self._layers: list[TaskID] = []
        self._more: TaskID | None = None
        self._stage = ""
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def update(self, status: Document) -> None:
        stage = shown(pick(status, "stage"))
        if self._task is None:
            self._task = self._progress.add_task(stage, total=None)
        elif stage != self._stage:
            # A rate over two stages would be none of either.
            self._progress.reset(self._task, description=stage)
        self._stage = stage
        done, total, unit = (pick(status, key) for key in ("done", "total", "unit"))
        counted = unit in ("bytes", "entries") and isinstance(done, int)
        self._progress.update(
            self._task,
            completed=done if counted else 0,
            total=total if counted and isinstance(total, int) and total > 0 else None,
            amount=amount(status),
            unit=unit if self._roomy else None,
        )
        self._update_layers(layers(status))

    def _update_layers(self, all_: list[Document]) -> None:
        while len(self._layers) < len(all_):
            self._layers.append(self._progress.add_task("", visible=False, layer=True))
        seen = _those_that_fit(all_, self._room)
        for index, (task, layer) in enumerate(zip(self._layers, all_, strict=False)):
            self._update_layer(task, layer, len(all_), visible=index in seen)
        if len(seen) < len(all_):
            if self._more is None:
                self._more = self._progress.add_task("", layer=True, more=True)
            ended = sum(pick(layer, "state") in ENDED for layer in all_)
            self._progress.update(
                self._more, description=f"+{len(all_) - len(seen)} more", state=f"{ended} done"
            )

    def _update_layer(self, task: TaskID, layer: Document, count: int, *, visible: bool) -> None:
        state, entries = shown(pick(layer, "state")), pick(layer, "entries")
        name = layer_name(layer, count)
        done, total = pick(layer, "bytes"), pick(layer, "totalBytes")
        written = self._roomy and isinstance(entries, int) and entries > 0
        ended = state in ENDED
        self._progress.update(
            task,
            description=name if self._roomy else name.removeprefix("layer "),
            # Of an empty layer there is nothing to count: the bar is full or it is not.
            completed=1 if ended else done if isinstance(done, int) else 0,
            total=1 if ended else total if isinstance(total, int) and total > 0 else 1,
            amount=layer_bytes(layer) if state != "kept" else "",
            state=f"{state} {entries} entries" if written else state,
            visible=visible,
        )

    def note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.console.print(Text(clean(text), "yellow"))


def _those_that_fit(all_: list[Document], room: int) -> set[int]:
    """Which layers are shown: all, or else first those that something happens to, then the next."""
    if len(all_) <= room:
        return set(range(len(all_)))
    order = {"pull": 0, "copy": 0, "waiting": 1}
    ranked = sorted(range(len(all_)), key=lambda i: (order.get(pick(all_[i], "state"), 2), i))
    return set(ranked[: room - 1])  # one line says how many there are


class _Spinner(SpinnerColumn):
    def render(self, task: Task) -> RenderableType:
        return Text("") if task.fields.get("layer") else super().render(task)


class _Line(BarColumn):
    def render(self, task: Task) -> ProgressBar:
        return Text("") if task.fields.get("more") else super().render(task)  # type: ignore[return-value]


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, "" if task.fields.get("layer") else "bold")


class _Field(ProgressColumn):
    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self._field, "")))


class _Rate(ProgressColumn):
    """How fast the whole is; of a layer, its state."""

    def render(self, task: Task) -> Text:
        if task.fields.get("layer"):
            return Text(str(task.fields.get("state", "")))
        speed: Any = task.speed
        if not speed or not task.fields.get("amount"):
            return Text("")
        match task.fields.get("unit"):
            case "bytes":
                return Text(f"{human_size(int(speed))}/s")
            case "entries":
                return Text(f"{speed:.0f}/s")
            case _:
                return Text("")


class _Elapsed(TimeElapsedColumn):
    def render(self, task: Task) -> Text:
        return Text("") if task.fields.get("layer") else super().render(task)
