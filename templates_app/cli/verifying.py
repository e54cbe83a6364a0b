"""``coppice tpl verify``: are the files on the pool still those that were imported?"""

from __future__ import annotations

from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import NAMES, Column, Document, many, pick, short_digest, shown, size
from templates_app.cli.session import (
    GENERATION,
    At,
    Listing,
    Session,
    json_option,
    listing,
    pass_session,
)
from templates_app.cli.trees import DIFF, DIFF_DEFAULT, show_differences
from templates_app.errors import Exit


def _excepted(row: Any) -> str:
    return ",".join(shown(word) for word in many(row, "excepted")) or "-"


COLUMNS = (
    Column(name="template", at="template", least=NAMES),
    Column(name="generation", at="generation", title="gen", right=True),
    Column(
        name="result",
        at="result",
        style=lambda text: "green" if text == "matches" else "bold red",
    ),
    Column(name="entries", at="entries", right=True, rank=2),
    Column(name="size", at="sizeBytes", show=size, right=True, rank=2),
    Column(name="excepted", at="", show=_excepted, exact=_excepted, rank=3),
    Column(name="tree", at="treeDigest", show=short_digest, rank=4),
    Column(name="found", at="foundDigest", show=short_digest, rank=4),
    Column(name="detail", at="detail", least=24, rank=1),
    Column(name="dataset", at="dataset", rank=5),
    Column(name="position", at="position", right=True, rank=5),
)
DEFAULT = ("template", "generation", "result", "entries", "size", "detail")


@click.command(short_help="Are the files still those that were imported?")
@click.argument("names", metavar="[NAME[@GENERATION]]...", nargs=-1, type=GENERATION)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every generation that is on the pool: of the NAMEs, or of all templates.",
)
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def verify(session: Session, listing: Listing, names: tuple[At, ...], everything: bool) -> None:
    """Have the server read NAME's files again, and compare them with the tree manifest recorded.

    Exits 1 where they differ, or cannot be read; the first 20 differing paths are shown, grave
    ones first. Files that differ stop launches, until they match again. Each look is in the log.

    \b
    Example:
      coppice tpl verify fbsd14-min
      coppice tpl verify --all
    """
    if not names and not everything:
        raise click.UsageError("Say which: NAME, NAME@GENERATION, or --all.")
    if everything and any(one.number is not None for one in names):
        raise click.UsageError("--all is every generation: give NAMEs without @GENERATION.")
    wanted = _standing(session, names) if everything else list(names)
    rows: list[Document] = []
    for count, one in enumerate(wanted, start=1):
        of = f" ({count} of {len(wanted)})" if len(wanted) > 1 else ""
        session.out.say(f"Reading the files of {one}{of}")
        body = {} if one.number is None else {"generation": one.number}
        rows.append(session.api.post(path("templates", one.name, "verify"), body, patient=True))
    if session.out.as_json:
        session.out.json(rows if everything or len(rows) != 1 else rows[0])
    else:
        _show(session, listing, rows)
    if any(pick(row, "result") != "matches" for row in rows):
        click.get_current_context().exit(int(Exit.FAILURE))


def _standing(session: Session, names: tuple[At, ...]) -> list[At]:
    """Every generation that is there."""
    found = [one.name for one in names]
    if not names:
        found = [shown(pick(row, "name")) for row in session.api.get(path("templates"), list)]
    return [
        At(name, number)
        for name in found
        for row in reversed(session.api.get(path("templates", name, "generations"), list))
        if isinstance(number := pick(row, "generation"), int)
    ]


def _show(session: Session, listing: Listing, rows: list[Document]) -> None:
    listing.show(session.out, rows)
    differences = Listing(
        columns=[column for column in DIFF if column.name in DIFF_DEFAULT],
        chosen=False,
        script=listing.script,
        exact=listing.exact,
    )
    for row in rows:
        if pick(row, "result") == "matches":
            continue
        which = f"{shown(pick(row, 'template'))}@{shown(pick(row, 'generation'))}"
        if many(row, "differences"):
            session.out.say(f"{which}:")
            show_differences(session, differences, row)
        if pick(row, "nextStep"):
            session.out.say(f"next:  {shown(pick(row, 'nextStep'))}")
