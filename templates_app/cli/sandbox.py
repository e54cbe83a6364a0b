"""``coppice sandbox``: clones of templates, made through the gate."""

from __future__ import annotations

import click

from templates_app.cli.client import path
from templates_app.cli.gate import judge
from templates_app.cli.output import NAMES, Column, minute, pick, shown, yes_no
from templates_app.cli.session import (
    NAME,
    SANDBOX,
    Listing,
    Session,
    json_option,
    listing,
    pass_session,
)

COLUMNS = (
    Column(name="id", at="id", least=NAMES),
    Column(name="template", at="template", least=NAMES, rank=1),
    Column(name="generation", at="generation", title="gen", right=True, rank=2),
    Column(name="signed", at="signed", style=yes_no, rank=2),
    Column(name="gate", at="gate", rank=5),
    Column(name="created", at="createdAt", show=minute, rank=3),
    Column(name="by", at="createdBy", rank=4),
    Column(name="dataset", at="dataset", rank=6),
    Column(name="origin", at="origin", rank=7),
)
DEFAULT = ("id", "template", "generation", "signed", "created", "by", "dataset")


@click.group(short_help="Sandboxes: clones made through the gate.")
def sandbox() -> None:
    """Sandboxes: clones of templates, made through the gate."""


@sandbox.command(short_help="Clone a template, if the gate lets it.")
@click.option("--template", type=NAME, required=True, metavar="NAME", help="What to clone.")
@click.option("--name", type=SANDBOX, metavar="ID", help="The sandbox's id. Else one is made.")
@json_option
@pass_session
def create(session: Session, template: str, name: str | None) -> None:
    """Clone a template through the gate and print where the clone is.

    A refusal (403) shows every check and what to do, and exits 5.

    \b
    Example:
      coppice sandbox create --template fbsd14-min --name build-7
    """
    wanted = {"template": template} | ({"name": name} if name else {})
    made = session.api.post(path("sandboxes"), wanted, patient=True)
    if session.out.as_json:
        session.out.json(made)
        return
    keys = (("sandbox", "id"), ("dataset", "dataset"), ("origin", "origin"))
    session.out.line(" ".join(f"{word}={shown(pick(made, key))}" for word, key in keys))
    if pick(made, "signed") is not True:
        session.out.warn("it was launched from an unsigned template; the log says so.")


@sandbox.command("list", short_help="The live sandboxes, oldest first.")
@click.option("--template", type=NAME, metavar="NAME", help="Only clones of this one.")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def list_(session: Session, listing: Listing, template: str | None) -> None:
    """List the live sandboxes, oldest first.

    \b
    Example:
      coppice sandbox list --template fbsd14-min -H -o id
    """
    rows = session.api.get(path("sandboxes"), list, template=template)
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)


@sandbox.command(short_help="Destroy a sandbox.")
@click.argument("sandbox_id", metavar="ID", type=SANDBOX)
@json_option
@pass_session
def destroy(session: Session, sandbox_id: str) -> None:
    """Destroy a sandbox and all that is in it. The log keeps that it was there.

    \b
    Example:
      coppice sandbox destroy build-7
    """
    answer = session.api.delete(path("sandboxes", sandbox_id))
    if session.out.as_json:
        session.out.json(answer)
    else:
        session.out.say(f"Destroyed sandbox {sandbox_id}.")


@sandbox.command(short_help="Would the gate let it? Nothing is cloned.")
@click.option("--template", type=NAME, required=True, metavar="NAME", help="What would be cloned.")
@json_option
@pass_session
def explain(session: Session, template: str) -> None:
    """Show what the gate would decide on a launch now, and the commands that come next.

    The same as: coppice tpl gate NAME. Exits 5 where a launch would be refused.

    \b
    Example:
      coppice sandbox explain --template fbsd14-min
    """
    judge(session, template)
