"""``coppice tpl attached``: what the registry holds about a template's image."""

from __future__ import annotations

import click

from templates_app.cli.client import path
from templates_app.cli.digest import ATTACHED
from templates_app.cli.output import Column, short_digest
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session

COLUMNS = (
    *ATTACHED,
    Column(name="subject", at="subject", show=short_digest, rank=5),
    Column(name="through", at="through", rank=5),
    Column(name="kept", at="kept", rank=5),
)
DEFAULT = ("kind", "verified", "digest", "size", "type", "detail")


@click.command(short_help="What the registry holds about the image.")
@click.argument("name", type=NAME)
@click.option("--fetch", is_flag=True, help="Ask the registry now; else what was found last.")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def attached(session: Session, listing: Listing, name: str, fetch: bool) -> None:
    """List signatures, attestations and lists of contents (SBOMs) that the registry holds about the
    image that NAME was imported from.

    VERIFIED BY names the keys in COPPICE_COSIGN_KEYS that have signed this very image. What is not
    verified is only there: that says nothing of what it says.

    \b
    Example:
      coppice tpl attached fbsd14-min --fetch
    """
    where = path("templates", name, "attached")
    if fetch:
        rows = session.api.post(where, None, list, patient=True)
    else:
        rows = session.api.get(where, list)
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)
