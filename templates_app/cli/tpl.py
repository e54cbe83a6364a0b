"""``coppice tpl``: templates. Importing and signing have modules of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from templates_app.cli import events, gate
from templates_app.cli.client import path
from templates_app.cli.generations import generations, rollback
from templates_app.cli.importing import import_any, import_oci, progress
from templates_app.cli.output import (
    Column,
    Document,
    many,
    minute,
    moment,
    pick,
    short_digest,
    shown,
    size,
)
from templates_app.cli.session import (
    DIGEST,
    NAME,
    Listing,
    Session,
    json_option,
    listing,
    pass_session,
)
from templates_app.cli.signing import sign, statement, verify


def state(template: Any) -> str:
    """One word: missing (not on the pool), blocked (by the gate), signed, unsigned."""
    if pick(template, "missing") is True:
        return "missing"
    if pick(template, "signed") is True:
        return "signed"
    return "blocked" if pick(template, "blocked") is True else "unsigned"


def _state_style(text: str) -> str:
    return {"signed": "green", "unsigned": "yellow"}.get(text, "bold red")


COLUMNS = (
    Column(name="name", at="name"),
    Column(name="generation", at="generation", title="gen", right=True, rank=1),
    Column(name="size", at="sizeBytes", show=size, right=True, rank=1),
    Column(name="state", at="", show=state, exact=state, style=_state_style),
    Column(name="imported", at="importedAt", show=minute, rank=2),
    Column(name="digest", at="digest", show=short_digest, rank=4),
    Column(name="reference", at="reference", least=16, rank=3),
    Column(name="signed", at="signed", rank=5),
    Column(name="blocked", at="blocked", rank=5),
    Column(name="missing", at="missing", rank=5),
    Column(name="adopted", at="adopted", rank=5),
    Column(name="floating", at="floating", rank=5),
    Column(name="snapshot", at="snapshot", rank=5),
    Column(name="origin", at="origin", rank=5),
    Column(name="index", at="digests.index", show=short_digest, rank=5),
    Column(name="config", at="digests.config", show=short_digest, rank=5),
    Column(name="tree", at="treeDigest", show=short_digest, rank=5),
    Column(name="statement", at="statementDigest", show=short_digest, rank=5),
    Column(name="platform", at="platform", rank=5),
    Column(name="engine", at="engine", rank=5),
    Column(name="entries", at="entries", right=True, rank=5),
    Column(name="verdict", at="verdict.result", rank=5),
    Column(name="by", at="importedBy", rank=5),
    Column(name="position", at="position", right=True, rank=5),
)
DEFAULT = ("name", "generation", "size", "state", "imported", "reference")


@click.group(short_help="Templates: import, sign, look at, destroy.")
def tpl() -> None:
    """Templates: import, sign, look at, destroy."""


for command in (
    import_any, import_oci, progress, sign, statement, verify, generations, rollback
):  # fmt: skip
    tpl.add_command(command)


@tpl.command("list", short_help="All templates.")
@click.option("--signed/--unsigned", default=None, help="Only those that are, or are not, signed.")
@click.option("--digest", type=DIGEST, metavar="DIGEST", help="Only those made of this digest.")
@click.option("--platform", metavar="OS/ARCH", help="Only those for this platform.")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def list_(
    session: Session,
    listing: Listing,
    signed: bool | None,
    digest: str | None,
    platform: str | None,
) -> None:
    """List the templates in the order of their names.

    STATE is signed, unsigned, blocked (unsigned, and the gate refuses that) or missing (not on the
    pool). On a narrow terminal columns that do not fit are left out, unless -o names them.

    \b
    Example:
      coppice tpl list --unsigned -H -p -o name,size,digest
    """
    rows = session.api.get(path("templates"), list, signed=signed, digest=digest, platform=platform)
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)


@tpl.command(short_help="One template with all its facts.")
@click.argument("name", type=NAME)
@json_option
@pass_session
def show(session: Session, name: str) -> None:
    """Show one template: where it is, what it is made of, whether it may be launched.

    \b
    Example:
      coppice tpl show fbsd14-min
    """
    template = session.api.get(path("templates", name))
    if session.out.as_json:
        session.out.json(template)
        return
    session.out.facts(_facts(template))
    if state(template) in ("blocked", "unsigned"):
        session.out.say(f"next:  coppice tpl sign {name}")


def _facts(template: Document) -> list[tuple[str, str]]:
    def at(dotted: str) -> str:
        return shown(pick(template, dotted))

    verdict = at("verdict.result")
    if pick(template, "verdict.reason"):
        verdict += f": {at('verdict.reason')}"
    facts = [
        ("name", at("name")),
        ("state", state(template)),
        ("generation", at("generation") + (" (hand-made)" if template.get("adopted") else "")),
        ("snapshot", at("snapshot")),
        ("origin", at("origin")),
        (
            "size",
            f"{size(template.get('sizeBytes'))} ({at('sizeBytes')} bytes, {at('entries')} entries)",
        ),
        ("reference", at("reference") + (" (floating)" if template.get("floating") else "")),
        ("index", at("digests.index")),
        ("manifest", at("digests.manifest")),
        ("config", at("digests.config")),
        ("tree", at("treeDigest")),
        ("statement", at("statementDigest")),
        ("platform", at("platform")),
        ("programs", verdict),
        ("engine", at("engine")),
        *_work(template),
        ("imported", f"{moment(template.get('importedAt'))} UTC by {at('importedBy')}"),
        ("position", at("position")),
    ]
    for deviation in many(template, "deviations"):
        facts.append(
            ("deviation", f"{shown(pick(deviation, 'path'))}: {shown(pick(deviation, 'reason'))}")
        )
    facts += [("finding", shown(finding)) for finding in many(template, "findings")]
    return facts


def _work(template: Document) -> list[tuple[str, str]]:
    """What the import moved and how long it took, as far as it was recorded."""
    moved = [
        f"{size(template[key])} {how}"
        for key, how in (
            ("fetchedBytes", "fetched"),
            ("cachedBytes", "from the cache"),
            ("writtenBytes", "written"),
        )
        if isinstance(template.get(key), int)
    ]
    stages = pick(template, "milliseconds")
    took = [
        f"{shown(stage)} {milliseconds / 1000:.1f} s"
        for stage, milliseconds in (stages.items() if isinstance(stages, dict) else ())
        if isinstance(milliseconds, int)
    ]
    facts = (("moved", moved), ("took", took))
    return [(name, ", ".join(texts)) for name, texts in facts if texts]


@tpl.command(short_help="Everything that happened to a name.")
@click.argument("name", type=NAME)
@listing(events.COLUMNS, events.DEFAULT)
@json_option
@pass_session
def history(session: Session, listing: Listing, name: str) -> None:
    """Print every event about NAME, oldest first; also of a template that is destroyed.

    \b
    Example:
      coppice tpl history fbsd14-min
    """
    rows: list[Document] = []
    after = 0
    while True:
        page = session.api.get(
            path("templates", name, "events"), list, after=after, limit=events.PAGE
        )
        rows += page
        following = pick(page[-1], "position") if page else None
        # A server that does not count on would be asked for ever.
        if len(page) < events.PAGE or not isinstance(following, int) or following <= after:
            break
        after = following
    if session.out.as_json:
        session.out.json(rows)
    else:
        listing.show(session.out, rows)


@tpl.command("gate", short_help="Would the gate let it be launched?")
@click.argument("name", type=NAME)
@json_option
@pass_session
def gate_(session: Session, name: str) -> None:
    """Show what the gate would decide now, with every check. Exits 5 where it would refuse.

    \b
    Example:
      coppice tpl gate fbsd14-min
    """
    gate.judge(session, name)


@tpl.command(short_help="Remove a template and its datasets.")
@click.argument("name", type=NAME)
@click.option("--dry-run", "-n", is_flag=True, help="Only print the datasets that would go.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@json_option
@pass_session
def destroy(session: Session, name: str, dry_run: bool, yes: bool) -> None:
    """Remove a template with all its generations. Its history stays in the log.

    Refused (409) while sandboxes or other clones depend on it.

    \b
    Example:
      coppice tpl destroy fbsd14-min --dry-run
    """
    where = path("templates", name)
    if dry_run:
        would = session.api.delete(where, dryRun=True)
        if session.out.as_json:
            session.out.json(would)
        else:
            _say_datasets(session, would)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run.")
        would = session.api.delete(where, dryRun=True)
        session.out.say(f"These datasets of {name} will be destroyed:")
        for dataset in many(would, "datasets"):
            session.out.say(f"  {shown(dataset)}")
        if not click.confirm("Destroy them?", err=True):
            session.out.say("Nothing was destroyed.")
            click.get_current_context().exit(1)
    answer = session.api.delete(where)
    if session.out.as_json:
        session.out.json(answer)
    else:
        session.out.say(f"Destroyed {name}.")


def _say_datasets(session: Session, would: Document) -> None:
    for dataset in many(would, "datasets"):
        session.out.line(shown(dataset))
    session.out.say("Nothing was destroyed: this was a dry run.")


@tpl.command("reload", short_help="Compare pool and log.")
@json_option
@pass_session
def reload_(session: Session) -> None:
    """Compare the pool with the log: adopt hand-made templates, mark those that are gone.

    \b
    Example:
      coppice tpl reload
    """
    found = session.api.post(path("templates", "reload"), patient=True)
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
    for line in lines:
        session.out.line(line)
    where = f"{shown(found.get('pool'))}, event {shown(found.get('position'))}"
    session.out.say(f"{'Differences' if lines else 'No difference'} found ({where}).")


def _named(word: str, rows: Sequence[Any], key: str) -> Sequence[str]:
    return [f"{word:<8}  {shown(pick(row, key) if key else row)}" for row in rows]
