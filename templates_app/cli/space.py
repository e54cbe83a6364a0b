"""``coppice tpl df``: what generations take of the pool's disk."""

from __future__ import annotations

from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import NAMES, Column, many, pick, shown, size
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session


def _clones(row: Any) -> str:
    return str(len(many(row, "clones")))


COLUMNS = (
    Column(name="template", at="template", least=NAMES),
    Column(name="generation", at="generation", title="gen", right=True),
    Column(name="current", at="current", rank=3),
    Column(name="referenced", at="referencedBytes", show=size, right=True),
    Column(name="unique", at="uniqueBytes", show=size, right=True),
    Column(name="shared", at="sharedBytes", show=size, right=True, rank=1),
    Column(name="clones", at="", show=_clones, exact=_clones, right=True, rank=2),
    Column(name="written", at="clonesBytes", show=size, right=True, rank=2),
    Column(name="origin", at="origin", least=16, rank=4),
    Column(name="dataset", at="dataset", rank=5),
    Column(name="names", at="clones", rank=5),
)
DEFAULT = (
    "template", "generation", "current", "referenced", "unique", "shared", "clones", "written",
    "origin",
)  # fmt: skip


@click.command(short_help="What generations take of the disk.")
@click.argument("name", type=NAME, required=False)
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def df(session: Session, listing: Listing, name: str | None) -> None:
    """Say what each generation on the pool takes of its disk, or those of NAME.

    REFERENCED is all of its files; UNIQUE would be free without it and what is cloned from it;
    SHARED is the rest, which ORIGIN has too; WRITTEN is what its CLONES, aliases and sandboxes,
    have of their own. On a dir: pool each sandbox is a copy. What is free stands below.

    \b
    Example:
      coppice tpl df -Hpo template,generation,unique
    """
    found = session.api.get(path("space"), template=name, read=None)
    if session.out.as_json:
        session.out.json(found)
        return
    listing.show(session.out, many(found, "generations"))
    if not listing.script:
        session.out.say(
            f"{shown(pick(found, 'pool'))}: {size(pick(found, 'usedBytes'))} used,"
            f" {size(pick(found, 'availableBytes'))} free,"
            f" {size(pick(found, 'marginBytes'))} of it to stay free;"
            f" layer states {size(pick(found, 'layersBytes'))}"
        )
        session.out.say(
            f"blob cache: {size(pick(found, 'cacheBytes'))},"
            f" {size(pick(found, 'cacheAvailableBytes'))} free there"
        )
