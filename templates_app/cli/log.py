"""``coppice log``: the log as an auditor needs it who trusts neither the server nor its database.

Everything is computed here: leaf hashes, the tree, signatures of checkpoints. Of the server only
the events and a checkpoint are taken, and what it says of them counts for nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from templates_app.cli.client import Failure, path
from templates_app.cli.output import clean
from templates_app.cli.session import Session, json_option, pass_session, read_file
from templates_app.errors import CoppiceError

if TYPE_CHECKING:
    from templates_app.trust.checkpoints import Checkpoint

PAGE = 500  # events a call: the most that the server gives
TELL_EVERY = 100_000  # events, where there is no bar
TEXT, LINES = "text/plain", "application/x-ndjson"


@click.group(short_help="The log: verify it, without trust in the server.")
def log() -> None:
    """The log: verify it, without trust in the server."""


@log.command(short_help="The newest signed checkpoint.")
@json_option
@pass_session
def checkpoint(session: Session) -> None:
    """Print the newest checkpoint of the log, a signed note, as the server has it.

    Keep it where the server cannot write: log verify --since holds the log against it later.

    \b
    Example:
      coppice log checkpoint > 2026-11.note
    """
    note = session.api.get_bytes(path("log", "checkpoint"), kind=TEXT)
    text = note.decode("utf-8", "backslashreplace")
    if session.out.as_json:
        session.out.json({"note": text})
    elif session.out.out.is_terminal:
        for line in text.splitlines():
            session.out.line(clean(line))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(note)
        sys.stdout.buffer.flush()


@log.command(short_help="Compute the whole log anew, and hold it against checkpoints.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="FILE",
    help="The log's public key (log.pub), which you have from elsewhere. May be given again.",
)
@click.option(
    "--since",
    "kept",
    multiple=True,
    metavar="FILE",
    help="A checkpoint that you have kept (a note). May be given again.",
)
@click.option("--save", metavar="FILE", help="Where the log holds: keep its checkpoint here.")
@json_option
@pass_session
def verify(
    session: Session, keys: tuple[str, ...], kept: tuple[str, ...], save: str | None
) -> None:
    """Fetch every event, make its leaf hash and the tree's root anew, and compare.

    The root must be that of the newest checkpoint, signed by --key; with --since also that of each
    checkpoint that you have kept, when the log had its size. Exit 1 where something differs, with
    the first bad position, or the positions among which it is.

    \b
    Example:
      coppice log verify --key log.pub --since 2026-11.note --save 2026-12.note
    """
    # Imported here: cryptography takes longer to load than all else.
    from templates_app.trust.signify import PublicKey

    public = [PublicKey.parse(_text(name)) for name in keys]
    notes = [(_signed(read_file(name)[0], public, name), name) for name in kept]
    served = session.api.get_bytes(path("log", "checkpoint"), kind=TEXT)
    newest = _signed(served, public, "the server's newest checkpoint")
    notes.sort(key=lambda one: one[0].size)
    for one, name in notes:
        if one.origin != newest.origin:
            raise _finding(f"{name} is of the log {one.origin}, the server's is {newest.origin}.")
        if one.size > newest.size:
            raise _finding(
                f"The log had {one.size} events when {name} was signed; the server's newest"
                f" checkpoint ends at position {newest.size}.",
                position=newest.size + 1,
            )
    root = _computed(session, [*notes, (newest, "the server's newest checkpoint")])
    if save is not None:
        _keep(Path(save), served)
    if session.out.as_json:
        session.out.json(
            {
                "origin": newest.origin,
                "size": newest.size,
                "root": base64.b64encode(root).decode("ascii"),
                "checkpoints": len(notes) + 1,
            }
        )
        return
    session.out.line(f"{newest.size}\t{base64.b64encode(root).decode('ascii')}")
    held = f" and of {len(notes)} that you have kept" if notes else ""
    session.out.say(f"The log is that of the newest checkpoint{held}.")


def _text(name: str) -> str:
    try:
        return read_file(name)[0].decode("utf-8")
    except UnicodeDecodeError:
        raise Failure("file_unusable", f"{name} is not a .pub file of signify.") from None


def _signed(note: bytes, keys: list[Any], what: str) -> Checkpoint:
    """The checkpoint in a note that one of the keys has signed."""
    from templates_app.trust import checkpoints

    why = ""
    for key in keys:
        try:
            return checkpoints.verify(note, key)
        except CoppiceError as error:
            why = error.detail
    raise _finding(f"{what} is no checkpoint that --key has signed: {why}")


def _computed(session: Session, held: list[tuple[Checkpoint, str]]) -> bytes:
    """The root of the whole log; every checkpoint of ``held``, the smallest first, is its."""
    from templates_app.trust.log import Frontier, leaf_data, leaf_hash

    tree, good, waiting = Frontier(), 0, list(reversed(held))
    size = held[-1][0].size
    with _progress(session, size) as tell:
        while True:
            while waiting and waiting[-1][0].size == tree.size:
                one, name = waiting.pop()
                if one.root != tree.root():
                    raise _finding(
                        f"The log is not the one that {name} was signed for: an event of the"
                        f" positions {good + 1} to {one.size} is another one.",
                        first=good + 1,
                        last=one.size,
                    )
                good = one.size
            if not waiting:
                return tree.root()
            end = min(tree.size + PAGE, waiting[-1][0].size)
            for line in _page(session, tree.size + 1, end):
                position = tree.size + 1
                event = _event(line, position)
                leaf = leaf_hash(leaf_data(event))
                if leaf.hex() != event.get("leafHash"):
                    raise _finding(
                        f"The event at position {position} is not the one that was recorded: its"
                        f" content has the leaf hash {leaf.hex()}.",
                        position=position,
                    )
                tree.append(leaf)
            tell(tree.size)


def _page(session: Session, start: int, end: int) -> list[bytes]:
    """The lines from position ``start`` on, at least one and at most to ``end``."""
    content = session.api.get_bytes(
        path("log", "entries"), kind=LINES, start=start, end=end, limit=PAGE
    )
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    if not lines:
        raise _finding(f"The log ends at position {start - 1}.", position=start)
    return lines[: end - start + 1]


def _event(line: bytes, position: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or event.get("position") != position:
        raise _finding(
            f"What is served for position {position} is not its event.", position=position
        )
    return event


def _finding(detail: str, **where: int) -> Failure:
    """What ends the command with 1; ``where`` are positions."""
    failure = Failure(
        "log_differs",
        detail,
        next_step="Keep what you have, and ask whoever runs the server. Do not trust it meanwhile.",
    )
    failure.document |= where
    return failure


@contextlib.contextmanager
def _progress(session: Session, size: int) -> Iterator[Callable[[int], None]]:
    console = session.out.err
    if not console.is_terminal or console.is_dumb_terminal:

        def tell(done: int) -> None:
            if done % TELL_EVERY == 0:
                session.out.say(f"{done} of {size} events read")

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=size)

        def move(done: int) -> None:
            progress.update(task, completed=done)

        yield move


def _keep(place: Path, note: bytes) -> None:
    """Whole or not at all: a kept checkpoint is worth nothing when it is half of one."""
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Failure("file_unusable", f"{place} cannot be written: {error.strerror}.") from None
