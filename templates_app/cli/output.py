"""What the user sees: data on stdout, talk on stderr, tables, and nothing raw from the server.

On a terminal tables are rich's, in the terminal's width; elsewhere they are aligned columns of any
width, for grep and cut. Text of the server is never rich markup, and a character that could steer
a terminal is shown as its escape.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from templates_app.names import human_size

Document = Mapping[str, Any]

GAP = 2  # blanks between columns
NAMES = 20  # columns that a list of names is folded to, before another column is left out for it


def clean(value: object) -> str:
    """``value`` as one line of text in which nothing can steer a terminal.

    Not printable in the sense of str.isprintable: control characters (C0, DEL, C1), line ends,
    bidirectional overrides, lone surrogates. They are shown as Python writes them: ``\\x1b``.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pick(document: Document, dotted: str) -> Any:
    """The member at ``a.b``; None where there is none. The document itself for an empty path."""
    at: Any = document
    for key in filter(None, dotted.split(".")):
        at = at.get(key) if isinstance(at, Mapping) else None
    return at


def many(document: Any, dotted: str) -> list[Any]:
    """The list at ``a.b``; an empty one where there is none."""
    found = pick(document, dotted)
    return found if isinstance(found, list) else []


def shown(value: Any) -> str:
    """A JSON value as a cell: ``-`` for nothing, yes and no for truth."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(shown(one) for one in value)
    return clean(value)


def size(value: Any) -> str:
    """Bytes for people: ``157.2M``."""
    return human_size(value) if isinstance(value, int) and value >= 0 else shown(value)


def moment(value: Any) -> str:
    """The API's ``2026-01-02T03:04:05.000006Z`` in seconds. UTC, as everything that is logged."""
    text = shown(value)
    return text[:19].replace("T", " ") if len(text) >= 20 and text[10:11] == "T" else text


def minute(value: Any) -> str:
    """As :func:`moment`, to the minute: for lists."""
    text = moment(value)
    return text[:16] if len(text) == 19 else text


def short_digest(value: Any) -> str:
    """Twelve digits of a digest: enough for people. ``-p`` shows all of them."""
    text = shown(value)
    return text.removeprefix("sha256:")[:12] if text.startswith("sha256:") else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """``show`` is for people, ``exact`` (``-p``) for programs. ``at`` is where the value stands."""

    name: str
    at: str
    title: str = ""  # of the heading, where it is not the name
    show: Callable[[Any], str] = shown
    exact: Callable[[Any], str] = shown
    right: bool = False
    style: Callable[[str], str] = lambda _text: ""
    rank: int = 0  # on a narrow terminal the highest goes first; 0 stays
    least: int = 0  # columns of text that it may be folded to; 0: it is never folded by choice

    @property
    def heading(self) -> str:
        return (self.title or self.name).upper()

    def cell(self, row: Document, exact: bool) -> str:
        return (self.exact if exact else self.show)(pick(row, self.at))


def yes_no(text: str) -> str:
    return {"yes": "green", "no": "yellow"}.get(text, "")


