"""``coppice tpl generations`` and ``rollback``: older generations of a template."""

from __future__ import annotations

from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import Column, many, minute, pick, short_digest, shown, size
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session


def _state(row: Any) -> str:
    """One word: current, kept (of a destroyed template, for its clones alone), in-use (something
    is cloned from it), earlier."""
    if pick(row, "current") is True:
        return "current"
    if pick(row, "kept") is True:
        return "kept"
    return "in-use" if many(row, "clones") else "earlier"


def _clones(row: Any) -> str:
    return str(len(many(row, "clones")))


def _names(row: Any) -> str:
    return ",".join(shown(clone) for clone in many(row, "clones")) or "-"


COLUMNS = (
    Column(name="generation", at="generation", title="gen", right=True),
    Column(name="state", at="", show=_state, exact=_state),
    Column(name="clones", at="", show=_clones, exact=_clones, right=True),
    Column(name="size", at="sizeBytes", show=size, right=True, rank=1),
    Column(name="imported", at="importedAt", show=minute, rank=2),
    Column(name="digest", at="digest", show=short_digest, rank=4),
    Column(name="reference", at="reference", least=16, rank=3),
    Column(name="by", at="importedBy", rank=5),
    Column(name="signed", at="signed", rank=5),
    Column(name="tree", at="treeDigest", show=short_digest, rank=5),
    Column(name="statement", at="statementDigest", show=short_digest, rank=5),
    Column(name="origin", at="origin", rank=5),
    Column(name="names", at="", show=_names, exact=_names, rank=5),
)
DEFAULT = ("generation", "state", "clones", "size", "imported", "reference")


@click.command(short_help="The generations of a template that are there.")
@click.argument("name", type=NAME)
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def generations(session: Session, listing: Listing, name: str) -> None:
    """List the generations of NAME that are on the pool, the newest first.

    STATE is current, in-use (something is cloned from it), earlier, or kept: its template was
    destroyed, and it stays until nothing is cloned from it. -o names has the clones.

    \b
    Example:
      coppice tpl generations fbsd14-min
    """
    rows = session.api.get(path("templates", name, "generations"), list)
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)


@click.command(short_help="Make an older generation current again.")
@click.argument("name", type=NAME)
@click.option(
    "--to",
    type=click.IntRange(min=1),
    metavar="N",
    help="The generation that becomes current. Without it: the one before.",
)
@json_option
@pass_session
def rollback(session: Session, name: str, to: int | None) -> None:
    """Make an older generation of NAME current again. Sandboxes that run are left alone.

    Refused (exit 5) where the gate would not let that generation be launched.

    \b
    Example:
      coppice tpl rollback fbsd14-min --to 3
    """
    body = {} if to is None else {"to": to}
    template = session.api.post(path("templates", name, "rollback"), body, patient=True)
    if session.out.as_json:
        session.out.json(template)
    else:
        session.out.say(f"{name} is generation {shown(pick(template, 'generation'))} now.")
