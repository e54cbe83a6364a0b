"""``coppice digest``: where the bytes of a digest came from and where they went."""

from __future__ import annotations

import click

from templates_app.cli.client import path
from templates_app.cli.events import COLUMNS as EVENT_COLUMNS
from templates_app.cli.output import (
    NAMES,
    Column,
    Document,
    many,
    moment,
    pick,
    short_digest,
    shown,
    size,
    yes_no,
)
from templates_app.cli.session import DIGEST, Session, json_option, pass_session

GENERATIONS = (
    Column(name="template", at="template", least=NAMES),
    Column(name="generation", at="generation", title="gen", right=True, rank=1),
    Column(name="reference", at="reference", least=16),
    Column(name="tree", at="treeDigest", show=short_digest, rank=4),
    Column(name="imported", at="importedAt", show=moment, rank=2),
    Column(name="by", at="importedBy", rank=3),
    Column(name="destroyed", at="destroyed", rank=2),
)
SIGNATURES = (
    Column(name="template", at="template", least=NAMES),
    Column(name="key", at="keyLabel", least=NAMES),
    Column(name="keyid", at="keyId", rank=3),
    Column(name="statement", at="statementDigest", show=short_digest, rank=4),
    Column(name="signed", at="signedAt", show=moment, rank=2),
    Column(name="by", at="signedBy", rank=1),
)
SANDBOXES = (
    Column(name="id", at="id", least=NAMES),
    Column(name="template", at="template", least=NAMES, rank=1),
    Column(name="generation", at="generation", title="gen", right=True, rank=2),
    Column(name="signed", at="signed", style=yes_no, rank=2),
    Column(name="created", at="createdAt", show=moment, rank=3),
    Column(name="by", at="createdBy", rank=3),
)


ATTACHED = (
    Column(name="kind", at="kind"),
    Column(name="verified", at="verifiedBy", title="verified by"),
    Column(name="digest", at="digest", show=short_digest, rank=1),
    Column(name="size", at="sizeBytes", show=size, right=True, rank=3),
    Column(name="type", at="mediaType", least=16, rank=2),
    Column(name="detail", at="detail", least=16, rank=2),
)


@click.group(short_help="What is known of a digest.")
def digest() -> None:
    """Everything that the log knows of a digest."""


@digest.command(short_help="Generations, signatures, sandboxes, events of a digest.")
@click.argument("digest", type=DIGEST)
@json_option
@pass_session
def show(session: Session, digest: str) -> None:
    """Show what the log knows of DIGEST: index, manifest, config, tree or statement.

    \b
    Example:
      coppice digest show sha256:8c1e4a…
    """
    facts = session.api.get(path("digests", digest))
    if session.out.as_json:
        session.out.json(facts)
        return
    out = session.out
    kinds = [f"{kind} digest" for kind in many(facts, "kinds")] or ["mentioned in the log"]
    out.facts([("digest", shown(pick(facts, "digest"))), ("kind", shown(kinds))])
    events = tuple(
        column for column in EVENT_COLUMNS if column.name in ("time", "position", "event")
    )
    parts: tuple[tuple[str, tuple[Column, ...]], ...] = (
        ("generations", GENERATIONS),
        ("signatures", SIGNATURES),
        ("sandboxes", SANDBOXES),
        ("attached", ATTACHED),
        ("events", events),
    )
    for key, columns in parts:
        rows: list[Document] = [row for row in many(facts, key) if isinstance(row, dict)]
        out.line("")
        out.line(f"{key}: {len(rows) or 'none'}")
        if rows:
            out.table(columns, rows)
