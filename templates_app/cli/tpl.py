"""``coppice tpl``: templates. Importing and signing have modules of their own."""

from __future__ import annotations

import sys
from typing import Any

import click

from templates_app.cli import events, gate
from templates_app.cli.attached import attached
from templates_app.cli.client import path
from templates_app.cli.drift import drift
from templates_app.cli.drift import style as drift_style
from templates_app.cli.evidence import evidence
from templates_app.cli.findings import findings, reload_
from templates_app.cli.generations import generations, rollback
from templates_app.cli.importing import import_any, import_oci, progress
from templates_app.cli.key import unsign
from templates_app.cli.output import (
    NAMES,
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
from templates_app.cli.signing import sign, signed, statement
from templates_app.cli.space import df
from templates_app.cli.trees import diff, files
from templates_app.cli.verifying import verify


def state(template: Any) -> str:
    """One word: missing (not on the pool), blocked (by the gate), signed, unsigned."""
    if pick(template, "missing") is True:
        return "missing"
    if pick(template, "blocked") is True:
        return "blocked"
    return "signed" if pick(template, "signed") is True else "unsigned"


def _state_style(text: str) -> str:
    return {"signed": "green", "unsigned": "yellow"}.get(text, "bold red")


COLUMNS = (
    Column(name="name", at="name", least=NAMES),
    Column(name="generation", at="generation", title="gen", right=True, rank=1),
    Column(name="size", at="sizeBytes", show=size, right=True, rank=1),
    Column(name="state", at="", show=state, exact=state, style=_state_style),
    Column(name="drift", at="drift", style=drift_style, rank=5),
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
    import_any, import_oci, progress, sign, unsign, statement, signed, verify, generations,
    rollback, files, diff, evidence, findings, reload_, drift,
    df, attached,
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

    STATE is signed, unsigned, blocked (the gate refuses it: unsigned, or for a finding) or missing
    (not on the pool). DRIFT is what the last look at its tag found (coppice tpl drift). On a narrow
    terminal columns that do not fit are left out, unless -o names them.

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
    for finding in many(template, "openFindings"):
        session.out.say(f"next:  {shown(pick(finding, 'nextStep'))}")
    if state(template) in ("blocked", "unsigned") and pick(template, "signed") is not True:
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
        ("drift", at("drift")),
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
    for finding in many(template, "openFindings"):
        stops = ", stops launches" if pick(finding, "blocks") is True else ""
        what = f"{shown(pick(finding, 'code'))} (event {shown(pick(finding, 'position'))}{stops})"
        facts.append(("finding", f"{what}: {shown(pick(finding, 'detail'))}"))
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
    rows = events.about(session, name)
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
@click.option("--retire", is_flag=True, help="Keep what is in use until its last clone is gone.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@json_option
@pass_session
def destroy(session: Session, name: str, dry_run: bool, retire: bool, yes: bool) -> None:
    """Remove a template with all its generations. Its history stays in the log.

    Refused (exit 4) while sandboxes or other clones depend on it. With --retire the name is free at
    once, and generations with clones stay until manage.py sweep_generations finds none.

    \b
    Example:
      coppice tpl destroy fbsd14-min --dry-run
    """
    where = path("templates", name)
    if dry_run:
        would = session.api.delete(where, dryRun=True, retire=retire or None)
        if session.out.as_json:
            session.out.json(would)
        else:
            _say_datasets(session, would)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run.")
        would = session.api.delete(where, dryRun=True, retire=retire or None)
        session.out.say(f"These datasets of {name} will be destroyed:")
        for dataset in many(would, "datasets"):
            session.out.say(f"  {shown(dataset)}")
        _say_kept(session, would)
        if not click.confirm("Destroy them?", err=True):
            session.out.say("Nothing was destroyed.")
            click.get_current_context().exit(1)
    answer = session.api.delete(where, retire=retire or None)
    if session.out.as_json:
        session.out.json(answer)
    else:
        session.out.say(f"Destroyed {name}.")


def _say_datasets(session: Session, would: Document) -> None:
    for dataset in many(would, "datasets"):
        session.out.line(shown(dataset))
    _say_kept(session, would)
    session.out.say("Nothing was destroyed: this was a dry run.")


def _say_kept(session: Session, would: Document) -> None:
    for kept in many(would, "kept"):
        number, clones = shown(pick(kept, "generation")), many(kept, "clones")
        session.out.say(f"Generation {number} stays for {', '.join(map(shown, clones))}")
