"""The gate's decision, and sandboxes: clones that were launched through it."""

from __future__ import annotations

import logging
import uuid

from django.conf import settings
from django.db import Error, connection, transaction

from templates_app import gate, lifecycle, store
from templates_app.datasets.base import (
    Dataset,
    DatasetDriver,
    Snapshot,
    alias_name,
    sandbox_name,
)
from templates_app.errors import (
    GATE_CODES,
    CoppiceError,
    EventConflict,
    GateRefused,
    MalformedName,
    SandboxExists,
    TemplateMissing,
)
from templates_app.events import (
    Meta,
    Recorded,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
)
from templates_app.models import Generation, Sandbox, Signature
from templates_app.names import TemplateName
from templates_app.projections import generation_key
from templates_app.services import common, intents, queries, signing

logger = logging.getLogger("coppice.launches")


def decide(
    name: str, generation: lifecycle.GenerationState, live: Snapshot | None
) -> gate.Decision:
    """The gate's decision on one generation, from the keys and the log as they are now."""
    signatures = [
        gate.StoredSignature(
            key_id=row.key_id,
            key_label=row.key_label,
            public_key=row.public_key,
            signature=row.signature,
        )
        for row in Signature.objects.filter(
            template_name=name, statement_digest=generation.statement_digest
        )
    ]
    return gate.decide(
        name=name,
        generation=generation,
        live=live,
        signatures=signatures,
        trusted=signing.trusted_keys(),
        mode=settings.COPPICE_REQUIRE_SIGNED_TEMPLATES,
    )


def gate_decision(*, name: str) -> gate.Decision:
    template = TemplateName.parse(name)
    generation = lifecycle.current(common.state_of(template.text))
    return decide(template.text, generation, live(common.driver(), generation))


def live(driver: DatasetDriver, generation: lifecycle.GenerationState) -> Snapshot | None:
    """A generation's @base as it is on the pool now."""
    return driver.snapshot(common.relative(driver, generation.dataset))


def create_sandbox(*, template: str, name: str | None, context: Meta) -> Recorded:
    """Clone the current generation through the gate; returns the ``sandbox-created`` event.

    Raises GateRefused (with the decision, after a ``sandbox-refused`` event), TemplateNotFound,
    TemplateMissing, SandboxExists, SandboxBusy, and what the pool raises.
    """
    parsed = TemplateName.parse(template)
    sandbox_id = uuid.uuid4().hex[:12] if name is None else _sandbox_id(name)
    with intents.alone(sandbox_id):
        for attempt in range(common.ATTEMPTS):
            state = common.state_of(parsed.text)
            try:
                return _launch(state, sandbox_id, context)
            except (EventConflict, TemplateMissing):
                if attempt == common.ATTEMPTS - 1 or not _swept(state):
                    raise
    raise AssertionError("unreachable")


def _swept(seen: lifecycle.TemplateState) -> bool:
    """Whether the generation that was current then is gone, and another one is current.

    It was replaced and swept under our feet, which is no reason to fail: the newer one is launched.
    """
    now = common.state_of(seen.name)
    return (
        seen.current is not None
        and now.current is not None
        and seen.current.number not in now.generations
    )


def _sandbox_id(name: str) -> str:
    if name.endswith(alias_name("")):
        # The dataset of sandbox "x-template" would be the alias of a template "sandbox-x".
        raise MalformedName(f"A sandbox's name may not end in {alias_name('')}.")
    return TemplateName.parse(name).text


def _launch(state: lifecycle.TemplateState, sandbox_id: str, context: Meta) -> Recorded:
    generation = lifecycle.current(state)
    driver = common.driver()
    seen = live(driver, generation)
    decision = decide(state.name, generation, seen)
    if not decision.allowed:
        raise _refuse(decision, state, generation, context)
    lifecycle.launchable(state)
    version = store.stream_version(f"sandbox:{sandbox_id}")
    if Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).exists():
        raise SandboxExists(f"There is a sandbox {sandbox_id}.")
    relative = common.relative(driver, generation.dataset)
    intents.note(sandbox_id, generation.origin)
    try:
        clone = driver.clone(relative, sandbox_name(sandbox_id))
    except SandboxExists:
        intents.forget(sandbox_id)
        raise
    try:
        # The snapshot could have been made anew between the decision and the clone.
        if (now := live(driver, generation)) != seen:
            raise _refuse(decide(state.name, generation, now), state, generation, context)
        recorded = _record(sandbox_id, version, clone, decision, state, generation, context)
    except BaseException:
        _take_back(driver, sandbox_id)
        raise
    intents.forget(sandbox_id)
    return recorded


