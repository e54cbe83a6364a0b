"""``coppice tpl findings`` and ``reload``: what a look at the pool noticed, and the look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import NAMES, Column, many, minute, pick, shown
from templates_app.cli.session import NAME, Listing, Session, json_option, listing, pass_session


def _stops(row: Any) -> str:
    return "yes" if pick(row, "blocks") is True else "no"


def _touches(row: Any) -> str:
    """``fbsd14-min@2``, or a dash."""
    name, generation = pick(row, "template"), pick(row, "generation")
    if not name:
        return "-"
    return shown(name) if generation is None else f"{shown(name)}@{shown(generation)}"


COLUMNS = (
    Column(name="code", at="code"),
    Column(name="touches", at="", show=_touches, exact=_touches, least=NAMES, rank=1),
    Column(name="stops", at="", show=_stops, exact=_stops, title="stops launches", rank=2),
    Column(name="subject", at="subject", least=16),
    Column(name="detail", at="detail", least=16, rank=3),
    Column(name="found", at="foundAt", show=minute, rank=4),
    Column(name="next", at="nextStep", rank=5),
    Column(name="position", at="position", right=True, rank=5),
    Column(name="seen", at="seenPosition", right=True, rank=5),
)
DEFAULT = ("code", "touches", "stops", "subject", "detail", "found")


@click.command(short_help="What the last looks at the pool noticed.")
@click.argument("name", type=NAME, required=False)
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def findings(session: Session, listing: Listing, name: str | None) -> None:
    """List the findings that are open, the newest first; with NAME those that touch it.

    STOPS LAUNCHES: yes where the gate, if it is on, refuses the generation for it. -o next has
    what to do; so has docs/reference/findings.md.

    \b
    Example:
      coppice tpl findings fbsd14-min
    """
    rows = session.api.get(path("findings"), list, template=name)
    if session.out.as_json:
        session.out.json(rows)
        return
    listing.show(session.out, rows)
    if not listing.script:
        for row in rows:
            _say_next(session, row)


@click.command("reload", short_help="Compare pool and log; repair what is safe.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be found and repaired.")
@click.option("--fix", is_flag=True, help="Repair what is safe.")
@click.option("--verify", is_flag=True, help="Look into the files of every generation, too.")
@json_option
@pass_session
def reload_(session: Session, dry_run: bool, fix: bool, verify: bool) -> None:
    """Compare the pool with the log: adopt hand-made templates, mark those that are gone, and say
    what an operator should see.

    --fix moves aliases to where the log has them, puts mountpoints back, and removes what imports
    that failed have left. --verify reads every file of every generation, and takes as long.

    \b
    Example:
      coppice tpl reload --fix --dry-run
    """
    body = {"dryRun": dry_run, "fix": fix, "verify": verify}
    found = session.api.post(path("templates", "reload"), body, patient=True)
    if session.out.as_json:
        session.out.json(found)
        return
    lines = [
        *_named("added", many(found, "added"), "template"),
        *_named("changed", many(found, "changed"), "template"),
        *_named("missing", many(found, "missing"), ""),
        *_named("returned", many(found, "returned"), ""),
    ]
    for one in many(found, "findings"):
        words = (shown(pick(one, "code")), shown(pick(one, "subject")), shown(pick(one, "detail")))
        lines.append("finding   {}: {}: {}".format(*words))
    for one in many(found, "fixed"):
        words = (shown(pick(one, "code")), shown(pick(one, "subject")), shown(pick(one, "done")))
        lines.append("{:<8}  {}: {}: {}".format("fixable" if dry_run else "fixed", *words))
    for line in lines:
        session.out.line(line)
    for one in many(found, "findings"):
        _say_next(session, one)
    event = "a dry run" if dry_run else f"event {shown(found.get('position'))}"
    what = "Differences" if lines else "No difference"
    session.out.say(f"{what} found ({shown(found.get('pool'))}, {event}).")
    if dry_run:
        session.out.say("Nothing was changed: this was a dry run.")


def _named(word: str, rows: Sequence[Any], key: str) -> Sequence[str]:
    return [f"{word:<8}  {shown(pick(row, key) if key else row)}" for row in rows]


def _say_next(session: Session, row: Any) -> None:
    """What to do about it, on stderr."""
    stops = " (stops launches)" if pick(row, "blocks") is True else ""
    session.out.say(f"{shown(pick(row, 'code'))} {shown(pick(row, 'subject'))}{stops}")
    session.out.say(f"  next:  {shown(pick(row, 'nextStep'))}")