class Output:
    """Where data and talk go. ``as_json``: data is the API's JSON, failures are problem JSON."""

    def __init__(self) -> None:
        self.as_json = False
        for stream in (sys.stdout, sys.stderr):
            # An old locale has no tick and no dash; a question of taste must not end a command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    # --- data ------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One line of data, never wrapped by us."""
        click.echo(text)

    def json(self, document: Any, *, one_line: bool = False) -> None:
        """JSON with everything but ASCII escaped: valid for a program, harmless on a terminal."""
        click.echo(json.dumps(document, indent=None if one_line else 2).replace("\x7f", "\\u007f"))

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Document],
        *,
        script: bool = False,
        exact: bool = False,
        chosen: bool = False,
    ) -> None:
        """``script``: no heading, tabs. ``chosen``: all columns are wanted, however narrow."""
        cells = [[column.cell(row, exact) for column in columns] for row in rows]
        if script:
            for row in cells:
                self.line("\t".join(row))
        elif not rows:
            self.say("There is nothing to list.")
        elif self.out.is_terminal:
            self._rich_table(columns, cells, chosen)
        else:
            for text in aligned(columns, cells):
                self.line(text)

    def _rich_table(
        self, columns: Sequence[Column], cells: Sequence[Sequence[str]], chosen: bool
    ) -> None:
        kept = list(range(len(columns))) if chosen else fitting(columns, cells, self.out.width)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for index in kept:
            column = columns[index]
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                overflow="fold",
                no_wrap=bool(not column.least and column.rank),
            )
        for row in cells:
            table.add_row(*(Text(row[i], columns[i].style(row[i])) for i in kept))
        self.out.print(table)
        if left := [columns[i].name for i in range(len(columns)) if i not in kept]:
            self.say(f"No room for: {', '.join(left)}.", style="dim")

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line; a long sentence is indented under itself."""
        known = list(pairs)
        width = max((len(name) for name, _value in known), default=0)
        if not self.out.is_terminal:
            for name, value in known:
                self.line(f"{name:<{width}}  {value}".rstrip())
            return
        room = self.out.width - width - GAP
        for name, value in known:
            label = Text(f"{name:<{width}}{' ' * GAP}", "bold")
            if cell_len(value) > room and " " not in value:
                # A digest or a dataset: the terminal wraps it, so that it is copied in one piece.
                self.out.print(label + Text(value), soft_wrap=True)
                continue
            grid = Table.grid()
            grid.add_column(no_wrap=True)
            grid.add_column(overflow="fold")
            grid.add_row(label, Text(value))
            self.out.print(grid)

    def checks(self, decision: Document, *, talk: bool = False) -> None:
        """The gate's checks, each with a mark and a word, and what to do about those that fail."""
        console = self.err if talk else self.out
        rows: list[tuple[str, str, str]] = []
        for check in many(decision, "checks"):
            passed = pick(check, "passed") is True
            rows.append(
                (
                    "✓ passed" if passed else "✗ failed",
                    shown(pick(check, "name")),
                    shown(pick(check, "reason")),
                )
            )
            if not passed and pick(check, "nextStep"):
                rows.append(("", "next:", shown(pick(check, "nextStep"))))
        if not console.is_terminal:
            widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
            for mark, name, text in rows:
                click.echo(f"{mark:<{widths[0]}}  {name:<{widths[1]}}  {text}", err=talk)
            return
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_column(overflow="fold")
        for mark, name, text in rows:
            style = {"✓": "green", "✗": "bold red"}.get(mark[:1], "")
            grid.add_row(Text(mark, style), Text(name), Text(text))
        console.print(grid)

    # --- talk ------------------------------------------------------------------------------------

    def say(self, text: str, *, style: str = "") -> None:
        """A sentence on stderr."""
        if self.err.is_terminal:
            self.err.print(Text(clean(text), style))
        else:
            click.echo(clean(text), err=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}", style="yellow")


def fitting(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Indices of the columns that fit into ``width``: the highest ranks are left out first."""
    kept = list(range(len(columns)))
    wide = [
        max([cell_len(column.heading), *(cell_len(row[i]) for row in cells)])
        for i, column in enumerate(columns)
    ]
    wide = [
        min(w, column.least) if column.least else w for w, column in zip(wide, columns, strict=True)
    ]
    while sum(wide[i] + GAP for i in kept) - GAP > width:
        droppable = [i for i in kept if columns[i].rank]
        if not droppable:
            break
        kept.remove(max(droppable, key=lambda i: columns[i].rank))
    return kept


def aligned(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[str]:
    """Heading and rows as lines of aligned columns."""
    rows = [[column.heading for column in columns], *cells]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(columns))]
    lines = []
    for row in rows:
        padded = []
        for column, width, cell in zip(columns, widths, row, strict=True):
            blanks = " " * (width - cell_len(cell))
            padded.append(blanks + cell if column.right else cell + blanks)
        lines.append((" " * GAP).join(padded).rstrip())
    return lines