def _take_back(driver: DatasetDriver, sandbox_id: str) -> None:
    """Remove the clone of a launch that failed, unless the log has it all the same.

    What cannot be done now, or be known (the database is away), recovery does by the note. The
    error that ended the launch is the one to be told, not ours.
    """
    try:
        connection.close_if_unusable_or_obsolete()
        if not Sandbox.objects.filter(pk=sandbox_id, destroyed_at__isnull=True).exists():
            driver.destroy(sandbox_name(sandbox_id))
        intents.forget(sandbox_id)
    except (CoppiceError, Error) as error:
        logger.error("the clone of sandbox %s is left for recovery: %s", sandbox_id, error)


def _record(
    sandbox_id: str,
    version: int,
    clone: Dataset,
    decision: gate.Decision,
    state: lifecycle.TemplateState,
    generation: lifecycle.GenerationState,
    context: Meta,
) -> Recorded:
    event = SandboxCreated(
        sandbox=sandbox_id,
        template=state.name,
        generation=generation.number,
        dataset=clone.name,
        origin=generation.origin,
        tree_digest=generation.tree_digest,
        statement_digest=generation.statement_digest,
        manifest_digest=generation.manifest_digest,
        gate=decision.mode,
        signed=decision.signed,
        key_id=decision.key_id,
        failed_checks=decision.failed_codes,
    )
    stream = event.stream()
    try:
        with transaction.atomic():
            (recorded,) = store.append([event], meta=context, expected={stream: version})
            # Under the log's lock: a destroy that came first has taken the generation away. A
            # newer generation is no reason to refuse: this one was current when we decided.
            key = generation_key(state.name, generation.number)
            if not Generation.objects.filter(pk=key, destroyed_position__isnull=True).exists():
                raise EventConflict(f"{state.name} was destroyed while it was launched.")
    except EventConflict as conflict:
        if conflict.extra.get("stream") == stream:
            raise SandboxExists(f"There is a sandbox {sandbox_id}.") from conflict
        raise
    return recorded


def _refuse(
    decision: gate.Decision,
    state: lifecycle.TemplateState,
    generation: lifecycle.GenerationState,
    context: Meta,
) -> GateRefused:
    if _swept(state):
        raise TemplateMissing(f"Generation {generation.number} of {state.name} was just removed.")
    code = decision.code or "template_unsigned"
    store.append(
        [
            SandboxRefused(
                template=decision.template,
                generation=decision.generation,
                code=code,
                tree_digest=decision.tree_digest,
                statement_digest=decision.statement_digest,
                manifest_digest=generation.manifest_digest,
                checks=decision.checks,
            )
        ],
        meta=context,
    )
    return refusal(decision)


def refusal(decision: gate.Decision) -> GateRefused:
    """What a decision against it is raised as."""
    code = decision.code or "template_unsigned"
    failed = next(check for check in decision.checks if not check.passed)
    return GateRefused(
        f"{decision.template}: {failed.reason or GATE_CODES[code]}",
        gate_code=code,
        hint=failed.next_step,
        extra={"decision": decision.to_json()},
    )


def destroy_sandbox(*, sandbox_id: str, context: Meta) -> Recorded:
    """Destroy the clone, then say so. A repeated call finds nothing: SandboxNotFound."""
    row = queries.sandbox(sandbox_id=sandbox_id)
    # Alone: of two calls at once the second must not destroy what was launched after the first.
    with intents.alone(row.id):
        row = queries.sandbox(sandbox_id=row.id)
        version = store.stream_version(f"sandbox:{row.id}")
        driver = common.driver()
        driver.destroy(common.relative(driver, row.dataset))
        event = SandboxDestroyed(sandbox=row.id, template=row.template_name, dataset=row.dataset)
        (recorded,) = store.append([event], meta=context, expected={event.stream(): version})
    return recorded
