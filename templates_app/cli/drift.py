"""``coppice tpl drift``: whether tags still name what was imported from them."""

from __future__ import annotations

import click

from templates_app.cli.client import path
from templates_app.cli.output import NAMES, Column, minute, pick, short_digest, shown
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session
from templates_app.errors import Exit

STYLES = {"moved": "yellow", "gone": "bold red", "unreachable": "bold red", "current": "green"}


def style(text: str) -> str:
    return STYLES.get(text, "")


COLUMNS = (
    Column(name="template", at="template", least=NAMES),
    Column(name="generation", at="generation", title="gen", right=True, rank=2),
    Column(name="state", at="state", style=style),
    Column(name="imported", at="importedDigest", show=short_digest, rank=1),
    Column(name="found", at="foundDigest", show=short_digest, rank=1),
    Column(name="since", at="since", show=minute, rank=2),
    Column(name="reference", at="reference", least=16, rank=3),
    Column(name="detail", at="detail", rank=5),
    Column(name="changed", at="changed", rank=5),
)
DEFAULT = ("template", "generation", "state", "imported", "found", "since", "reference")


@click.command(short_help="Do tags still name what was imported?")
@click.argument("names", type=NAME, nargs=-1, metavar="[NAME…]")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def drift(session: Session, listing: Listing, names: tuple[str, ...]) -> None:
    """Ask the registries what the tags name now that templates were imported from.

    STATE is current, moved (the tag names FOUND now), gone, unreachable (the registry did not
    answer; why, is said) or pinned (no tag that could move: imported by digest, from a file, or
    made by hand). Nothing is imported; each change is an event. Exits 6 where a registry could not
    be asked.

    \b
    Example:
      coppice tpl drift fbsd14-min
    """
    if not session.out.as_json:
        session.out.say("Asking the registries...")
    rows = session.api.post(
        path("drift"), {"templates": list(names)} if names else {}, list, patient=True
    )
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)
        for row in rows:
            if pick(row, "detail"):
                session.out.say(f"{shown(pick(row, 'template'))}: {shown(pick(row, 'detail'))}")
            if pick(row, "state") == "moved" and not listing.script:
                name, reference = shown(pick(row, "template")), shown(pick(row, "reference"))
                session.out.say(f"next:  coppice tpl import {name} {reference} --force")
    if any(pick(row, "state") == "unreachable" for row in rows):
        click.get_current_context().exit(int(Exit.PULL_FAILED))
