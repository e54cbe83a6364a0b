"""Checks of what lies on the pool: is it there, and is it what the statement was made for?"""

from __future__ import annotations

import hashlib

from templates_app.datasets.base import Snapshot
from templates_app.errors import CoppiceError
from templates_app.events import Check
from templates_app.gate.base import failed
from templates_app.lifecycle import GenerationState
from templates_app.trust import statement


def present(generation: GenerationState, live: Snapshot | None) -> Check:
    name = "dataset_present"
    if live is None:
        return failed(
            name,
            "template_missing",
            f"{generation.origin} is not on the pool.",
            "Import the template again with --force, or restore it and run: coppice tpl reload",
        )
    return Check(name=name, passed=True, reason=f"{generation.origin} is on the pool.")


def unchanged(template: str, generation: GenerationState, live: Snapshot | None) -> Check:
    name = "snapshot_unchanged"
    if live is None or live.guid != generation.snapshot_guid:
        found = "is not there" if live is None else f"has guid {live.guid}"
        return failed(
            name,
            "statement_stale",
            f"The snapshot {found}; the statement was made for guid {generation.snapshot_guid}.",
            f"Find out who replaced it, then: coppice tpl import-oci {template} REF --force",
        )
    return Check(name=name, passed=True, reason=f"Its guid is {live.guid}, as recorded.")


def statement_matches(template: str, generation: GenerationState) -> Check:
    name = "statement_matches"
    text = generation.statement.encode()
    actual = "sha256:" + hashlib.sha256(text).hexdigest()
    wrong = ""
    if actual != generation.statement_digest:
        wrong = f"The stored statement has digest {actual}, not {generation.statement_digest}."
    else:
        try:
            subject = statement.subject(text)
        except CoppiceError as error:
            wrong = error.detail
        else:
            if subject != (template, generation.tree_digest):
                wrong = "The stored statement is about another template or tree."
    if wrong:
        return failed(name, "statement_stale", wrong, "Run: manage.py rebuild_projections --check")
    return Check(
        name=name, passed=True, reason=f"It binds {template} to tree {generation.tree_digest}."
    )
