"""The gate's decision in words: for ``tpl gate``, ``tpl signed`` and ``sandbox explain``."""

from __future__ import annotations

import click

from templates_app.cli.client import path
from templates_app.cli.output import Document, pick, shown
from templates_app.cli.session import Session
from templates_app.errors import Exit


def decision_of(session: Session, name: str) -> Document:
    """The decision as the server takes it now; nothing is cloned."""
    decision: Document = session.api.get(path("templates", name, "gate"))
    return decision


def judge(session: Session, name: str) -> None:
    """Show whether a launch would be allowed. Ends with exit status 5 where not."""
    decision = decision_of(session, name)
    allowed = pick(decision, "allowed") is True
    if session.out.as_json:
        session.out.json(decision)
    else:
        show(session, name, decision)
        if allowed:
            session.out.say(f"next:  coppice sandbox create --template {name}")
    if not allowed:
        click.get_current_context().exit(int(Exit.REFUSED))


def _mode(decision: Document) -> str:
    exempt = pick(decision, "exempt")
    mode = shown(pick(decision, "mode"))
    return f"{mode}: {shown(exempt)} is exempt (COPPICE_GATE_EXEMPT)" if exempt else mode


def show(session: Session, name: str, decision: Document) -> None:
    """Verdict, mode, and every check, on stdout."""
    allowed = pick(decision, "allowed") is True
    signed = pick(decision, "signed") is True
    if not allowed:
        verdict = f"✗ refused: a launch would be answered 403 {shown(pick(decision, 'code'))}"
    elif signed:
        verdict = "✓ allowed"
    else:
        verdict = "✓ allowed, though not every check passes: the gate does not require it"
    by = f"{shown(pick(decision, 'keyLabel'))} ({shown(pick(decision, 'keyId'))})"
    session.out.facts(
        [
            ("template", f"{name} generation {shown(pick(decision, 'generation'))}"),
            ("gate", _mode(decision)),
            ("launch", verdict),
            ("signed", f"yes, by {by}" if signed else "no"),
            ("tree", shown(pick(decision, "treeDigest"))),
            ("statement", shown(pick(decision, "statementDigest"))),
        ]
    )
    session.out.line("")
    session.out.checks(decision)
