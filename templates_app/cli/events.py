"""``coppice events``: the log in commit order, and what the log's lines look like everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from templates_app.cli.client import Api, Failure, path
from templates_app.cli.output import Column, Document, many, moment, pick
from templates_app.cli.session import Listing, Session, json_option, listing, pass_session

PAGE = 500  # events a call: the most that the server gives
PERIOD = 1.0  # seconds between two looks at the end of the log
RETRY = 3.0  # seconds until a server that is gone is asked again

COLUMNS = (
    Column(name="time", at="recordedAt", show=moment, rank=2),
    Column(name="position", at="position", right=True, rank=1),
    Column(name="actor", at="meta.actor", rank=3),
    Column(name="event", at="sentence", least=24),
    Column(name="type", at="type", rank=4),
    Column(name="stream", at="stream", rank=4),
    Column(name="version", at="version", right=True, rank=4),
    Column(name="source", at="meta.source", rank=4),
    Column(name="node", at="meta.node", rank=4),
    Column(name="request", at="meta.requestId", rank=4),
    Column(name="id", at="eventId", rank=4),
    Column(name="leaf", at="leafHash", rank=4),
)
DEFAULT = ("time", "position", "actor", "event")


@click.command(short_help="The log, oldest first.")
@click.option(
    "--after",
    type=click.IntRange(0, 2**53 - 1),
    default=0,
    metavar="POSITION",
    help="Only events after this position.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many events.")
@click.option("--follow", is_flag=True, help="Go on with what is appended, until Ctrl-C.")
@listing(COLUMNS, DEFAULT)
@json_option
@pass_session
def events(session: Session, listing: Listing, after: int, limit: int | None, follow: bool) -> None:
    """Print the log of all that ever happened, in commit order.

    Positions have no gaps: --after with the last one that you saw goes on exactly there. With
    --json each event is one line.

    \b
    Example:
      coppice events --after 120 --follow
    """
    pages = _pages(session, after, limit, follow)
    if session.out.as_json:
        for page in pages:
            for event in page:
                session.out.json(event, one_line=True)
    elif follow or listing.script:
        # Line by line: a column's width cannot wait for events that are yet to come.
        for page in pages:
            for event in page:
                cells = [column.cell(event, listing.exact) for column in listing.columns]
                session.out.line(("\t" if listing.script else "  ").join(cells))
    else:
        listing.show(session.out, [event for page in pages for event in page])


def _pages(
    session: Session, after: int, limit: int | None, follow: bool
) -> Iterator[list[Document]]:
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page, after = _page(session, after, size, patient=follow)
        if page:
            yield page
        if left is not None:
            left -= len(page)
        if len(page) < size:
            if not follow:
                return
            time.sleep(PERIOD)


def _page(session: Session, after: int, size: int, *, patient: bool) -> tuple[list[Document], int]:
    """One page and the next cursor. ``patient``: a server that restarts is waited for."""
    told = False
    while True:
        try:
            feed = session.api.get(path("events"), after=after, limit=size)
            return many(feed, "events"), _cursor(session.api, feed, after)
        except Failure as failure:
            gone = failure.code == "server_unreachable" or failure.outcome_unknown
            if not (patient and gone):
                raise
            if not told:
                session.out.warn(f"{failure.detail} Trying again every {RETRY:g} s.")
                told = True
            time.sleep(RETRY)


def _cursor(api: Api, feed: Document, after: int) -> int:
    """Where to go on. A cursor that does not advance would repeat a page for ever."""
    following: Any = feed.get("after")
    if (
        not isinstance(following, int)
        or following < after
        or (feed.get("events") and following == after)
    ):
        raise Failure("server_answer", f"{api.url} gave {following!r} as the cursor after {after}.")
    return following


def about(session: Session, name: str) -> list[Document]:
    """All events about a template, oldest first, page by page."""
    rows: list[Document] = []
    after = 0
    while True:
        page = session.api.get(path("templates", name, "events"), list, after=after, limit=PAGE)
        rows += page
        following = pick(page[-1], "position") if page else None
        # A server that does not count on would be asked for ever.
        if len(page) < PAGE or not isinstance(following, int) or following <= after:
            return rows
        after = following
