"""What a revocation or a withdrawal changes: which generations are not signed any more, and what
was launched of them.

Judged by the gate itself, with keys and signatures as they are and as they would be. What lies on
the pool is taken to be as it was recorded: a template that is refused for another reason is not
refused by this.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from django.db.models import Q, QuerySet
from django.utils import timezone

from templates_app import gate
from templates_app.datasets.base import Snapshot
from templates_app.lifecycle import GenerationState
from templates_app.models import Generation, Sandbox, Signature, Template
from templates_app.services import common, keyring, noticed
from templates_app.trust.keyring import KnownKey, Revocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A template whose current generation is not signed any more."""

    template: str
    generation: int
    code: str  # what a launch would be refused for
    refused: bool  # whether it would: the gate may be off, or only warn


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    templates: tuple[Hit, ...]  # by name
    sandboxes: tuple[Sandbox, ...]  # live ones of all generations concerned, also of older ones


def of_revocation(key: KnownKey, revocation: Revocation) -> Radius:
    """Of this key, were it revoked so."""
    text = key.public_key.text
    signed = Signature.objects.filter(public_key=text).values("statement_digest")

    def revoked(one: KnownKey) -> KnownKey:
        same = one.public_key.text == text
        return dataclasses.replace(one, revocation=revocation) if same else one

    return _radius(Generation.objects.filter(statement_digest__in=signed), keys=revoked)


def of_withdrawal(signature: Signature, position: int) -> Radius:
    """Of this signature, were it withdrawn by an event at that position."""

    def withdrawn(one: gate.StoredSignature) -> gate.StoredSignature:
        same = one.position == signature.position
        return dataclasses.replace(one, withdrawn=position) if same else one

    rows = Generation.objects.filter(statement_digest=signature.statement_digest)
    return _radius(rows, signatures=withdrawn)


def _radius(
    generations: QuerySet[Generation],
    *,
    keys: Callable[[KnownKey], KnownKey] = lambda one: one,
    signatures: Callable[[gate.StoredSignature], gate.StoredSignature] = lambda one: one,
) -> Radius:
    """What changes for these generations, where keys and signatures become others."""
    rows = list(
        generations.filter(destroyed_position__isnull=True).order_by("template_name", "number")
    )
    current = dict(Template.objects.filter(missing=False).values_list("current_id", "name"))
    stored = _signatures(rows)
    before = keyring.known({one.public_key for some in stored.values() for one in some})
    after = [keys(one) for one in before]
    findings = noticed.touching_all()
    hits, lost = [], Q(pk__in=())
    for row in rows:
        have = stored[row.template_name, row.statement_digest]
        found = findings.get((row.template_name, row.number), [])
        if not _decide(row, have, found, before).signed:
            continue
        decision = _decide(row, [signatures(one) for one in have], found, after)
        if decision.signed:
            continue
        lost |= Q(template_name=row.template_name, generation=row.number)
        if row.pk in current:
            hits.append(
                Hit(
                    template=row.template_name,
                    generation=row.number,
                    code=decision.code or "",
                    refused=not decision.allowed,
                )
            )
    running = Sandbox.objects.filter(lost, destroyed_at__isnull=True)
    return Radius(templates=tuple(hits), sandboxes=tuple(running))


def _signatures(rows: list[Generation]) -> dict[tuple[str, str], list[gate.StoredSignature]]:
    found = defaultdict(list)
    statements = {row.statement_digest for row in rows}
    for one in Signature.objects.filter(statement_digest__in=statements):
        found[one.template_name, one.statement_digest].append(keyring.stored(one))
    return found


def _decide(
    row: Generation,
    signatures: list[gate.StoredSignature],
    findings: list[gate.OpenFinding],
    keys: list[KnownKey],
) -> gate.Decision:
    state = GenerationState(
        number=row.number,
        dataset=row.dataset,
        origin=row.origin,
        snapshot_guid=row.snapshot_guid,
        tree_digest=row.tree_digest,
        statement=row.statement,
        statement_digest=row.statement_digest,
        manifest_digest=row.manifest_digest or None,
        adopted=row.adopted,
    )
    return gate.decide(
        name=row.template_name,
        generation=state,
        live=Snapshot(name=row.origin, guid=row.snapshot_guid, size_bytes=row.size_bytes),
        signatures=signatures,
        keys=keys,
        noticed=findings,
        importer=row.imported_by,
        policy=common.gate_policy(),
        now=timezone.now(),
    )
