"""``coppice tpl files`` and ``diff``: what is in a generation, what two have otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from templates_app.cli.client import path
from templates_app.cli.output import Column, Document, many, pick, short_digest, shown, size
from templates_app.cli.session import (
    GENERATION,
    At,
    Listing,
    Session,
    json_option,
    listing,
    pass_session,
)

PAGE = 2000  # files a call: the most that the server gives
PAGE_OF_DIFF = 500


def _owner(row: Any) -> str:
    return f"{shown(pick(row, 'uid'))}:{shown(pick(row, 'gid'))}"


def _hash(value: Any) -> str:
    return short_digest(f"sha256:{value}") if value else shown(value)


def _place(row: Any) -> str:
    """The path; of a link also where it leads."""
    target = pick(row, "link")
    return shown(pick(row, "path")) + (f" -> {shown(target)}" if target else "")


def _xattrs(row: Any) -> str:
    return ",".join(shown(pick(one, "name")) for one in many(row, "xattrs")) or "-"


FILES = (
    Column(name="type", at="type"),
    Column(name="mode", at="mode"),
    Column(name="owner", at="", show=_owner, exact=_owner, right=True),
    Column(name="size", at="size", show=size, right=True),
    Column(name="sha256", at="sha256", show=_hash, rank=1),
    Column(name="path", at="", show=_place, exact=_place, least=24),
    Column(name="xattrs", at="", show=_xattrs, exact=_xattrs, rank=2),
    Column(name="flags", at="flags", rank=2),
    Column(name="hardlink", at="hardlink", rank=2),
)
FILES_DEFAULT = ("type", "mode", "owner", "size", "sha256", "path")


def _at_most(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--limit``."""
    said = f"At most so many {what}."
    kind = click.IntRange(1)
    return click.option(
        "--limit", type=kind, default=1000, show_default=True, metavar="N", help=said
    )


@click.command(short_help="What is in a template's files.")
@click.argument("which", metavar="NAME[@GENERATION]", type=GENERATION)
@click.argument("pattern", metavar="[GLOB]", required=False, default="")
@click.option("--after", metavar="PATH", default="", help="Only what comes behind this path.")
@_at_most("entries")
@listing(FILES, FILES_DEFAULT)
@json_option
@pass_session
def files(
    session: Session, listing: Listing, which: At, pattern: str, after: str, limit: int
) -> None:
    """List the files of NAME's current generation, or of another one: fbsd14-min@2.

    From the tree manifest that was recorded, so also of a generation that is destroyed; whether the
    files on the pool still are that, says coppice tpl verify. GLOB is as for find(1): without a
    slash it is held against names, with one against whole paths; a star matches slashes too.

    \b
    Example:
      coppice tpl files fbsd14-min '*.so.*'
    """
    document: dict[str, Any] = {}
    rows: list[Document] = []
    following: Any = after
    while isinstance(following, str) and len(rows) < limit:
        document = session.api.get(
            path("templates", which.name, "files"),
            generation=which.number,
            pattern=pattern or None,
            after=following or None,
            limit=min(PAGE, limit - len(rows)),
        )
        page = many(document, "files")
        rows += page
        # A page without an entry cannot be followed by another: it would be asked for for ever.
        following = pick(document, "after") if page else None
    if session.out.as_json:
        session.out.json({**document, "files": rows, "after": following})
        return
    listing.show(session.out, rows)
    if isinstance(following, str):
        session.out.say(f"There are more: go on with --after '{following}', or a larger --limit.")


def _why(row: Any) -> str:
    return ",".join(shown(word) for word in many(row, "grave")) or "-"


def _what(row: Any) -> str:
    """``mode 0755 → 4755; uid 0 → 7``; of what came or went what it is, or was."""
    fields = many(row, "fields")
    if pick(row, "change") == "changed":
        return "; ".join(_change(one) for one in fields)
    side = "after" if pick(row, "change") == "added" else "before"
    short = ("type", "mode", "uid", "gid", "size", "link")
    return " ".join(
        f"{shown(pick(one, 'name'))}={shown(pick(one, side))}"
        for one in fields
        if pick(one, "name") in short
    )


def _change(field: Any) -> str:
    name = shown(pick(field, "name"))
    sides = (pick(field, "before"), pick(field, "after"))
    hashes = name == "sha256" or name.startswith("xattr ")
    before, after = (_hash(side) if hashes else shown(side) for side in sides)
    return f"{name} {before} → {after}"


DIFF = (
    Column(
        name="grave",
        at="",
        show=_why,
        exact=_why,
        style=lambda text: "" if text == "-" else "bold red",
    ),
    Column(name="change", at="change"),
    Column(name="path", at="path", least=24),
    Column(name="what", at="", show=_what, exact=_what, least=24),
)
DIFF_DEFAULT = ("grave", "change", "path", "what")


def show_differences(session: Session, listing: Listing, found: Document) -> None:
    """The differences as a table, and on stderr how many there are in all."""
    rows = many(found, "differences")
    if rows:
        listing.show(session.out, rows)
    counts = {key: int(pick(found, key) or 0) for key in ("added", "removed", "changed", "grave")}
    total = counts["added"] + counts["removed"] + counts["changed"]
    if not total:
        session.out.say("There is no difference.")
        return
    said = ", ".join(f"{counts[key]} {key}" for key in ("added", "removed", "changed"))
    session.out.say(f"{said}; {counts['grave']} of them grave.")
    if len(rows) < total:
        session.out.say(f"Shown are {len(rows)}.")


@click.command(short_help="What two generations have otherwise.")
@click.argument("before", metavar="A[@GENERATION]", type=GENERATION)
@click.argument("after", metavar="B[@GENERATION]", type=GENERATION)
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Pass over the first.")
@_at_most("differences")
@listing(DIFF, DIFF_DEFAULT)
@json_option
@pass_session
def diff(session: Session, listing: Listing, before: At, after: At, skip: int, limit: int) -> None:
    """Show which paths B adds, removes and changes, by the tree manifests that were recorded.

    First comes what is grave: files with set-id bits or capabilities, changes of owners, devices.
    Exits 0 whether there are differences or not.

    \b
    Example:
      coppice tpl diff fbsd14-min@1 fbsd14-min@2
    """
    document: dict[str, Any] = {}
    rows: list[Document] = []
    following: Any = skip
    while isinstance(following, int) and len(rows) < limit:
        document = session.api.get(
            path("templates", before.name, "diff"),
            generation=before.number,
            other=after.name,
            otherGeneration=after.number,
            skip=following,
            limit=min(PAGE_OF_DIFF, limit - len(rows)),
        )
        page = many(document, "differences")
        rows += page
        following = pick(document, "next") if page else None
    found = {**document, "differences": rows, "next": following}
    if session.out.as_json:
        session.out.json(found)
    else:
        show_differences(session, listing, found)
